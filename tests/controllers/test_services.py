"""Services: one worker per base, models that come and go, idleness, and who gets the device."""

import time

import pytest

from datatunerx.controllers.yielding import PATIENCE_SECONDS, Holder, Waiter, yielding
from datatunerx.resources import LLM, FinetuneExperiment, InferenceService, LLMCheckpoint, Run
from datatunerx.resources.wire import WANTED
from datatunerx.runs import RunPlan, RunResult, ServedModels
from datatunerx.runs.files import MODELS
from datatunerx.storage import local_path


def llm(name, source=None):
    return LLM.parse({"metadata": {"name": name}, "spec": {"source": source or f"file:///models/{name}"}})


def service(*models, name="s", **spec):
    refs = [{"kind": kind, "name": model} for kind, model in models]
    return InferenceService.parse({"metadata": {"name": name}, "spec": {"models": refs} | spec})


async def serve_runs(platform):
    return [run for run in await platform.api.list(Run, "default") if run.spec.type == "serve"]


async def in_phase(platform, phase, name="s", reason=None):
    async def look():
        found = await platform.api.get(InferenceService, name)
        right = found.status.phase == phase and (reason is None or found.status.reason == reason)
        return found if right else None

    return await platform.until(look)


def served_by(worker):
    return [m.name for m in ServedModels.model_validate_json((worker.folder / MODELS).read_bytes()).models]


async def want(platform, name="s"):
    """As the proxy does when a request comes and nothing is loaded."""
    note = {"metadata": {"annotations": {WANTED: f"{time.time() + 1:.3f}"}}}
    await platform.api.patch(InferenceService, name, note)


async def test_models_of_one_base_share_a_worker_and_another_base_has_its_own(platform, make_objects):
    await platform.apply(*make_objects(2), llm("other"))
    await platform.ended(FinetuneExperiment, "e")
    made = [checkpoint.metadata.name for checkpoint in await platform.api.list(LLMCheckpoint, "default")]
    await platform.apply(service(("LLM", "base"), ("LLM", "other"), *(("LLMCheckpoint", c) for c in made)))

    await platform.until(lambda: ready_count(platform, 4))
    found = await platform.api.get(InferenceService, "s")
    workers = platform.backend.of("serve")
    assert sorted(sorted(served_by(worker)) for worker in workers) == [sorted(["base", *made]), ["other"]]
    assert found.status.replicas == 1 and found.status.condition("Ready").status == "True"
    assert found.status.url.endswith("/namespaces/default/inferenceservices/s/proxy/v1")
    by_name = {model.name: model for model in found.status.models}
    assert by_name[made[0]].adapter_digest and by_name[made[0]].run == by_name["base"].run
    adapters = {m.name: m for m in workers[0].plan.serve.models + workers[1].plan.serve.models}
    assert adapters["base"].adapter_uri is None and adapters[made[0]].adapter_uri


async def test_models_come_and_go_without_a_new_worker(platform):
    await platform.apply(llm("a", "file:///m"), llm("b", "file:///m"), service(("LLM", "a")))
    await in_phase(platform, "Running")
    worker = platform.backend.of("serve")[0]
    both = {"spec": {"models": [{"kind": "LLM", "name": "a"}, {"kind": "LLM", "name": "b"}]}}

    await platform.api.patch(InferenceService, "s", both)
    await platform.until(lambda: async_true(lambda: served_by(worker) == ["a", "b"]))
    await platform.api.patch(InferenceService, "s", {"spec": {"models": [{"kind": "LLM", "name": "b"}]}})
    await platform.until(lambda: async_true(lambda: served_by(worker) == ["b"]))

    assert len(platform.backend.of("serve")) == 1 and not worker.phase.terminal


async def async_true(look):
    return look()


async def test_an_unknown_model_is_told_with_those_there_are_and_served_once_it_comes(platform):
    await platform.apply(llm("a"), service(("LLM", "a"), ("LLM", "late")))
    found = await in_phase(platform, "Running")
    late = found.status.models[1]
    assert (late.ready, late.reason) == (False, "LLMNotFound") and "there are: a" in late.message
    assert found.status.condition("Ready").status == "False"

    await platform.apply(llm("late"))
    await platform.until(lambda: ready_count(platform, 2))


