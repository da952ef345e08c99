"""An unmodified kubectl against the real server and our own kinds."""

import json
import os
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


STATUS = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "reason": "ok"}]}
COMMON = {
    "COL": "PHASE",
    "STATUS": json.dumps({"status": STATUS}, separators=(",", ":")),
    "STATUS_PATH": "{.status.phase}",
    "STATUS_VAL": "Running",
    "POD": "logged",
    "NS": NAMESPACE,
}
FINETUNE = {
    "SPEC": '{"llm":"llama","dataset":"ds1","hyperparameter":{"ref":"hp1"}}',
    "DEF": "workers",
    "BAD_TYPE": '{"spec":{"workers":"x"}}',
    "BAD_CEL": '{"spec":{"workers":65}}',
    "SCALE": "",  # an InferenceService has one
}
SERVICE = {
    "RES": "inferenceservices",
    "KIND": "InferenceService",
    "SHORT": "isvc",
    "SPEC": '{"engine":"transformers","models":[{"kind":"LLM","name":"m"}]}',
    "OSPEC": '{"finetune":{"llm":"llama","dataset":"ds1","hyperparameter":{"ref":"hp1"}}}',
    "STR": "engine",
    "STR_V1": "transformers",
    "STR_V2": "vllm",
    "WIDECOL": "ENGINE",
    "OPT": "resources",
    "OPT_JSON": '{"memory":"7Gi"}',
    "OPT_GONE": "7Gi",
    "DEF": "replicas",
    "REQ": "models",
    "BAD_TYPE": '{"spec":{"replicas":"x"}}',
    "BAD_ENUM": '{"spec":{"engine":"foo"}}',
    "BAD_CEL": '{"spec":{"replicas":65}}',
    "BAD_CEL_MSG": "between 0 and 64",
    "LMAP": "",  # models is one, but no field that may be left out; env of a Finetune is another
    "SELF": "spec.engine",
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "may_skip"), [(FINETUNE, "scale"), (SERVICE, "list map")], ids=["finetune", "service"]
)
def test_kubectl_finds_what_it_expects_of_an_api_server(server, kubectl, tmp_path, kind, may_skip):
    if not SCRIPT.exists():
        pytest.skip(f"set DTX_CHECKS to a folder that holds {SCRIPT.name}, to run it against the server")
    log = tmp_path / "run.log"
    log.write_text("first line\nsecond line\n")
    restart = tmp_path / "restart"
    settings = COMMON | kind
    settings["KUBECTL"], kubectl.namespace = kubectl.program, NAMESPACE
    settings["RESTART_CMD"] = f"touch {restart}; while [ -e {restart} ]; do sleep 0.1; done"
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
            ["bash", str(SCRIPT)], env={**server.env, **settings}, capture_output=True, text=True, timeout=580
        )
    finally:
        done.set()
        for helper in helpers:
            helper.join()
    lines = ran.stdout.splitlines()
    print(lines[-1])
    failed = {line.removeprefix("FAIL ") for line in lines if line.startswith("FAIL ")}
    skipped = [line for line in lines if line.startswith("SKIP ")]

    assert failed <= BROKEN_CHECKS, ran.stdout
    assert sum(line.startswith("PASS ") for line in lines) >= 122, ran.stdout
    assert len(skipped) == 3 and all(may_skip in line for line in skipped), skipped


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
