"""An experiment's whole way, against a real server in this process."""

import dataclasses
import re
from pathlib import Path

import pytest

from datatunerx import storage
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
from datatunerx.runs import JobOutcome


async def test_an_experiment_goes_from_objects_to_a_recommended_checkpoint(platform, make_objects):
    platform.backend.behaviour.scores = {"e-g0": 0.6, "e-g1": 0.8}
    await platform.apply(*reversed(make_objects()))  # the experiment first: order does not matter

    experiment = await platform.ended(FinetuneExperiment, "e")

    status = experiment.status
    assert status.phase == "Succeeded" and status.jobs.summary == "2/2"
    assert [(row.rank, row.name, row.base) for row in status.ranking] == [
        (1, "e-g1", False),
        (2, "e-g0", False),
        (3, "base", True),
    ]
    assert status.best.job == status.best.checkpoint == "e-g1"
    assert (status.best.score, status.best.base_score) == (0.8, 0.2)
    assert "0.80 [0.75, 0.85] on 20 rows, 0.60 above the untouched base (0.20)" in status.best.why
    checkpoint = await platform.api.get(LLMCheckpoint, "e-g1")
    assert checkpoint.spec.base_digest == "digest-of-file:///models/base" and checkpoint.spec.step == 3
    job = await platform.api.get(FinetuneJob, "e-g1")
    assert (job.status.score, job.status.checkpoint, job.status.scoring) == (0.8, "e-g1", "e-g1")


async def test_jobs_on_one_base_share_one_run_which_scores_the_base_too(platform, make_objects):
    await platform.apply(*make_objects(4))
    await platform.ended(FinetuneExperiment, "e")

    (worker,) = platform.backend.of("tune")
    assert [job.name for job in worker.plan.tune.jobs] == ["e-g0", "e-g1", "e-g2", "e-g3"]
    assert len(worker.plan.tune.baselines) == 1
    assert platform.backend.of("score") == []
    finetune = await platform.api.get(Finetune, "e-g0")
    assert finetune.status.progress.step == 3 and finetune.status.metrics["loss"] > 0
    assert [c.step for c in finetune.status.checkpoints] and finetune.status.samples


async def test_what_is_missing_is_named_and_waited_for(platform, make_objects):
    llm, dataset, *rest = make_objects()
    await platform.apply(llm, *rest)

    async def waits():
        finetune = await platform.api.get(Finetune, "e-g0")
        ready = finetune.status.condition("Ready")
        return ready and ready.reason == "DatasetNotFound" and ready

    async def there():
        return [f for f in await platform.api.list(Finetune) if f.metadata.name == "e-g0"]

    await platform.until(there)
    ready = await platform.until(waits)
    assert ready.status == "False" and "'data'" in ready.message

    async def brought_up():
        status = (await platform.api.get(FinetuneExperiment, "e")).status
        return status if status.reason == "DatasetNotFound" else None

    status = await platform.until(brought_up)
    assert status.phase == "Pending" and status.condition("Ready").reason == "DatasetNotFound"
    why = "e-g0, e-g1: there is no Dataset 'data' in namespace default; apply it"
    assert (
        status.condition("Ready").message == status.message == f"0 of 2 jobs have ended; cannot begin: {why}"
    )
    await platform.apply(dataset)
    assert (await platform.ended(FinetuneExperiment, "e")).status.phase == "Succeeded"


async def test_an_own_question_that_the_metric_cannot_use_fails_before_anything_is_trained(
    platform, make_objects
):
    asked = [{"question": "a", "answer": '{"x": 1}'}, {"question": "b"}, {"question": "c", "answer": "red"}]
    scoring = {"metrics": ["field-accuracy", "exact-match"], "questions": asked}
    await platform.apply(*make_objects(1, scoring=scoring))
    status = (await platform.ended(FinetuneExperiment, "e")).status
    (failure,) = status.failures
    assert failure.reason == "ReferenceNotUsable" and platform.backend.of("tune") == []
    assert "scoring.questions[2].answer: field-accuracy needs a JSON object" in failure.message


