"""kubectl with tokens of each role: what it is told it may do is what it may do."""

import hashlib
import json
import secrets
import shutil
import subprocess

import pytest

pytestmark = [pytest.mark.kubectl, pytest.mark.slow]

ASKED = {
    ("create", "finetunes"): "no yes yes yes",
    ("update", "finetunes", "--subresource=status"): "no no yes yes",
    ("list", "secrets"): "yes yes yes yes",
    ("get", "secrets"): "no yes yes yes",
    ("create", "finetunes", "-n", "other"): "no no no yes",
    ("get", "finetunes", "-A"): "no no no yes",
    ("create", "namespaces"): "no no no yes",
    ("*", "*"): "no no no yes",
    ("get", "/metrics"): "no no no yes",
}
USERS = {"v": "viewer", "e": "editor", "a": "admin"}


@pytest.fixture
def kubectl(server):
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not on the PATH")

    def kubectl(*words, user="", stdin=None, code=0):
        env = server.env | ({"KUBECONFIG": str(server.home / f"{user}.config")} if user else {})
        done = subprocess.run(
            ["kubectl", *words], input=stdin, capture_output=True, text=True, env=env, timeout=60
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    document = json.loads((server.home / "kubeconfig").read_text())
    for name, role in USERS.items():
        token = secrets.token_urlsafe(32)
        spec = {"user": name, "role": role, "namespaces": ["default"]}
        spec["sha256"] = hashlib.sha256(token.encode()).hexdigest()
        head = {"apiVersion": "auth.datatunerx.io/v1", "kind": "Token", "metadata": {"name": name}}
        kubectl("create", "-f", "-", stdin=json.dumps(head | {"spec": spec}))
        document["users"][0]["user"]["token"] = token
        (server.home / f"{name}.config").write_text(json.dumps(document))
    return kubectl


@pytest.mark.timeout(400)
def test_auth_can_i_answers_each_role_by_its_rules(kubectl):
    for question, answers in ASKED.items():
        for user, wanted in zip(("v", "e", "a", ""), answers.split(), strict=True):
            said = kubectl("auth", "can-i", *question, user=user, code=None)
            assert said.split()[0] == wanted, (question, user, said)


def test_whoami_and_the_list_of_rules_are_the_callers_own(kubectl):
    said = kubectl("auth", "whoami", "-o", "json", user="v")
    assert json.loads(said)["status"]["userInfo"]["username"] == "v"
    rules = {user: kubectl("auth", "can-i", "--list", user=user) for user in ("v", "e", "a", "")}
    line = {user: " ".join(text.split()) for user, text in rules.items()}

    assert "secrets [] [] [list watch]" in line["v"] and "create" not in line["v"].split("finetunes.")[1][:60]
    assert "finetunes.datatunerx.io [] [] [get list watch create delete" in line["e"]
    assert "runs.datatunerx.io [] [] [get list watch]" in line["e"]
    assert "runs.datatunerx.io [] [] [get list watch create delete" in line["a"]
    assert "*.* [] [] [*]" in line[""] and "*.*" not in line["a"]


def test_a_refusal_reads_as_on_a_cluster(kubectl):
    said = kubectl("create", "configmap", "c", user="v", code=1)
    assert 'User "v" cannot create resource "configmaps" in API group "" in the namespace "default"' in said
    said = kubectl("get", "tokens.auth.datatunerx.io", user="a", code=1)
    assert 'cannot list resource "tokens" in API group "auth.datatunerx.io" at the cluster scope' in said
    assert "no impersonation" in kubectl("get", "cm", "--as", "e", code=1)


def test_a_secret_by_name_has_values_and_a_list_of_them_none(kubectl):
    kubectl("create", "secret", "generic", "s", "--from-literal=k=correct-horse", user="e")
    kubectl("get", "secret", "s", user="v", code=1)
    for user in ("v", "e", "a", ""):
        listed = kubectl("get", "secrets", "-o", "yaml", user=user)
        assert "datatunerx.io/redacted" in listed and "Y29ycmVjdC1ob3JzZQ" not in listed
        assert kubectl("get", "secrets", user=user).split()[4:7] == ["s", "Opaque", "1"]
    assert "Y29ycmVjdC1ob3JzZQ==" in kubectl("get", "secret", "s", "-o", "yaml", user="e")
    manifest = kubectl("get", "secrets", "-o", "json", user="e")
    assert "get the Secret by name" in kubectl("apply", "-f", "-", user="e", stdin=manifest, code=1)


def test_a_secret_can_be_applied_changed_and_edited_as_on_a_cluster(kubectl):
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "b25l"}}
    kubectl("apply", "-f", "-", stdin=json.dumps(manifest), user="e")
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=json.dumps(manifest), user="e")
    manifest["data"] = {"k": "dHdv"}
    kubectl("apply", "-f", "-", stdin=json.dumps(manifest), user="e")
    kubectl("label", "secret", "s", "a=b", user="e")
    found = json.loads(kubectl("get", "secret", "s", "-o", "json", user="e"))
    assert found["data"] == {"k": "dHdv"} and found["metadata"]["labels"] == {"a": "b"}
    assert "3 bytes" in kubectl("describe", "secret", "s", user="e")
    assert "last-applied" not in kubectl("get", "secrets", "-o", "yaml", user="e")
