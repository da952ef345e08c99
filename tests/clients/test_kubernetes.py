"""The official Python client, unmodified."""

import json
import threading

import pytest

kubernetes = pytest.importorskip("kubernetes", reason="pip install kubernetes, to try the official client")
from kubernetes import client, config, dynamic, watch  # noqa: E402
from kubernetes.client.rest import ApiException  # noqa: E402
from kubernetes.leaderelection import electionconfig, leaderelection  # noqa: E402
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

PLACE = {"group": "datatunerx.io", "version": "v1beta1", "plural": "hyperparameters"}
HERE = {**PLACE, "namespace": "default"}


@pytest.fixture(scope="module")
def api(server):
    made = config.new_client_from_config(server.kubeconfig)
    yield made
    made.close()


@pytest.fixture
def custom(api):
    return client.CustomObjectsApi(api)


def test_custom_objects_are_created_read_changed_listed_and_deleted(custom, make_group):
    made = custom.create_namespaced_custom_object(**HERE, body=make_group("a"))
    assert made["metadata"]["generation"] == 1 and made["spec"]["learningRate"] == 0.001
    found = custom.get_namespaced_custom_object(**HERE, name="a")
    found["spec"]["batchSize"] = 3
    replaced = custom.replace_namespaced_custom_object(**HERE, name="a", body=found)
    assert (replaced["spec"]["batchSize"], replaced["metadata"]["generation"]) == (3, 2)
    with pytest.raises(ApiException) as stale:
        custom.replace_namespaced_custom_object(**HERE, name="a", body=found)
    assert stale.value.status == 409 and json.loads(stale.value.body)["reason"] == "Conflict"
    patched = custom.patch_namespaced_custom_object(**HERE, name="a", body={"spec": {"batchSize": 4}})
    assert patched["spec"]["batchSize"] == 4
    status = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    custom.patch_namespaced_custom_object_status(**HERE, name="a", body=status)
    assert custom.get_namespaced_custom_object_status(**HERE, name="a")["status"]["conditions"]
    listed = custom.list_cluster_custom_object(**PLACE)
    assert [item["metadata"]["name"] for item in listed["items"]] == ["a"]
    custom.delete_namespaced_custom_object(**HERE, name="a")
    with pytest.raises(ApiException) as gone:
        custom.get_namespaced_custom_object(**HERE, name="a")
    assert gone.value.status == 404


def test_what_breaks_the_schema_is_refused_by_field(custom, make_group):
    with pytest.raises(ApiException) as refused:
        custom.create_namespaced_custom_object(**HERE, body=make_group("bad", batchSize="many"))
    assert refused.value.status == 422
    assert json.loads(refused.value.body)["details"]["causes"][0]["field"] == "spec.batchSize"


def test_the_dynamic_client_discovers_our_kinds_and_applies_with_conflicts(api, make_group):
    groups = dynamic.DynamicClient(api).resources.get(
        api_version="datatunerx.io/v1beta1", kind="Hyperparameter"
    )
    assert groups.name == "hyperparameters" and "hp" in groups.short_names
    body = make_group("applied", batchSize=2)
    one = groups.server_side_apply(body, name="applied", namespace="default", field_manager="one")
    assert one.spec.batchSize == 2
    again = groups.server_side_apply(body, name="applied", namespace="default", field_manager="one")
    assert again.metadata.resourceVersion == one.metadata.resourceVersion
    with pytest.raises(dynamic.exceptions.ConflictError, match="conflict with .*one"):
        other = make_group("applied", batchSize=5)
        groups.server_side_apply(other, name="applied", namespace="default", field_manager="two")
    taken = groups.server_side_apply(
        other, name="applied", namespace="default", field_manager="two", force_conflicts=True
    )
    assert taken.spec.batchSize == 5
    assert {entry.manager for entry in taken.metadata.managedFields} == {"one", "two"}
    groups.delete(name="applied", namespace="default")


