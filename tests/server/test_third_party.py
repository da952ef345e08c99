"""CRDs of others load and serve like ours: a small one, and KubeRay's, which are over a megabyte each."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.kubectl, pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
SMALL = Path(__file__).with_name("third_party_crd.yaml")
CHECKS = Path(os.environ.get("DTX_CHECKS") or ROOT.parent / "shared" / "checks")
KUBERAY = CHECKS.parent / "kuberay"

PLACE = "/apis/travel.example.org/v1"


@pytest.fixture
def kubectl(server):
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not on the PATH")

    def kubectl(*arguments, stdin=None, fails=False):
        words = ["kubectl", *arguments]
        text = stdin if isinstance(stdin, str | None) else json.dumps(stdin)
        done = subprocess.run(words, input=text, capture_output=True, text=True, env=server.env, timeout=120)
        assert (done.returncode != 0) is fails, (arguments, done.stdout[-2000:], done.stderr[-2000:])
        return done.stderr if fails else done.stdout

    return kubectl


def caravan(**spec):
    return {
        "apiVersion": "travel.example.org/v1", "kind": "Caravan", "metadata": {"name": "c"},
        "spec": {"route": "salt", "pace": "50%", "load": {"salt": "10Ki", "tea": 3},
                 "notes": {"a": {"b": 1}},
                 "tent": {"apiVersion": "v1", "kind": "Tent", "metadata": {"name": "t"}, "poles": 4},
                 "crew": [{"name": "ali", "role": "guide"}, {"name": "omar"}]} | spec,
    }  # fmt: skip


def test_a_small_one_keeps_its_promises(kubectl, server):
    kubectl("create", "-f", str(SMALL))
    kubectl("wait", "--for=condition=Established", "crd/caravans.travel.example.org", "--timeout=10s")
    kubectl("create", "-f", "-", stdin=caravan())
    found = json.loads(kubectl("get", "cv", "c", "-o", "json"))["spec"]
    assert found == caravan()["spec"] | {
        "camels": 3, "crew": [{"name": "ali", "role": "guide"}, {"name": "omar", "role": "driver"}],
    }  # fmt: skip
    header, row = kubectl("get", "caravans", "-o", "wide").splitlines()
    assert header.split() == ["NAME", "STAGE", "CAMELS", "GUIDE", "AGE"]
    assert row.split()[1:3] == ["3", "ali"]

    refused = kubectl(
        "create", "--dry-run=server", "-f", "-", stdin=caravan(route="sea", camels=0), fails=True
    )
    assert 'spec.route: Unsupported value: "sea"' in refused and "spec.camels: Invalid value" in refused
    assert 'unknown field "spec.speed"' in kubectl("create", "-f", "-", stdin=caravan(speed=1), fails=True)
    merge = ("--type=merge", "-p")
    assert "more camels than" in kubectl("patch", "cv", "c", *merge, '{"spec":{"maxCamels":2}}', fails=True)
    assert "route is immutable" in kubectl(
        "patch", "cv", "c", *merge, '{"spec":{"route":"silk"}}', fails=True
    )
    assert "scaled" in kubectl("scale", "cv", "c", "--replicas=5")
    assert "A caravan that crosses a desert." in kubectl("explain", "caravan")
    assert "caravan.travel.example.org/c" in kubectl("get", "all", "-o", "name")

    server.stop(signal.SIGKILL)
    server.start()
    assert json.loads(kubectl("get", "cv", "c", "-o", "json"))["spec"]["camels"] == 5
    kubectl("delete", "crd", "caravans.travel.example.org", "--timeout=20s")
    assert "could not find the requested resource" in kubectl("get", "--raw", f"{PLACE}/caravans", fails=True)


def cluster():
    pod = {"spec": {"containers": [{"name": "ray", "image": "rayproject/ray:2.52.0"}]}}
    workers = {"groupName": "gpu", "replicas": 2, "minReplicas": 0, "maxReplicas": 4, "rayStartParams": {}}
    return {
        "rayVersion": "2.52.0",
        "headGroupSpec": {"rayStartParams": {"num-gpus": "0"}, "template": pod},
        "workerGroupSpecs": [workers | {"template": pod}],
    }


def ray(kind, **spec):
    return {"apiVersion": "ray.io/v1", "kind": kind, "metadata": {"name": "r"}, "spec": spec}


def test_those_of_kuberay_load_and_serve(kubectl, server, record_property):
    if not KUBERAY.is_dir():
        pytest.skip("set DTX_CHECKS to a folder that has kuberay/ with KubeRay's CRDs beside it")
    files = sorted(KUBERAY.glob("ray.io_*.yaml"))
    assert len(files) == 3
    took = {}

    def timed(what, *words, **more):
        began = time.monotonic()
        said = kubectl(*words, **more)
        took[what] = time.monotonic() - began
        return said

    for path in files[:2]:
        timed(f"create {path.stem}", "create", "-f", str(path))
    timed(f"apply {files[2].stem}", "apply", "--server-side", "-f", str(files[2]))
    version = ("get", "crd", yaml.safe_load(files[2].read_text())["metadata"]["name"], "-o")
    before = kubectl(*version, "jsonpath={.metadata.resourceVersion}")
    timed("apply again", "apply", "--server-side", "-f", str(files[2]))
    assert kubectl(*version, "jsonpath={.metadata.resourceVersion}") == before, (
        "the same again changes nothing"
    )
    kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=10s")

    job = ray("RayJob", entrypoint="python x.py", rayClusterSpec=cluster())
    timed("create RayJob", "create", "-f", "-", stdin=job)
    kubectl("apply", "--server-side", "-f", "-", stdin=ray("RayCluster", **cluster()))
    kubectl("apply", "-f", "-", stdin=ray("RayService", serveConfigV2="a", rayClusterConfig=cluster()))
    job["spec"]["backoffLimit"] = "three"
    assert 'spec.backoffLimit: Invalid value: "string"' in kubectl(
        "create", "--dry-run=server", "--validate=ignore", "-f", "-", stdin=job, fails=True
    )
    job["spec"] |= {"backoffLimit": 3, "entrypont": "typo", "managedBy": "me"}
    said = kubectl("create", "--dry-run=server", "-f", "-", stdin=job, fails=True)
    assert 'unknown field "spec.entrypont"' in said
    said = kubectl("create", "--dry-run=server", "--validate=ignore", "-f", "-", stdin=job, fails=True)
    assert "the managedBy field value must be either" in said
    assert "entrypoint" in timed("explain", "explain", "rayjob.spec")
    assert "env <[]Object>" in kubectl(
        "explain", "rayjob.spec.rayClusterSpec.headGroupSpec.template.spec.containers.env"
    )

    waiting = subprocess.Popen(
        ["kubectl", "wait", "rayjob/r", "--for=jsonpath={.status.jobStatus}=SUCCEEDED", "--timeout=60s"],
        env=server.env, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    status = {"status": {"jobStatus": "SUCCEEDED", "jobDeploymentStatus": "Complete"}}
    kubectl("patch", "rayjob", "r", "--subresource=status", "--type=merge", "-p", json.dumps(status))
    assert "condition met" in waiting.communicate(timeout=90)[0]
    header, row = kubectl("get", "rayjobs").splitlines()
    assert header.split()[:5] == ["NAME", "JOB", "STATUS", "DEPLOYMENT", "STATUS"]
    assert row.split()[:3] == ["r", "SUCCEEDED", "Complete"]

    server.stop(signal.SIGKILL)
    began = time.monotonic()
    server.start()
    took["start with them"] = time.monotonic() - began
    names = timed("get all", "get", "rayjobs,rayservices,rayclusters", "-o", "name").split()
    assert names == ["rayjob.ray.io/r", "rayservice.ray.io/r", "raycluster.ray.io/r"]
    for what, seconds in took.items():
        record_property(what, round(seconds, 2))
    print({what: round(seconds, 2) for what, seconds in took.items()})