async def test_an_experiment_whose_job_has_a_taken_name_says_so_itself(platform, make_objects):
    own = {"finetune": {"llm": "base", "dataset": "data", "hyperparameter": {"ref": "g0"}}}
    taken = FinetuneJob.parse({"metadata": {"name": "e-g0"}, "spec": own})
    await platform.apply(taken, *make_objects(1))

    async def said():
        status = (await platform.api.get(FinetuneExperiment, "e")).status
        return status if status.reason == "NameTaken" else None

    status = await platform.until(said)
    assert "FinetuneJob e-g0 exists" in status.condition("Ready").message
    await platform.api.delete(FinetuneJob, "e-g0")
    assert (await platform.ended(FinetuneExperiment, "e")).status.reason is None


async def test_a_failed_inspection_says_why_and_how_to_try_again(platform, make_objects):
    platform.backend.behaviour.broken_sources = {"file:///models/base"}
    await platform.apply(*make_objects())

    async def refused():
        llm = await platform.api.get(LLM, "base")
        ready = llm.status.condition("Ready")
        return ready if ready and ready.status == "False" else None

    ready = await platform.until(refused)
    assert ready.reason == "NotAModel" and "no config.json" in ready.message
    assert "datatunerx.io/retry=$(date +%s) --overwrite" in ready.message  # another value each time
    platform.backend.behaviour.broken_sources = set()
    await platform.api.patch(LLM, "base", {"metadata": {"annotations": {"datatunerx.io/retry": "1"}}})
    assert (await platform.ended(FinetuneExperiment, "e")).status.phase == "Succeeded"


async def test_a_relative_path_is_refused_with_the_fix(platform):
    spec = {"subsets": [{"splits": {"train": ["train.jsonl"]}}]}
    await platform.apply(Dataset.parse({"metadata": {"name": "rel"}, "spec": spec}))

    async def refused():
        return (await platform.api.get(Dataset, "rel")).status.condition("Ready")

    ready = await platform.until(refused)
    assert ready.reason == "RelativePath" and "dtx apply" in ready.message


async def test_one_failed_job_stops_nothing_else_and_is_listed_with_its_log(platform, make_objects):
    platform.backend.behaviour.fail = {"e-g0": "NonFiniteLoss"}
    await platform.apply(*make_objects(3))

    status = (await platform.ended(FinetuneExperiment, "e")).status
    assert status.phase == "Succeeded" and (status.jobs.succeeded, status.jobs.failed) == (2, 1)
    (failure,) = status.failures
    assert (failure.job, failure.reason, failure.message) == ("e-g0", "NonFiniteLoss", "rows 3 and 4")
    assert "step 1" in failure.log_tail
    assert "e-g0" not in [row.name for row in status.ranking]


async def test_a_failure_with_a_very_long_reason_is_told_cut(platform, make_objects):
    platform.backend.behaviour.fail = {"e-g0": "NonFiniteLoss"}
    platform.backend.behaviour.why = "row 3, " * 20_000
    await platform.apply(*make_objects(1))
    (failure,) = (await platform.ended(FinetuneExperiment, "e")).status.failures
    assert len(failure.message) == 65536 and failure.message.endswith("... (cut)")
    ready = (await platform.api.get(Finetune, "e-g0")).status.condition("Ready")
    assert len(ready.message) == 32768 and ready.message.endswith("... (cut)")


async def test_a_dead_worker_is_retried_then_failed_with_a_fix(platform, make_objects):
    platform.backend.behaviour.die = {"e-g0": 1}
    await platform.apply(*make_objects(2))
    status = (await platform.ended(FinetuneExperiment, "e")).status
    assert status.phase == "Succeeded" and status.jobs.succeeded == 2
    assert (await platform.api.get(Finetune, "e-g0")).status.retries == 1
    runs = [r for r in await platform.api.list(Run) if r.spec.type == "tune"]
    assert sorted(run.status.phase for run in runs) == ["Failed", "Succeeded", "Succeeded"]
    assert any("SIGKILL" in (run.status.message or "") for run in runs)


@pytest.mark.parametrize("retries", [0, 1])
async def test_one_that_kills_its_worker_every_time_fails_alone_and_its_neighbours_finish(
    platform, make_objects, retries
):
    platform.backend.behaviour.die = {"e-g1": 99}
    await platform.apply(*make_objects(3, retryLimit=retries))
    status = (await platform.ended(FinetuneExperiment, "e")).status
    (failure,) = status.failures
    assert (failure.job, failure.reason) == ("e-g1", "WorkerDied")
    assert status.jobs.succeeded == 2 and status.best
    runs = [r for r in await platform.api.list(Run) if r.spec.type == "tune"]
    carried = sorted(tuple(run.spec.attempts.items()) for run in runs)
    first = (("e-g0", 0), ("e-g1", 0), ("e-g2", 0))
    assert carried == sorted([first, (("e-g0", 1),), (("e-g1", 1),), (("e-g2", 1),)])


