"""An operator written with kopf, in a process of its own, on our server."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("kopf", reason="pip install kopf, to try an operator framework")
kubernetes = pytest.importorskip("kubernetes", reason="pip install kubernetes, to look at what kopf does")
from kubernetes import client, config  # noqa: E402
from kubernetes.client.rest import ApiException  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

HERE = {
    "group": "datatunerx.io", "version": "v1beta1", "plural": "hyperparameters", "namespace": "default",
}  # fmt: skip

OPERATOR = """
import kopf

@kopf.on.startup()
def configure(settings, **_):
    settings.persistence.finalizer = "example.com/finalizer"
    settings.posting.level = 0
    settings.networking.error_backoffs = [0.2, 0.5, 1, 1, 1]

@kopf.on.create("datatunerx.io", "v1beta1", "hyperparameters")
def created(spec, patch, body, **_):
    kopf.info(body, reason="Seen", message=f"rate {spec['learningRate']}")
    ready = {"type": "Ready", "status": "True", "reason": "Seen", "message": "by kopf"}
    patch.status["conditions"] = [ready]

@kopf.on.field("datatunerx.io", "v1beta1", "hyperparameters", field="spec.batchSize")
def changed(old, new, patch, **_):
    patch.meta["labels"] = {"batch": str(new)}

@kopf.on.delete("datatunerx.io", "v1beta1", "hyperparameters")
def deleted(name, **_):
    print(f"farewell to {name}", flush=True)
"""


@pytest.fixture(scope="module")
def custom(server):
    api = config.new_client_from_config(server.kubeconfig)
    yield client.CustomObjectsApi(api)
    api.close()


@pytest.fixture(scope="module")
def log(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kopf")
    (folder / "handlers.py").write_text(OPERATOR)
    said = folder / "log"
    with said.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "kopf", "run", "--all-namespaces", "--standalone", "handlers.py"],
            cwd=folder, env={**os.environ, "KUBECONFIG": server.kubeconfig}, stdout=output, stderr=output,
        )  # fmt: skip
    yield said
    assert process.poll() is None, "it has lived to the end: " + said.read_text()[-3000:]
    process.send_signal(signal.SIGINT)
    process.wait(30)


def until(look, log, seconds=60):
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, log.read_text()[-5000:]
        time.sleep(0.1)
    return found


def get(custom, name):
    try:
        return custom.get_namespaced_custom_object(**HERE, name=name)
    except ApiException as error:
        assert error.status == 404
        return None


def handled(custom, log, name):
    """The object, once the operator has said that it is ready."""
    return until(
        lambda: (found := get(custom, name)) and found.get("status", {}).get("conditions") and found, log
    )


def test_it_holds_tells_labels_and_lets_go(custom, log, server, make_group):
    custom.create_namespaced_custom_object(**HERE, body=make_group("a"))
    found = handled(custom, log, "a")
    assert found["metadata"]["finalizers"] == ["example.com/finalizer"]
    assert found["status"]["conditions"][0]["message"] == "by kopf"
    assert found["metadata"]["generation"] == 1, "what it writes is not the user's spec"
    core = client.CoreV1Api(custom.api_client)
    fields = "involvedObject.name=a,reason=Seen"
    [event] = until(lambda: core.list_namespaced_event("default", field_selector=fields).items, log)
    assert event.message == "rate 0.001"

    custom.patch_namespaced_custom_object(**HERE, name="a", body={"spec": {"batchSize": 3}})
    until(lambda: get(custom, "a")["metadata"].get("labels") == {"batch": "3"}, log)
    custom.delete_namespaced_custom_object(**HERE, name="a")
    until(lambda: get(custom, "a") is None, log)
    assert "farewell to a" in log.read_text()


def test_it_goes_on_over_a_restart_and_after_the_data_is_gone(custom, log, server, make_group):
    custom.create_namespaced_custom_object(**HERE, body=make_group("before"))
    handled(custom, log, "before")
    server.stop(signal.SIGKILL)
    server.start()
    custom.create_namespaced_custom_object(**HERE, body=make_group("after"))
    handled(custom, log, "after")
    custom.delete_namespaced_custom_object(**HERE, name="before")
    until(lambda: get(custom, "before") is None, log)

    server.reset()  # versions begin again: what the operator has seen lies in the future
    custom.create_namespaced_custom_object(**HERE, body=make_group("anew"))
    handled(custom, log, "anew")
    assert get(custom, "after") is None
