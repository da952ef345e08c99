"""`dtx token` and `dtx kubeconfig --user`: letting others in, and out again."""

import json
import stat
from datetime import UTC, datetime, timedelta

import pytest

from datatunerx.cli.errors import BadInput
from datatunerx.cli.token import Grant, grant

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def test_without_options_a_token_lets_see_one_namespace_for_a_month():
    found = grant("ann", "viewer", (), "30d", everywhere=False, now=NOW)

    assert found == Grant("ann", "viewer", ("default",), NOW + timedelta(days=30))
    assert str(found) == "ann, viewer in default, until 2026-02-01 03:04 UTC"


@pytest.mark.parametrize(
    ("text", "left"), [("90m", timedelta(minutes=90)), ("12h", timedelta(hours=12)), ("never", None)]
)
def test_its_time_is_minutes_hours_days_or_never_over(text, left):
    found = grant("ann", "editor", ("a", "b"), text, everywhere=False, now=NOW)

    assert found.expires == (NOW + left if left else None)


@pytest.mark.parametrize(
    ("role", "namespaces", "expires", "everywhere", "told"),
    [
        ("boss", (), "1d", False, "--role boss: must be one of viewer, editor, admin"),
        ("viewer", (), "0d", False, "--expires 0d: write 90m, 12h, 30d or never"),
        ("viewer", (), "soon", False, "--expires soon"),
        ("viewer", ("a",), "1d", True, "not both"),
    ],
)
def test_what_cannot_be_granted_is_said(role, namespaces, expires, everywhere, told):
    with pytest.raises(BadInput, match=told):
        grant("ann", role, namespaces, expires, everywhere=everywhere, now=NOW)


@pytest.mark.slow
def test_a_user_is_let_in_seen_and_put_out(dtx, tmp_path):
    process = dtx.start("token", "create", "--user", "ann@example", "--role", "editor", "--expires", "1h")
    token, told = process.communicate(timeout=60)
    assert token.startswith("dtx_") and token.count("\n") == 1
    name = told.split()[1].rstrip(":")
    assert name.startswith("ann-example-") and "editor in default" in told and token.strip() not in told
    listed = dtx("token", "list")
    assert name in listed and "ann@example" in listed and token.strip() not in listed

    config = tmp_path / "ann.kubeconfig"
    document = json.loads(dtx("kubeconfig"))
    document["users"][0]["user"]["token"] = token.strip()
    config.write_text(json.dumps(document))
    dtx("get", "llm", "--kubeconfig", str(config))
    said = dtx("token", "list", "--kubeconfig", str(config), code=1)
    assert 'User "ann@example" cannot list resource "tokens"' in said
    assert f"token {name} revoked" in dtx("token", "revoke", name)
    assert "Unauthorized" in dtx("get", "llm", "--kubeconfig", str(config), code=1)
    assert "not found" in dtx("token", "revoke", name, code=1)


@pytest.mark.slow
def test_a_kubeconfig_for_somebody_else_is_theirs_alone(dtx, tmp_path):
    config = tmp_path / "bob.kubeconfig"
    said = dtx("kubeconfig", "--user", "bob", "-A", "-o", str(config))
    document = json.loads(config.read_text())

    assert "viewer in all namespaces" in said and document["users"][0]["user"]["token"] not in said
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    dtx("get", "llm", "-A", "--kubeconfig", str(config))
    dtx("token", "create", "--user", "bob")
    assert dtx("token", "revoke", "--user", "bob").count("revoked") == 2
    dtx("get", "llm", "--kubeconfig", str(config), code=1)
    assert "user bob has no token" in dtx("token", "revoke", "--user", "bob", code=2)
