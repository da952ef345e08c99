"""Who looks again, and what must not be decided on a view that is late."""

import pytest

from datatunerx.client.informer import Key
from datatunerx.controllers.context import Context
from datatunerx.controllers.finetune import FinetuneReconciler
from datatunerx.controllers.turns import UNKNOWN, earliest, in_words, place_of
from datatunerx.controllers.wakes import PLACEMENT, Wake, wakes
from datatunerx.resources import Finetune, Run
from datatunerx.resources.enums import FinetunePhase


class Shown:
    """A world of the given objects, whatever the API has."""

    def __init__(self, *objects):
        self.objects = objects

    def get(self, model, namespace, name):
        key = (namespace, name)
        return next(
            (o for o in self.all(model, None) if (o.metadata.namespace, o.metadata.name) == key), None
        )

    def all(self, model, namespace):
        return [o for o in self.objects if type(o) is model and namespace in (None, o.metadata.namespace)]

    def owned(self, model, uid):
        return [o for o in self.all(model, None) if uid in {r.uid for r in o.metadata.owner_references}]


@pytest.fixture
def make_finetune():
    def make(name, namespace="default", status=None, **spec):
        given = {"llm": "base", "dataset": "data", "hyperparameter": {"ref": "g"}} | spec
        metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}"}
        return Finetune.parse({"metadata": metadata, "spec": given, "status": status or {}})

    return make


@pytest.fixture
def make_run():
    def make(phase="Running", **fields):
        spec = {"type": "tune", "planId": "p", "planUri": "file:///runs/p/plan.json", **fields}
        return Run.parse({"metadata": {"name": "r", "uid": "u"}, "spec": spec, "status": {"phase": phase}})

    return make


def placed(world, old, new):
    return {wake.key.namespace for wake in wakes(world, old, new) if wake.controller == PLACEMENT}


def test_the_end_of_a_run_wakes_every_namespace_that_waits_for_its_device(make_finetune, make_run):
    world = Shown(
        make_finetune("a", "one"), make_finetune("b", "two"), make_finetune("c", "three", {"phase": "Failed"})
    )
    assert placed(world, make_run(), make_run("Succeeded")) == {"default", "one", "two"}
    assert placed(world, make_run(), None) == {"default", "one", "two"}
    assert placed(world, make_run(), make_run()) == {"default"}
    assert Wake(PLACEMENT, Key("one", "")) in set(wakes(world, make_run(), None))


def test_each_that_waits_says_its_own_place_by_priority(make_finetune, make_run):
    queued = {"phase": "Pending", "reason": "Queued"}
    found = [
        make_finetune("a", "one", queued),
        make_finetune("b", "two", queued, priority=5),
        make_finetune("lacks-data", "one", {"phase": "Pending", "reason": "DatasetNotFound"}),
    ]

    def place(finetune, *runs):
        return in_words(place_of(Shown(*found, *runs), finetune), 0.0)[0]

    behind = "waits for a free device behind 1 run(s); place"
    assert place(found[1], make_run()) == f"{behind} 1 of 2 in the queue; {UNKNOWN}"
    assert place(found[0], make_run()) == f"{behind} 2 of 2 in the queue; {UNKNOWN}"
    assert place(found[0], make_run("Succeeded")) == "about to start"


def test_it_starts_when_what_runs_before_it_ends_as_far_as_that_is_known(make_finetune, make_run):
    queued = {"phase": "Pending", "reason": "Queued"}
    runs = [
        make_finetune("x", status={"phase": "Running", "progress": {"etaSeconds": 200}}),
        make_finetune("y", status={"phase": "Running", "progress": {"etaSeconds": 100}}),
        make_finetune("done", status={"phase": "Succeeded", "progress": {"etaSeconds": 999}}),
    ]
    first, mate = make_finetune("a", status=queued), make_finetune("b", status=queued)
    other = make_finetune("c", status=queued, llm="another")
    run = make_run(serves=["Finetune/x", "Finetune/y", "Finetune/done"])
    world = Shown(*runs, first, mate, other, run)

    # two trainings share the device; those that wait for one base start together
    for waits in (first, mate):
        text, start = in_words(place_of(world, waits), now=60.0)
        assert start == "1970-01-01T00:06:00Z" and "starts at about 00:06 UTC" in text
    # nobody knows how long a run takes that has not begun
    assert in_words(place_of(world, other), now=0.0)[1] is None
    runs[0].status.progress.eta_seconds = None
    assert place_of(world, first).seconds is None


def test_the_second_of_two_devices_that_gets_free_serves_the_second_run():
    assert [earliest([50.0, 20.0], n) for n in range(3)] == [20.0, 50.0, None]
    assert earliest([50.0, None], 0) is None


async def test_a_deleted_training_leaves_the_run_that_only_the_api_knows_of(platform, make_objects):
    await platform.apply(*make_objects(1))

    async def bound():
        return [run for run in await platform.api.list(Run) if run.spec.type == "tune"]

    platform.backend.behaviour.wait_at = 1
    (run,) = await platform.until(bound)
    await platform.kill_controllers()
    await platform.api.delete(Finetune, "e-g0")
    finetune = await platform.api.get(Finetune, "e-g0")
    finetune.status.run = None
    finetune.status.phase = FinetunePhase.PENDING
    context = Context(platform.api, Shown(finetune), platform.backend, platform.settings)
    assert await FinetuneReconciler(context).reconcile(Key("default", "e-g0"))
    assert (await platform.api.get(Run, run.metadata.name)).spec.stop
    assert (await platform.api.get(Finetune, "e-g0")).metadata.finalizers
