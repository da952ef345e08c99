"""Deaths and vanishings: a terminal state stays, and nothing runs twice."""

import asyncio

import pytest

from datatunerx.resources import (
    LLM,
    Dataset,
    Finetune,
    FinetuneExperiment,
    FinetuneJob,
    LLMCheckpoint,
    Run,
    Scoring,
)
from datatunerx.resources.enums import FinetunePhase
from datatunerx.runs.manifest import PINNED


async def snapshot(platform):
    kinds = (FinetuneExperiment, FinetuneJob, Finetune)
    return {(o.kind, o.metadata.name): o.status for kind in kinds for o in await platform.api.list(kind)}


async def test_a_finished_experiment_stays_finished_whatever_vanishes(platform, make_objects):
    await platform.apply(*make_objects(2))
    await platform.ended(FinetuneExperiment, "e")
    before = await snapshot(platform)
    submitted = len(platform.backend.submissions)

    await platform.api.delete(FinetuneJob, "e-g0")
    for kind in (Scoring, LLMCheckpoint):
        await platform.api.delete(kind, "e-g1")
    for run in await platform.api.list(Run):
        await platform.api.delete(Run, run.metadata.name)
    await platform.kill_controllers()
    platform.start_controllers()
    await asyncio.sleep(1.5)  # longer than a resync

    after = await snapshot(platform)
    assert after[("FinetuneExperiment", "e")] == before[("FinetuneExperiment", "e")]
    assert after[("FinetuneJob", "e-g1")] == before[("FinetuneJob", "e-g1")]
    assert after[("Finetune", "e-g1")] == before[("Finetune", "e-g1")]
    assert ("FinetuneJob", "e-g0") not in after
    assert len(platform.backend.submissions) == submitted
    llm, dataset = await platform.api.get(LLM, "base"), await platform.api.get(Dataset, "data")
    assert llm.status.is_true("Ready") and dataset.status.is_true("Ready")


async def test_ten_jobs_survive_five_deaths_of_the_controllers_and_each_runs_once(platform, make_objects):
    platform.pace = 0.1
    await platform.apply(*make_objects(10))
    for _ in range(5):
        await asyncio.sleep(0.25)
        await platform.kill_controllers()
        platform.start_controllers()
    status = (await platform.ended(FinetuneExperiment, "e")).status
    assert status.jobs.succeeded == 10
    trained = [job for worker in platform.backend.of("tune") for job in worker.done]
    assert sorted(trained) == sorted(f"e-g{n}" for n in range(10))


async def test_a_stopped_run_stops_its_trainings_and_does_not_start_them_again(platform, make_objects):
    platform.backend.behaviour.wait_at = 1
    await platform.apply(*make_objects(2))

    async def running():
        runs = [r for r in await platform.api.list(Run) if r.spec.type == "tune"]
        return runs[0] if runs and runs[0].status.phase == "Running" else None

    run = await platform.until(running)
    await platform.api.patch(Run, run.metadata.name, {"spec": {"stop": True}})
    status = (await platform.ended(FinetuneExperiment, "e")).status
    assert status.phase == "Stopped" and {f.reason for f in status.failures} == {"RunStopped"}
    assert len(platform.backend.of("tune")) == 1


async def test_a_stop_ends_a_worker_that_does_not_listen(platform, make_objects):
    await platform.apply(*make_objects(1))

    async def placed():
        return platform.backend.of("tune")

    (worker,) = await platform.until(placed)
    worker.hangs = True
    await platform.api.patch(FinetuneJob, "e-g0", {"spec": {"stop": "keep"}})
    status = (await platform.ended(FinetuneExperiment, "e")).status
    assert status.phase == "Stopped" and worker.phase.terminal


