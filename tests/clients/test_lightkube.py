"""lightkube, unmodified."""

import threading

import pytest

lightkube = pytest.importorskip("lightkube", reason="pip install lightkube, to try that client")
from lightkube import ApiError, Client, KubeConfig  # noqa: E402
from lightkube.generic_resource import create_namespaced_resource  # noqa: E402
from lightkube.models.meta_v1 import ObjectMeta  # noqa: E402
from lightkube.resources.core_v1 import ConfigMap  # noqa: E402
from lightkube.types import PatchType  # noqa: E402

pytestmark = pytest.mark.slow

Group = create_namespaced_resource("datatunerx.io", "v1beta1", "Hyperparameter", "hyperparameters")


@pytest.fixture(scope="module")
def kube(server):
    with Client(config=KubeConfig.from_file(server.kubeconfig), field_manager="light") as made:
        yield made


def test_an_object_is_created_patched_given_a_status_and_deleted(kube, make_group):
    made = kube.create(Group.from_dict(make_group("a")))
    assert made.metadata.generation == 1
    patched = kube.patch(Group, "a", {"spec": {"batchSize": 3}}, patch_type=PatchType.MERGE)
    assert (patched["spec"]["batchSize"], patched.metadata.generation) == (3, 2)
    status = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    told = kube.patch(Group.Status, "a", status, patch_type=PatchType.MERGE)
    assert told["status"]["conditions"][0]["type"] == "Ready" and told.metadata.generation == 2
    operations = [{"op": "replace", "path": "/spec/batchSize", "value": 7}]
    assert kube.patch(Group, "a", operations, patch_type=PatchType.JSON)["spec"]["batchSize"] == 7
    kube.delete(Group, "a")
    with pytest.raises(ApiError) as gone:
        kube.get(Group, "a")
    assert gone.value.status.reason == "NotFound" and gone.value.status.details.name == "a"


def test_server_side_apply_creates_repeats_conflicts_and_forces(kube, make_group):
    wanted = Group.from_dict(make_group("s", batchSize=2))
    first = kube.apply(wanted, field_manager="one")
    assert kube.apply(wanted, field_manager="one").metadata.resourceVersion == first.metadata.resourceVersion
    other = Group.from_dict(make_group("s", batchSize=5))
    with pytest.raises(ApiError) as conflict:
        kube.apply(other, field_manager="two")
    assert conflict.value.status.code == 409
    assert conflict.value.status.details.causes[0].field == ".spec.batchSize"
    assert kube.apply(other, field_manager="two", force=True)["spec"]["batchSize"] == 5


def test_a_long_list_comes_in_chunks_of_one_version(kube):
    names = [f"chunk-{number:03}" for number in range(25)]
    for name in names:
        kube.create(ConfigMap(metadata=ObjectMeta(name=name, labels={"of": "chunks"})))
    listed = kube.list(ConfigMap, chunk_size=4, labels={"of": "chunks"})
    assert [item.metadata.name for item in listed] == names
    assert listed.resourceVersion
    kube.deletecollection(ConfigMap)
    assert not list(kube.list(ConfigMap))


def test_a_watch_follows_a_selector_in_and_out(kube, make_group):
    listed = kube.list(Group)
    list(listed)
    version = listed.resourceVersion

    def act():
        kube.create(Group.from_dict(make_group("w")))
        kube.patch(Group, "w", {"metadata": {"labels": {"team": "a"}}}, patch_type=PatchType.MERGE)
        kube.patch(Group, "w", {"metadata": {"labels": {"team": None}}}, patch_type=PatchType.MERGE)

    actor = threading.Thread(target=act)
    actor.start()
    seen = []
    for change, obj in kube.watch(Group, labels={"team": "a"}, resource_version=version, server_timeout=20):
        seen.append((change, obj.metadata.name))
        if len(seen) == 2:
            break
    actor.join()
    assert seen == [("ADDED", "w"), ("DELETED", "w")]
