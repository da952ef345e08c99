"""`dtx up` for others than this machine: its address, its names, a certificate of the user's own."""

import http.client
import os
import re
import socket
import ssl
import subprocess
import sys

import pytest

from datatunerx.client.https import Https
from datatunerx.client.kubeconfig import load
from datatunerx.server.tls import alternative_names, ensure

pytestmark = pytest.mark.slow


@pytest.fixture
def up(tmp_path):
    """Starts it: (its port, or None and what it said instead)."""
    started = []

    def up(*options):
        process = subprocess.Popen(
            [sys.executable, "-m", "datatunerx.cli", "up", "--port", "0", *options],
            env={**os.environ, "DTX_HOME": str(tmp_path / "home")},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        line = process.stdout.readline()
        found = re.search(r"https://[^ ]+:(\d+)", line)
        return (int(found[1]), line) if found else (None, process.communicate(timeout=60)[1])

    yield up
    for process in started:
        process.terminate()
        process.communicate(timeout=60)


def call(port, home, host):
    context = ssl.create_default_context(cafile=str(home / "tls" / "ca.crt"))
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=60)
    token = (home / "token").read_text().strip()
    connection.request("GET", "/version", headers={"authorization": f"Bearer {token}", "host": host})
    status = connection.getresponse().status
    connection.close()
    return status


async def test_a_server_on_every_address_answers_to_the_names_in_its_certificate_and_no_other(up, tmp_path):
    port, said = up("--host", "0.0.0.0")
    home = tmp_path / "home"
    names = alternative_names(home / "tls" / "server.crt")

    assert port, said
    assert socket.gethostname() in names
    for name in [name for name in names if ":" not in name]:
        assert call(port, home, f"{name}:{port}") == 200, name
    assert call(port, home, "evil.example") == 403
    assert call(port, home, "0.0.0.0") == 403
    async with Https(load(home / "kubeconfig")) as transport:
        assert (await transport.request("GET", "/version")).status == 200


async def test_a_given_certificate_is_shown_and_the_kubeconfig_fits_it(up, tmp_path):
    own = ensure(tmp_path / "own", ["box.example"])
    chain = tmp_path / "chain.crt"
    chain.write_bytes(own.certificate.read_bytes() + own.ca.read_bytes())
    port, said = up("--tls-cert", str(chain), "--tls-key", str(own.key))
    assert port, said
    home = tmp_path / "home"

    assert not (home / "tls").exists(), "nothing is made that is not used"
    access = load(home / "kubeconfig")
    assert own.ca.read_bytes() in access.ca
    async with Https(access) as transport:
        assert (await transport.request("GET", "/version")).status == 200


def test_a_certificate_that_cannot_be_used_is_named(up, tmp_path):
    own = ensure(tmp_path / "own")
    other = ensure(tmp_path / "other")

    for options, told in (
        (("--tls-cert", str(own.certificate)), "give both --tls-cert and --tls-key"),
        (("--tls-cert", str(own.certificate), "--tls-key", str(other.key)), f"{other.key}: is not the key"),
    ):
        port, said = up(*options)
        assert port is None and told in said and "Traceback" not in said
