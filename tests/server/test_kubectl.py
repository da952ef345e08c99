"""An unmodified kubectl against the real server and our own kinds."""

import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.kubectl, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
CHECKS = Path(os.environ.get("DTX_CHECKS") or ROOT.parent / "shared" / "checks")
SCRIPT = CHECKS / "kubectl_conformance.sh"
# In the script this check deletes nothing, so the owner can never go; test_deletion.py has the true one.
BROKEN_CHECKS = {"foreground: then both go"}
NAMESPACE = "conformance"


@pytest.fixture
def kubectl(server):
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not on the PATH")

    def kubectl(*arguments, stdin=None):
        return subprocess.run(
            ["kubectl", *arguments], input=stdin, capture_output=True, text=True, env=server.env, timeout=60
        )

    return kubectl


def make_run_with_log(kubectl, log):
    """As soon as the namespace is there, put a run into it whose log can be read."""
    run = {
        "apiVersion": "datatunerx.io/v1beta1",
        "kind": "Run",
        "metadata": {"name": "logged", "namespace": NAMESPACE},
        "spec": {"type": "tune", "planId": "p", "planUri": "file:///plan.json"},
    }
    for _ in range(300):
        if kubectl("create", "-f", "-", stdin=json.dumps(run)).returncode == 0:
            status = {"status": {"phase": "Running", "logUri": log.as_uri()}}
            kubectl(
                "patch", "run", "logged", "-n", NAMESPACE,
                "--subresource=status", "--type=merge", "-p", json.dumps(status),
            )  # fmt: skip
            return
        time.sleep(0.2)


@pytest.mark.timeout(400)
def test_kubectl_finds_what_it_expects_of_an_api_server(server, kubectl, tmp_path):
    if not SCRIPT.exists():
        pytest.skip(f"set DTX_CHECKS to a folder that holds {SCRIPT.name}, to run it against the server")
    log = tmp_path / "run.log"
    log.write_text("first line\nsecond line\n")
    spec = {"llm": "llama", "dataset": "ds1", "hyperparameter": {"ref": "hp1"}}
    ready = {"type": "Ready", "status": "True", "reason": "ok"}
    restart = tmp_path / "restart"
    settings = {
        "SPEC": json.dumps(spec, separators=(",", ":")),
        "COL": "PHASE",
        "DEF": "workers",
        "BAD_TYPE": '{"spec":{"workers":"x"}}',
        "BAD_CEL": '{"spec":{"workers":65}}',
        "STATUS": json.dumps({"status": {"phase": "Running", "conditions": [ready]}}, separators=(",", ":")),
        "STATUS_PATH": "{.status.phase}",
        "STATUS_VAL": "Running",
        "SCALE": "",  # our kinds have no scale; test_objects.py scales one that has
        "POD": "logged",
        "NS": NAMESPACE,
        "RESTART_CMD": f"touch {restart}; while [ -e {restart} ]; do sleep 0.1; done",
    }
    done = threading.Event()

    def restarter():
        while not done.wait(0.05):
            if restart.exists():
                server.stop()
                server.start()
                restart.unlink()

    helpers = [
        threading.Thread(target=restarter),
        threading.Thread(target=make_run_with_log, args=(kubectl, log)),
    ]
    for helper in helpers:
        helper.start()
    try:
        ran = subprocess.run(
            ["bash", str(SCRIPT)], env={**server.env, **settings}, capture_output=True, text=True, timeout=380
        )
    finally:
        done.set()
        for helper in helpers:
            helper.join()
    lines = ran.stdout.splitlines()
    failed = {line.removeprefix("FAIL ") for line in lines if line.startswith("FAIL ")}
    skipped = [line for line in lines if line.startswith("SKIP ")]

    assert failed <= BROKEN_CHECKS, ran.stdout
    assert sum(line.startswith("PASS ") for line in lines) >= 122, ran.stdout
    assert all("scale" in line for line in skipped), skipped


def test_a_pod_cannot_be_deleted_and_it_is_said_what_to_do(kubectl, tmp_path):
    run = {
        "apiVersion": "datatunerx.io/v1beta1",
        "kind": "Run",
        "metadata": {"name": "r"},
        "spec": {"type": "tune", "planId": "p", "planUri": "file:///plan.json"},
    }
    assert kubectl("create", "-f", "-", stdin=json.dumps(run)).returncode == 0
    refused = kubectl("delete", "pod", "r")

    assert refused.returncode != 0 and "stop its Finetune" in refused.stderr


def test_owners_go_first_and_children_after_in_the_foreground(kubectl):
    base = {"apiVersion": "v1", "kind": "ConfigMap"}
    made = kubectl(
        "create", "-o", "json", "-f", "-", stdin=json.dumps({**base, "metadata": {"name": "owner"}})
    )
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "owner",
        "uid": json.loads(made.stdout)["metadata"]["uid"],
        "blockOwnerDeletion": True,
    }
    child = {**base, "metadata": {"name": "child", "ownerReferences": [reference]}}
    assert kubectl("create", "-f", "-", stdin=json.dumps(child)).returncode == 0
    assert kubectl("delete", "cm", "owner", "--cascade=foreground", "--timeout=10s").returncode == 0
    assert "NotFound" in kubectl("get", "cm", "child").stderr