async def test_a_worker_that_dies_every_time_fails_its_job(platform, make_objects):
    platform.backend.behaviour.die = {"e-g0": 99}
    await platform.apply(*make_objects(1))
    status = (await platform.ended(FinetuneExperiment, "e")).status
    assert status.phase == "Failed" and status.failures[0].reason == "WorkerDied"
    assert "batchSize" in status.failures[0].message
    assert status.best is None and status.ranking == []


async def test_a_missing_score_never_ranks_and_is_never_zero(platform, make_objects):
    platform.backend.behaviour.scores = {"e-g0": None, "e-g1": 0.5}
    await platform.apply(*make_objects(2))
    status = (await platform.ended(FinetuneExperiment, "e")).status
    row = next(row for row in status.ranking if row.name == "e-g0")
    assert row.rank is None and row.score is None
    assert status.best.job == "e-g1"


async def test_a_score_that_the_run_did_not_bring_is_measured_in_a_run_of_its_own(platform, make_objects):
    platform.backend.behaviour.refuse_scoring = {"e-g0"}
    platform.backend.behaviour.scores = {"scored": 0.9}
    await platform.apply(*make_objects(2))
    status = (await platform.ended(FinetuneExperiment, "e")).status
    assert status.best.job == "e-g0" and status.best.score == 0.9
    (worker,) = platform.backend.of("score")
    assert worker.plan.score.adapter_uri.endswith("checkpoint-3")


async def test_an_unbeaten_base_is_said_plainly(platform, make_objects):
    platform.backend.behaviour.scores = {"": 0.7, "e-g0": 0.6, "e-g1": 0.5}
    await platform.apply(*make_objects(2))
    status = (await platform.ended(FinetuneExperiment, "e")).status
    assert status.ranking[0].base and status.best.job == "e-g0"
    assert "does not beat the untouched base" in status.best.why


async def test_suspend_keeps_everything_and_resume_takes_up_again(platform, make_objects):
    platform.backend.behaviour.wait_at = 1
    await platform.apply(*make_objects(2))

    async def training():
        runs = [r for r in await platform.api.list(Run) if r.spec.type == "tune"]
        return runs and runs[0].status.phase == "Running"

    await platform.until(training)
    await platform.api.patch(FinetuneExperiment, "e", {"spec": {"suspend": True}})

    async def suspended():
        experiment = await platform.api.get(FinetuneExperiment, "e")
        return experiment.status.phase == "Suspended"

    await platform.until(suspended)
    platform.backend.behaviour.wait_at = None
    assert {f.status.phase for f in await platform.api.list(Finetune)} == {"Suspended"}
    await platform.api.patch(FinetuneExperiment, "e", {"spec": {"suspend": False}})
    status = (await platform.ended(FinetuneExperiment, "e")).status
    assert status.phase == "Succeeded" and status.jobs.succeeded == 2
    assert {f.status.attempt for f in await platform.api.list(Finetune)} == {1}
    assert {f.status.retries for f in await platform.api.list(Finetune)} == {0}


async def test_one_that_asks_for_more_gpus_than_there_are_holds_up_nobody(platform, make_objects):
    objects = make_objects(1)
    greedy = {"finetune": {"llm": "base", "dataset": "data", "hyperparameter": {"ref": "g0"}}}
    greedy["finetune"]["resources"] = {"accelerators": 1}
    await platform.apply(FinetuneJob.parse({"metadata": {"name": "greedy"}, "spec": greedy}), *objects)
    assert (await platform.ended(FinetuneExperiment, "e")).status.phase == "Succeeded"
    status = (await platform.api.get(Finetune, "greedy")).status
    assert (status.phase, status.reason, status.run) == ("Pending", "NotEnoughDevices", None)
    assert "asks for 1 GPUs and this machine has 0" in status.message


