"""kr8s, unmodified."""

import asyncio
import gc

import pytest

pytest.importorskip("kr8s", reason="pip install kr8s, to try that client")
import kr8s.asyncio
from kr8s.asyncio.objects import ConfigMap, new_class

pytestmark = [
    pytest.mark.slow,
    # It leaves connections to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

Group = new_class("Hyperparameter", "datatunerx.io/v1beta1", asyncio=True, namespaced=True)


@pytest.fixture
async def kube(server):
    yield await kr8s.asyncio.api(kubeconfig=server.kubeconfig)
    gc.collect()  # here, where its warnings are expected


async def test_it_finds_our_kinds_by_discovery_and_by_their_short_names(kube):
    kinds = {one["kind"]: one for one in await kube.api_resources()}
    assert kinds["FinetuneExperiment"]["shortNames"] == ["fe"]
    assert (await kube.version())["gitVersion"].startswith("v1.")
    assert [group async for group in kube.get("hp", namespace="kube-system")] == []


async def test_an_object_is_created_changed_labelled_and_deleted(kube, make_group):
    group = await Group(make_group("a"), api=kube)
    await group.create()
    assert await group.exists()
    await group.patch({"spec": {"batchSize": 3}})
    assert group.spec.batchSize == 3 and group.metadata.generation == 2
    await group.patch({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, subresource="status")
    await group.wait("condition=Ready", timeout=60)
    await group.label(team="a")
    await group.annotate({"note": "b"})
    found = [
        one.name async for one in kube.get("hyperparameters.datatunerx.io", label_selector={"team": "a"})
    ]
    assert found == ["a"]
    await group.remove_label("team")
    await group.delete()
    await group.wait("delete", timeout=60)
    assert not await group.exists()


async def test_a_list_of_more_than_its_page_is_whole(kube):
    names = [f"page-{number:03}" for number in range(120)]  # its pages hold a hundred
    await asyncio.gather(*[create(kube, name) for name in names])
    found = [one.name async for one in kube.get("configmaps", label_selector={"of": "pages"})]
    assert found == names


async def create(kube, name):
    await (await ConfigMap({"metadata": {"name": name, "labels": {"of": "pages"}}}, api=kube)).create()


async def test_a_watch_tells_what_happens(kube, make_group):
    seen, began = [], asyncio.Event()
    await (await Group(make_group("first"), api=kube)).create()

    async def look():
        async for change, obj in kube.watch("hyperparameters.datatunerx.io"):
            began.set()
            if obj.name == "w":
                seen.append(change)
            if change == "DELETED":
                return

    looking = asyncio.create_task(look())
    await asyncio.wait_for(began.wait(), 60)
    group = await Group(make_group("w"), api=kube)
    await group.create()
    await group.patch({"spec": {"batchSize": 2}})
    await group.delete()
    await asyncio.wait_for(looking, 60)
    assert seen == ["ADDED", "MODIFIED", "DELETED"]