async def ready_count(platform, count):
    return (await platform.api.get(InferenceService, "s")).status.models_ready == count


async def test_a_service_whose_base_is_not_ready_waits_with_the_reason(platform):
    platform.backend.behaviour.broken_sources.add("file:///models/broken")
    await platform.apply(llm("broken"), service(("LLM", "broken")))

    async def told():
        status = (await platform.api.get(InferenceService, "s")).status
        return "NotAModel: no config.json there" in (status.message or "") and status

    said = await platform.until(told)
    assert (said.phase, said.reason) == ("Pending", "LLMNotReady")
    assert not platform.backend.of("serve")


async def test_an_idle_service_is_unloaded_and_the_next_wish_loads_it_once(platform):
    await platform.apply(llm("a"), service(("LLM", "a")))
    await in_phase(platform, "Running")
    first = platform.backend.of("serve")[0]
    first.end(RunResult(plan_id=first.plan.id, phase="Succeeded", reason="Idle"), 0)

    found = await in_phase(platform, "Stopped", reason="Idle")
    assert "next request loads it again" in found.status.message and found.status.replicas == 0
    await want(platform)
    await in_phase(platform, "Running")

    workers = platform.backend.of("serve")
    assert len(workers) == 2 and workers[1].plan.id != first.plan.id
    await platform.until(lambda: async_len(platform, 1))  # what ended before is tidied away


async def async_len(platform, count):
    return len(await serve_runs(platform)) == count


async def test_scaling_to_nothing_unloads_and_back_loads_without_a_request(platform):
    await platform.apply(llm("a"), service(("LLM", "a")))
    await in_phase(platform, "Running")
    await platform.api.patch(InferenceService, "s", {"spec": {"replicas": 0}})
    await in_phase(platform, "Stopped", reason="Unloaded")
    await platform.until(lambda: async_true(lambda: platform.backend.of("serve")[0].phase.terminal))
    await want(platform)  # a wish does not load what was unloaded by hand

    await platform.api.patch(InferenceService, "s", {"spec": {"replicas": 1}})
    await in_phase(platform, "Running")
    assert len(platform.backend.of("serve")) == 2


async def test_a_worker_that_dies_is_replaced_until_it_has_died_too_often(platform):
    await platform.apply(llm("a"), service(("LLM", "a")))
    for death in range(1, 4):
        workers = await platform.until(lambda n=death: async_workers(platform, n))
        workers[-1].end(None, -9)

    found = await in_phase(platform, "Failed", reason="WorkerDied")
    assert "SIGKILL" in found.status.message and len(platform.backend.of("serve")) == 3


async def async_workers(platform, count):
    found = platform.backend.of("serve")
    return found if len(found) == count and found[-1].phase == "Running" else None


async def test_killed_controllers_go_on_with_the_worker_that_is_there(platform):
    await platform.apply(llm("a"), service(("LLM", "a")))
    await in_phase(platform, "Running")
    await platform.kill_controllers()
    platform.start_controllers()
    await platform.api.patch(InferenceService, "s", {"metadata": {"labels": {"x": "y"}}})
    await in_phase(platform, "Running")

    assert len(platform.backend.of("serve")) == 1 and len(await serve_runs(platform)) == 1


async def test_another_engine_replaces_the_worker(platform):
    await platform.apply(llm("a"), service(("LLM", "a")))
    await in_phase(platform, "Running")
    await platform.api.patch(InferenceService, "s", {"spec": {"engine": "vllm"}})

    workers = await platform.until(lambda: async_workers(platform, 2))
    assert [worker.plan.serve.engine for worker in workers] == ["transformers", "vllm"]
    assert workers[0].phase.terminal


async def test_a_deleted_service_takes_its_worker_along(platform):
    await platform.apply(llm("a"), service(("LLM", "a")))
    await in_phase(platform, "Running")
    await platform.api.delete(InferenceService, "s")

    await platform.until(lambda: async_len(platform, 0))
    assert platform.backend.of("serve")[0].phase.terminal