async def test_one_job_can_be_stopped_and_kept_while_its_neighbour_goes_on(platform, make_objects):
    platform.backend.behaviour.wait_at = 1
    await platform.apply(*make_objects(2))

    async def training():
        finetunes = await platform.api.list(Finetune)
        return finetunes and all(f.status.phase == "Running" for f in finetunes)

    await platform.until(training)
    await platform.api.patch(FinetuneJob, "e-g0", {"spec": {"stop": "keep"}})
    await platform.ended(Finetune, "e-g0")
    platform.backend.behaviour.wait_at = None
    status = (await platform.ended(FinetuneExperiment, "e")).status
    assert (status.jobs.succeeded, status.jobs.stopped) == (1, 1)
    assert status.phase == "Succeeded" and status.best.job == "e-g1"
    assert (await platform.api.get(LLMCheckpoint, "e-g0")).spec.step >= 1


async def scoring_begins(platform, name):
    async def scoring():
        jobs = {job.metadata.name: job for job in await platform.api.list(FinetuneJob)}
        return name in jobs and jobs[name].status.phase == "Scoring"

    await platform.until(scoring)


async def test_stopping_a_job_that_is_being_scored_ends_its_worker(platform, make_objects):
    platform.backend.behaviour.slow_scoring = True
    await platform.apply(*make_objects(2))
    await scoring_begins(platform, "e-g0")
    await platform.api.patch(FinetuneJob, "e-g0", {"spec": {"stop": "keep"}})
    job = await platform.ended(FinetuneJob, "e-g0")
    assert (job.status.phase, job.status.checkpoint, job.status.scoring) == ("Stopped", "e-g0", None)
    (worker,) = platform.backend.of("tune")
    assert not worker.stopping  # its neighbour is still to be scored

    await platform.api.patch(FinetuneJob, "e-g1", {"spec": {"stop": "keep"}})
    assert (await platform.ended(FinetuneExperiment, "e")).status.phase == "Stopped"

    async def gone():
        return worker.phase.terminal and not await platform.api.list(Scoring)  # nor the base's

    await platform.until(gone)
    assert all(scorer.phase.terminal for scorer in platform.backend.of("score"))


async def test_a_job_suspended_while_it_is_scored_says_that_it_is_scored_first(platform, make_objects):
    platform.backend.behaviour.slow_scoring = True
    await platform.apply(*make_objects(1))
    await scoring_begins(platform, "e-g0")
    await platform.api.patch(FinetuneJob, "e-g0", {"spec": {"suspend": True}})

    async def said():
        return "suspend comes too late" in (
            (await platform.api.get(FinetuneJob, "e-g0")).status.message or ""
        )

    await platform.until(said)
    platform.backend.behaviour.slow_scoring = False
    assert (await platform.ended(FinetuneExperiment, "e")).status.phase == "Succeeded"


async def until_it_trains(platform, make_objects):
    """One training with a checkpoint, whose worker is not moved on; placement makes no other run."""
    await platform.apply(*make_objects(1))

    async def training():
        found = await platform.api.list(Finetune)
        return found and found[0].status.phase == "Running" and found[0].status.checkpoints

    platform.backend.behaviour.wait_at = 1
    await platform.until(training)
    await platform.kill_controllers()
    platform.settings = dataclasses.replace(platform.settings, settle_seconds=60)
    platform.start_controllers()
    (worker,) = platform.backend.of("tune")
    worker.hangs = True
    return worker


def is_kept(checkpoint, status):
    assert checkpoint.spec.step == status.checkpoints[-1].step
    assert checkpoint.spec.uri == status.checkpoints[-1].uri
    assert f"its checkpoint at step {checkpoint.spec.step} is kept" in status.message


async def test_a_training_stopped_before_it_is_taken_up_again_keeps_its_checkpoint(platform, make_objects):
    worker = await until_it_trains(platform, make_objects)
    worker.end(None, -9)

    async def waits():
        return (await platform.api.get(Finetune, "e-g0")).status.phase == "Retrying"

    await platform.until(waits)
    await platform.api.patch(FinetuneJob, "e-g0", {"spec": {"stop": "keep"}})
    status = (await platform.ended(Finetune, "e-g0")).status
    checkpoint = await platform.api.get(LLMCheckpoint, "e-g0")
    is_kept(checkpoint, status)
    assert checkpoint.spec.base_digest == "digest-of-file:///models/base"
    assert '"rank":4' in checkpoint.spec.parameters_json