async def test_a_pinned_checkpoint_keeps_its_files_when_all_else_is_deleted(platform, make_objects):
    await platform.apply(*make_objects(2))
    await platform.ended(FinetuneExperiment, "e")
    uid = (await platform.api.get(Finetune, "e-g0")).metadata.uid
    await platform.api.patch(LLMCheckpoint, "e-g0", {"spec": {"pinned": True}})

    async def pinned():
        return list((platform.root / "data/artifacts" / uid).glob(f"*/{PINNED}"))

    await platform.until(pinned)
    await platform.api.delete(FinetuneExperiment, "e")

    async def gone():
        return not await platform.api.list(LLMCheckpoint) and not await platform.api.list(Finetune)

    await platform.until(gone)
    assert [path.name for path in (platform.root / "data/artifacts").iterdir()] == [uid]


async def test_a_second_experiment_waits_for_the_device_and_says_so(platform, make_objects):
    platform.backend.behaviour.wait_at = 1
    first, second = make_objects(1), make_objects(1, name="f")
    await platform.apply(*first)

    async def running():
        finetunes = await platform.api.list(Finetune)
        return finetunes and finetunes[0].status.phase == "Running"

    await platform.until(running)
    await platform.apply(second[-1])

    async def waits():
        found = [f for f in await platform.api.list(Finetune) if f.metadata.name == "f-g0"]
        return found and found[0].status.reason == "Queued" and found[0].status.message

    assert "place 1 of 1 in the queue" in await platform.until(waits)
    platform.backend.behaviour.wait_at = None
    assert (await platform.ended(FinetuneExperiment, "f")).status.phase == "Succeeded"
    assert len(platform.backend.of("tune")) == 2


async def test_a_finetune_of_its_own_makes_a_checkpoint_without_a_score(platform, make_objects):
    llm, dataset, group, _ = make_objects(1)
    spec = {"llm": "base", "dataset": "data", "hyperparameter": {"ref": "g0"}}
    await platform.apply(llm, dataset, group, Finetune.parse({"metadata": {"name": "alone"}, "spec": spec}))
    finetune = await platform.ended(Finetune, "alone")
    assert finetune.status.phase is FinetunePhase.SUCCEEDED
    assert (await platform.api.get(LLMCheckpoint, "alone")).spec.finetune == "alone"
    assert await platform.api.list(Scoring) == []


async def test_settings_that_save_nothing_before_the_end_are_pointed_out_before_it_starts(
    platform, make_objects
):
    objects = make_objects(1)
    objects[2].spec = type(objects[2].spec)(save_every=500)
    await platform.apply(*objects)
    await platform.ended(FinetuneExperiment, "e")
    said = (await platform.api.get(Finetune, "e-g0")).status.condition("SavesOnTheWay")
    assert said.status == "False" and "saveEvery is 500" in said.message and "3 steps" in said.message


async def test_what_is_interrupted_from_outside_is_taken_up_again(platform, make_objects):
    platform.backend.behaviour.wait_at = 1
    await platform.apply(*make_objects(1))

    async def inspecting():
        return platform.backend.of("inspect")

    for worker in await platform.until(inspecting):
        worker.stopping = True  # as a shutdown's SIGTERM does
        worker.end(None, 3)

    async def training():
        return platform.backend.of("tune")

    (worker,) = await platform.until(training)
    worker.stopping = True
    worker.end(None, 3)
    platform.backend.behaviour.wait_at = None
    status = (await platform.ended(FinetuneExperiment, "e")).status
    assert status.phase == "Succeeded"
    assert (await platform.api.get(Finetune, "e-g0")).status.retries == 1


@pytest.mark.parametrize("place", ["uri", "path"])
async def test_a_deleted_checkpoint_takes_its_files_along_and_nobody_elses(platform, make_objects, place):
    platform.backend.paths = place == "path"
    await platform.apply(*make_objects(2))
    await platform.ended(FinetuneExperiment, "e")
    kept = (await platform.api.get(Finetune, "e-g1")).metadata.uid
    await platform.api.delete(LLMCheckpoint, "e-g0")

    async def returned():
        return [path.name for path in (platform.root / "data/artifacts").iterdir()] == [kept]

    await platform.until(returned)
