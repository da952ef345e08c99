"""What the environment says becomes settings, or an error that names the variable."""

from pathlib import Path

import pytest

from datatunerx.app.settings import SettingsError, settings_from


def test_without_variables_everything_has_its_default():
    found = settings_from({})
    assert (found.home, found.host, found.port) == (Path.home() / ".dtx", "127.0.0.1", 7443)
    assert found.kubeconfig == found.home / "kubeconfig"


def test_variables_win_over_defaults(tmp_path):
    found = settings_from(
        {"DTX_HOME": str(tmp_path), "DTX_PORT": "0", "DTX_GPUS": "2", "DTX_KUBECONFIG": "/k"}
    )
    assert (found.home, found.port, found.gpus, found.kubeconfig) == (tmp_path, 0, 2, Path("/k"))


@pytest.mark.parametrize("port", ["x", "-1", "65536", "1.5"])
def test_a_variable_that_is_no_port_is_named_with_what_it_takes(port):
    with pytest.raises(SettingsError, match=f"DTX_PORT={port}: must be a whole number from 0 to 65535"):
        settings_from({"DTX_PORT": port})


def test_the_files_of_a_certificate_are_paths_from_where_the_command_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = settings_from({"DTX_TLS_CERT": "a.crt", "DTX_TLS_KEY": "/b.key"})
    assert (found.tls_certificate, found.tls_key) == (tmp_path / "a.crt", Path("/b.key"))