async def test_a_worker_killed_after_the_grace_of_a_stop_leaves_its_checkpoint(platform, make_objects):
    worker = await until_it_trains(platform, make_objects)
    worker.end = lambda result, code, end=worker.end: end(None, -9)  # it does not heed SIGTERM
    await platform.api.patch(FinetuneJob, "e-g0", {"spec": {"stop": "keep"}})
    status = (await platform.ended(Finetune, "e-g0")).status
    assert status.phase == "Stopped"
    is_kept(await platform.api.get(LLMCheckpoint, "e-g0"), status)


async def test_a_training_whose_run_is_deleted_is_stopped_whenever_that_is_seen(platform, make_objects):
    worker = await until_it_trains(platform, make_objects)
    checkpoint = (await platform.api.get(Finetune, "e-g0")).status.checkpoints[-1]
    outcome = JobOutcome(phase="Suspended", step=1, steps=3, checkpoint=checkpoint)
    await platform.kill_controllers()
    worker.emit(type="job", job="e-g0", outcome=outcome)  # as a worker does that is asked to leave
    (run,) = [run for run in await platform.api.list(Run) if run.spec.type == "tune"]
    await platform.api.delete(Run, run.metadata.name)
    platform.start_controllers()
    status = (await platform.ended(Finetune, "e-g0")).status
    assert (status.phase, status.reason, status.retries) == ("Stopped", "RunDeleted", 0)
    is_kept(await platform.api.get(LLMCheckpoint, "e-g0"), status)


async def test_deleting_an_experiment_stops_its_worker_and_returns_the_bytes(platform, make_objects):
    platform.backend.behaviour.wait_at = 1
    await platform.apply(*make_objects(2))

    async def training():
        finetunes = await platform.api.list(Finetune)
        return finetunes and all(f.status.phase == "Running" for f in finetunes)

    await platform.until(training)
    assert list((platform.root / "data/artifacts").iterdir())
    await platform.api.delete(FinetuneExperiment, "e")

    async def gone():
        kinds = (FinetuneExperiment, FinetuneJob, Finetune, LLMCheckpoint, Scoring)
        left = [obj for kind in kinds for obj in await platform.api.list(kind)]
        runs = [r for r in await platform.api.list(Run) if r.spec.type == "tune"]
        return not left and not runs

    await platform.until(gone)
    (worker,) = platform.backend.of("tune")
    assert worker.phase.terminal
    assert list((platform.root / "data/artifacts").iterdir()) == []
    assert not worker.folder.exists()


async def test_orphans_of_a_deleted_experiment_and_job_train_on_and_keep_their_checkpoint(
    platform, make_objects
):
    platform.backend.behaviour.wait_at = 1
    await platform.apply(*make_objects(2))

    async def training():
        finetunes = await platform.api.list(Finetune)
        return len(finetunes) == 2 and all(f.status.phase == "Running" for f in finetunes)

    await platform.until(training)

    async def is_gone(model, name):
        return name not in [found.metadata.name for found in await platform.api.list(model)]

    for model, name in ((FinetuneExperiment, "e"), (FinetuneJob, "e-g0")):
        await platform.api.delete(model, name, propagation="Orphan")
        await platform.until(lambda model=model, name=name: is_gone(model, name))
    platform.backend.behaviour.wait_at = None
    assert (await platform.ended(FinetuneJob, "e-g1")).status.phase == "Succeeded"
    finetune = await platform.ended(Finetune, "e-g0")
    assert finetune.status.phase == "Succeeded" and not finetune.metadata.owner_references

    await platform.api.delete(Finetune, "e-g0", propagation="Orphan")
    await platform.until(lambda: is_gone(Finetune, "e-g0"))
    folder = platform.root / "data/artifacts" / finetune.metadata.uid
    assert Path((await platform.api.get(LLMCheckpoint, "e-g0")).spec.uri.removeprefix("file://")).is_dir()
    await platform.api.delete(LLMCheckpoint, "e-g0")
    await platform.until(lambda: is_gone(LLMCheckpoint, "e-g0"))
    assert not folder.exists()


async def test_what_is_in_use_stays_until_it_is_not(platform, make_objects):
    platform.backend.behaviour.wait_at = 1
    await platform.apply(*make_objects(1))

    async def held():
        return (await platform.api.get(LLM, "base")).metadata.finalizers

    await platform.until(held)
    await platform.api.delete(LLM, "base")

    async def in_use():
        return (await platform.api.get(LLM, "base")).status.condition("InUse")

    assert "FinetuneExperiment/e" in (await platform.until(in_use)).message

    async def gone():
        return not await platform.api.list(LLM)

    await platform.api.delete(FinetuneExperiment, "e")
    await platform.until(gone)