def test_a_watch_tells_what_happens_in_order_and_resumes(custom, make_group):
    version = custom.list_namespaced_custom_object(**HERE)["metadata"]["resourceVersion"]

    def act():
        custom.create_namespaced_custom_object(**HERE, body=make_group("w"))
        custom.patch_namespaced_custom_object(**HERE, name="w", body={"spec": {"batchSize": 9}})
        custom.delete_namespaced_custom_object(**HERE, name="w")

    actor = threading.Thread(target=act)
    actor.start()
    seen = []
    watcher = watch.Watch()
    for event in watcher.stream(
        custom.list_namespaced_custom_object, **HERE, resource_version=version, timeout_seconds=20
    ):
        seen.append((event["type"], event["object"]["metadata"]["resourceVersion"]))
        if event["type"] == "DELETED":
            watcher.stop()
    actor.join()
    assert [kind for kind, _ in seen] == ["ADDED", "MODIFIED", "DELETED"]
    later = watch.Watch().stream(
        custom.list_namespaced_custom_object, **HERE, resource_version=seen[0][1], timeout_seconds=1
    )
    assert [event["type"] for event in later] == ["MODIFIED", "DELETED"]


def test_a_config_map_needs_no_kind_and_a_secret_takes_plain_text(api):
    core = client.CoreV1Api(api)
    made = core.create_namespaced_config_map(
        "default", client.V1ConfigMap(metadata=client.V1ObjectMeta(name="c"), data={"k": "v"})
    )
    assert (made.kind, made.data) == ("ConfigMap", {"k": "v"})
    core.patch_namespaced_config_map("c", "default", {"data": {"l": "w"}})
    assert core.read_namespaced_config_map("c", "default").data == {"k": "v", "l": "w"}
    core.create_namespaced_secret(
        "default", client.V1Secret(metadata=client.V1ObjectMeta(name="s"), string_data={"k": "v"})
    )
    assert core.read_namespaced_secret("s", "default").data == {"k": "dg=="}
    core.delete_collection_namespaced_config_map("default", label_selector="none=such")
    assert [c.metadata.name for c in core.list_namespaced_config_map("default").items] == ["c"]


def test_events_are_written_and_found_by_what_they_are_about(api):
    core = client.CoreV1Api(api)
    about = client.V1ObjectReference(kind="LLM", name="m", namespace="default", uid="u")
    core.create_namespaced_event(
        "default",
        client.CoreV1Event(
            metadata=client.V1ObjectMeta(generate_name="m."), involved_object=about, reason="Tried",
            message="by a client", type="Normal", count=1,
        ),
    )  # fmt: skip
    found = core.list_namespaced_event("default", field_selector="involvedObject.name=m,reason=Tried").items
    assert [event.message for event in found] == ["by a client"]
    assert not core.list_namespaced_event("default", field_selector="involvedObject.name=n").items


def test_its_leader_election_works_on_our_leases(server):
    config.load_kube_config(server.kubeconfig)
    lock = LeaseLock("elected", "default", "candidate-1")
    settings = electionconfig.Config(
        lock, lease_duration=3, renew_deadline=2, retry_period=1, onstarted_leading=lambda: None,
        onstopped_leading=lambda: None,
    )  # fmt: skip
    election = leaderelection.LeaderElection(settings)
    assert election.acquire()
    leases = client.CoordinationV1Api()
    found = leases.read_namespaced_lease("elected", "default").spec
    assert (found.holder_identity, found.lease_duration_seconds) == ("candidate-1", 3)
    assert election.try_acquire_or_renew()
    assert leases.read_namespaced_lease("elected", "default").spec.renew_time > found.renew_time
    rival = electionconfig.Config(
        LeaseLock("elected", "default", "candidate-2"), lease_duration=3, renew_deadline=2, retry_period=1,
        onstarted_leading=lambda: None, onstopped_leading=lambda: None,
    )  # fmt: skip
    assert not leaderelection.LeaderElection(rival).try_acquire_or_renew()
    leases.api_client.close()
