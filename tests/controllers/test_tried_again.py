"""What failed is tried again when a user asks for it, and never otherwise."""

import asyncio

from datatunerx.resources import Finetune, FinetuneExperiment, FinetuneJob, Run, Scoring
from datatunerx.resources.wire import RETRY


async def ask(platform, model, name, value="1"):
    await platform.api.patch(model, name, {"metadata": {"annotations": {RETRY: value}}})


async def succeeded(platform, name="e"):
    async def look():
        found = await platform.api.get(FinetuneExperiment, name)
        status = found.status
        return status if status.phase.terminal and status.jobs.succeeded == status.jobs.total else None

    return await platform.until(look)


async def test_a_failed_job_is_tried_again_and_its_experiment_ranks_it_then(platform, make_objects):
    platform.backend.behaviour.fail = {"e-g0": "NonFiniteLoss"}
    await platform.apply(*make_objects(2))
    before = (await platform.ended(FinetuneExperiment, "e")).status
    assert (before.jobs.succeeded, before.jobs.failed) == (1, 1)
    platform.backend.behaviour.fail = {}
    await ask(platform, FinetuneJob, "e-g0")
    status = await succeeded(platform)
    assert status.failures == [] and {row.name for row in status.ranking} == {"e-g0", "e-g1", "base"}
    assert status.is_true("Complete") and status.finished_at and status.best
    finetune = await platform.api.get(Finetune, "e-g0")
    assert (finetune.status.attempt, finetune.status.retried_for, finetune.status.log_tail) == (1, "1", None)


async def test_a_job_that_fails_again_stays_failed_until_it_is_asked_for_anew(platform, make_objects):
    platform.backend.behaviour.fail = {"e-g0": "NonFiniteLoss"}
    await platform.apply(*make_objects(1))
    await platform.ended(FinetuneExperiment, "e")
    await ask(platform, FinetuneJob, "e-g0")

    async def again():
        finetune = await platform.api.get(Finetune, "e-g0")
        return finetune.status.attempt == 1 and finetune.status.phase.terminal

    await platform.until(again)
    assert (await platform.ended(FinetuneExperiment, "e")).status.phase == "Failed"
    await asyncio.sleep(0.3)
    assert len([run for run in await platform.api.list(Run) if run.spec.type == "tune"]) == 2
    platform.backend.behaviour.fail = {}
    await ask(platform, FinetuneJob, "e-g0", "2")
    assert (await succeeded(platform)).phase == "Succeeded"


async def test_what_was_asked_before_it_failed_does_not_count(platform, make_objects):
    platform.backend.behaviour.slow_scoring = True
    platform.backend.behaviour.fail = {"e-g1": "NonFiniteLoss"}
    platform.backend.behaviour.wait_at = 0
    await platform.apply(*make_objects(2))

    async def trains():
        found = await platform.api.list(Finetune)
        return [f for f in found if f.metadata.name == "e-g1"]

    await platform.until(trains)
    await ask(platform, FinetuneJob, "e-g1")
    platform.backend.behaviour.wait_at = None
    platform.backend.behaviour.slow_scoring = False
    status = (await platform.ended(FinetuneExperiment, "e")).status
    await asyncio.sleep(0.3)
    assert (await platform.api.get(Finetune, "e-g1")).status.attempt == 0
    assert status.jobs.failed == 1


async def test_a_job_whose_score_failed_is_scored_again_and_not_trained_again(platform, make_objects):
    platform.backend.behaviour.refuse_scoring = {"e-g0"}
    platform.backend.behaviour.scores_die = [-9, -9]
    platform.backend.behaviour.scores = {"scored": 0.9}
    await platform.apply(*make_objects(1))
    await platform.ended(FinetuneExperiment, "e")
    job = await platform.api.get(FinetuneJob, "e-g0")
    assert (job.status.phase, job.status.reason) == ("Failed", "ScoringFailed")
    await ask(platform, FinetuneJob, "e-g0")
    status = await succeeded(platform)
    assert status.best.score == 0.9
    assert len(platform.backend.of("tune")) == 1 and len(platform.backend.of("score")) >= 3
    assert (await platform.api.get(Scoring, "e-g0")).status.retried_for == "1"