async def test_a_method_that_no_engine_takes_fails_at_once_and_names_what_works(platform, make_objects):
    objects = make_objects(2)
    objects[2].spec = type(objects[2].spec)(method="full")
    await platform.apply(*objects)
    status = (await platform.ended(FinetuneExperiment, "e")).status
    assert status.phase == "Succeeded"
    (failure,) = status.failures
    assert failure.reason == "MethodNotSupported" and "lora" in failure.message


async def test_what_a_worker_warns_of_stands_in_the_training(platform, make_objects):
    worker = await until_it_trains(platform, make_objects)
    worker.emit(type="warning", message="the disk is nearly full")
    worker.emit(type="warning", job="e-g0", message="row 3 was cut")

    async def warned():
        return (await platform.api.get(Finetune, "e-g0")).status.condition("Warning")

    warning = await platform.until(warned)
    assert (warning.status, warning.reason) == ("True", "WorkerWarned")
    assert warning.message == "the disk is nearly full\nrow 3 was cut"


async def test_settings_that_only_a_cluster_acts_on_are_named(platform, make_objects):
    await platform.apply(*make_objects(1, resources={"memory": "8Gi"}))
    await platform.ended(FinetuneExperiment, "e")
    said = (await platform.api.get(Finetune, "e-g0")).status.condition("ClusterSettings")
    assert (said.status, said.reason) == ("False", "NotBuilt")
    assert said.message == "resources.memory: not used on one machine"


async def test_events_tell_what_happened(platform, make_objects):
    await platform.apply(*make_objects(1))
    await platform.ended(FinetuneExperiment, "e")

    async def told():
        return "Succeeded" in {e["reason"] for e in await platform.api.events("Finetune", "e-g0")}

    await platform.until(told)
    assert {e["reason"] for e in await platform.api.events("LLM", "base")} == {"Inspected"}


async def test_every_base_and_dataset_gets_its_own_base_row_and_every_base_its_own_run(
    platform, make_objects
):
    llm, dataset, *groups, experiment = make_objects(1)
    other_llm = LLM.parse({"metadata": {"name": "big"}, "spec": {"source": "file:///models/big"}})
    other_data = Dataset.parse({"metadata": {"name": "more"}, "spec": dataset.spec.dump()})
    experiment.spec.matrix.llms = ["base", "big"]
    experiment.spec.matrix.datasets = ["data", "more"]
    platform.backend.behaviour.scores = {"e-big-data": 0.8, "e-big-more": 0.9}
    await platform.apply(llm, other_llm, dataset, other_data, *groups, experiment)

    status = (await platform.ended(FinetuneExperiment, "e")).status
    assert sorted(row.name for row in status.ranking if not row.base) == [
        "e-base-data",
        "e-base-more",
        "e-big-data",
        "e-big-more",
    ]
    bases = {(row.llm, row.dataset, row.score) for row in status.ranking if row.base}
    assert bases == {(m, d, 0.2) for m in ("base", "big") for d in ("data", "more")}
    assert status.best.job == "e-big-data" and "other data (more, not data)" in status.best.why
    assert {row.measured_on for row in status.ranking if row.rank is None} == {"more"}
    runs = [[job.name for job in worker.plan.tune.jobs] for worker in platform.backend.of("tune")]
    assert sorted(runs) == [["e-base-data", "e-base-more"], ["e-big-data", "e-big-more"]]
    assert platform.backend.of("score") == []


async def test_a_training_that_the_disk_cannot_hold_is_refused_with_both_numbers_before_it_starts(
    platform, make_objects, monkeypatch
):
    free = {"bytes": 100_000}
    monkeypatch.setattr(storage, "free_bytes", lambda uri: free["bytes"])
    await platform.apply(*make_objects(1))

    async def refused():
        found = await platform.api.list(Finetune)
        ready = found[0].status.condition("Ready") if found else None
        return ready if ready and ready.reason == "NotEnoughDisk" else None

    ready = await platform.until(refused)
    assert re.search(r"take about 0\.[1-9] MB and 0\.1 MB are free", ready.message)
    assert [run for run in await platform.api.list(Run) if run.spec.type == "tune"] == []
    free["bytes"] = 1 << 40
    assert (await platform.ended(FinetuneExperiment, "e")).status.phase == "Succeeded"