async def test_a_checkpoint_in_service_stays_and_names_the_service_until_it_is_served_no_more(
    platform, make_objects
):
    await platform.apply(*make_objects(1))
    await platform.ended(FinetuneExperiment, "e")
    name = (await platform.api.list(LLMCheckpoint, "default"))[0].metadata.name
    await platform.apply(service(("LLMCheckpoint", name), ("LLM", "base")))
    await in_phase(platform, "Running")
    await platform.api.delete(LLMCheckpoint, name)

    async def held():
        found = await platform.api.get(LLMCheckpoint, name)
        return found.status.condition("InUse")

    said = await platform.until(held)
    assert "InferenceService/s" in said.message
    await platform.api.patch(InferenceService, "s", {"spec": {"models": [{"kind": "LLM", "name": "base"}]}})

    async def gone():
        return not await platform.api.list(LLMCheckpoint, "default")

    await platform.until(gone, 10)


def holder(run="s", busy_until=0.0, **other):
    return Holder(run, other.pop("service", run), other.pop("priority", 0), busy_until, **other)


def waiter(run="t", **other):
    return Waiter(run, other.pop("service", ""), other.pop("priority", 0), other.pop("since", 95.0), **other)


@pytest.mark.parametrize(
    ("held", "waits", "goes"),
    [
        (holder(busy_until=90), waiter(), True),
        (holder(busy_until=110), waiter(), False),
        (holder(busy_until=110), waiter(priority=1), True),
        (holder(busy_until=110, priority=1), waiter(priority=1), False),
        (holder(busy_until=float("inf")), waiter(since=100 - PATIENCE_SECONDS), True),
        (holder(busy_until=90, service="me"), waiter(service="me"), False),
        (holder(busy_until=90, priority=9), waiter(), True),
    ],
    ids=["idle", "busy", "outranked", "equal", "patience", "own", "idle-but-higher"],
)
def test_who_gives_way(held, waits, goes):
    assert bool(yielding([held], [waits], now=100.0)) == goes


def test_no_more_services_give_way_than_devices_are_asked_for():
    holders = [holder("a", 50), holder("b", 40), holder("c", 60), holder("d", 70, leaving=True)]

    assert list(yielding(holders, [waiter()], 100.0)) == ["d"]
    assert list(yielding(holders, [waiter(devices=2)], 100.0)) == ["d", "b"]
    assert yielding(holders, [], 100.0) == {}


def test_a_plan_is_read_back_as_it_was_written(tmp_path):
    from datatunerx.runs import ServedModel
    from datatunerx.runs.serving import BaseSize, ServedBase, serve

    def plan(models, load=1):
        base = ServedBase("d" * 64, "file:///m", BaseSize(), tuple(ServedModel(name=name) for name in models))
        options = {"engine": "transformers", "precision": "float32", "idle_seconds": 0.0}
        return serve("uid", base, load, root_uri=f"file://{tmp_path}", **options)

    one = plan(["a"])
    assert one.serve.idle_seconds is None and one.id == plan(["a", "b"]).id != plan(["a"], 2).id
    text = one.model_dump_json(by_alias=True, exclude_none=True)
    again = RunPlan.model_validate_json(text)
    assert [m.name for m in again.serve.models] == ["a"]
    assert local_path(again.output_uri).parent.name == "runs"


async def test_a_job_that_asks_for_it_is_served_once_it_has_succeeded_and_leaves_whole(
    platform, make_objects
):
    from datatunerx.resources import FinetuneJob

    *material, experiment = make_objects(1)
    await platform.apply(*material)
    finetune = {"llm": "base", "dataset": "data", "hyperparameter": {"ref": "g0"}}
    await platform.apply(
        FinetuneJob.parse({"metadata": {"name": "j"}, "spec": {"finetune": finetune, "serve": True}})
    )
    job = await platform.ended(FinetuneJob, "j")
    assert job.status.condition("Serving").status == "True"
    found = await in_phase(platform, "Running", name="j")
    assert [model.name for model in found.spec.models] == [job.status.checkpoint]

    await platform.api.delete(FinetuneJob, "j")

    async def nothing_left():
        kinds = (FinetuneJob, InferenceService, LLMCheckpoint, Run)
        left = [obj for kind in kinds for obj in await platform.api.list(kind, "default")]
        return not [obj for obj in left if obj.kind != "Run" or obj.spec.type == "serve"]

    await platform.until(nothing_left)
