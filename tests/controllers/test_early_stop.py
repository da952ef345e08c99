"""Early stopping from what a user writes to what the experiment says of it."""

import pytest

from datatunerx.client.errors import Invalid
from datatunerx.resources import Finetune, FinetuneExperiment, FinetuneJob, LLMCheckpoint

BY_SCORE = {"patience": 2, "measure": "score", "limit": 5}
SCORING = {"metrics": ["f1", "bleu"], "metricOptions": {"f1": {"field": "x"}, "bleu": {"tokenizer": "zh"}}}


async def test_a_job_that_stopped_early_has_succeeded_with_its_best_and_says_so(platform, make_objects):
    platform.backend.behaviour.early = {"e-g1"}
    system = {"samples": ["hi"], "sampleSystemPrompt": "Be brief."}
    await platform.apply(*make_objects(2, earlyStopping=BY_SCORE, scoring=SCORING, **system))

    status = (await platform.ended(FinetuneExperiment, "e")).status

    assert status.phase == "Succeeded" and status.jobs.succeeded == 2
    assert status.condition("StoppedEarly").message == "1 of 2 jobs stopped early: e-g1"
    (worker,) = platform.backend.of("tune")
    for job in worker.plan.tune.jobs:
        assert (job.samples, job.sample_system_prompt) == (["hi"], "Be brief.")
        stop = job.early_stop.dump()
        score = stop.pop("score")
        assert stop == {"patience": 2, "minDelta": 0.0}
        assert (score["data"], score["split"], score["limit"]) == ("data", "validate", 5)
        assert (score["metrics"], score["metricOptions"]) == (["f1"], {"f1": {"field": "x"}})
    said = "stopped early at step 2 of 3; best at step 1: 0.5"
    training = (await platform.api.get(Finetune, "e-g1")).status
    assert (training.phase, training.reason, training.message) == ("Succeeded", "StoppedEarly", said)
    job = (await platform.api.get(FinetuneJob, "e-g1")).status
    early = job.condition("StoppedEarly")
    assert (early.status, early.reason, early.message) == ("True", "StoppedEarly", said)
    assert (job.phase, job.reason, job.message) == ("Succeeded", "StoppedEarly", said)
    job = (await platform.api.get(FinetuneJob, "e-g0")).status
    other = job.condition("StoppedEarly")
    assert (job.reason, other.status, other.reason) == (None, "False", "RanToItsEnd")
    kept = (await platform.api.get(LLMCheckpoint, "e-g1")).spec
    assert kept.step == 1 and kept.uri.endswith("/checkpoint-1")


async def failure(platform, *objects):
    await platform.apply(*objects)
    (found,) = (await platform.ended(FinetuneExperiment, "e")).status.failures
    assert platform.backend.of("tune") == []
    return found.reason, found.message


async def test_without_validate_rows_nothing_is_begun_and_the_fields_are_named(platform, make_objects):
    platform.backend.behaviour.splits = {"train": 9, "test": 1}
    reason, message = await failure(platform, *make_objects(1, earlyStopping={"patience": 2}))
    assert reason == "NoValidateSplit"
    assert "Dataset data has none in its validate split" in message and "split.validate" in message


async def test_without_an_evaluation_before_the_end_nothing_is_begun(platform, make_objects):
    *objects, group, experiment = make_objects(1, earlyStopping={"patience": 2})
    group.spec.eval_every = 3
    reason, message = await failure(platform, *objects, group, experiment)
    assert reason == "NoEvaluation"
    assert "evalEvery is 3 and the training takes about 3 steps" in message


async def test_a_training_without_a_job_has_no_score_to_look_at(platform, make_objects):
    *objects, _ = make_objects(1)
    spec = {"llm": "base", "dataset": "data", "hyperparameter": {"ref": "g0"}, "earlyStopping": BY_SCORE}
    await platform.apply(*objects, Finetune.parse({"metadata": {"name": "f"}, "spec": spec}))
    status = (await platform.ended(Finetune, "f")).status
    assert (status.phase, status.reason) == ("Failed", "EarlyStoppingInvalid")
    assert "only a FinetuneJob has one; set it to loss" in status.message


@pytest.mark.parametrize(
    "scoring",
    [
        {"metrics": ["perplexity", "f1"]},
        {
            "metrics": ["f1", "judge"],
            "rankBy": "judge",
            "judge": {"url": "http://127.0.0.1:1/v1", "model": "m"},
        },
        {"metrics": ["f1"], "plugins": [{"ref": "polite"}], "rankBy": "polite"},
    ],
)
async def test_a_score_that_is_not_measured_on_the_way_is_refused_at_once(platform, make_objects, scoring):
    *_, experiment = make_objects(1, earlyStopping=BY_SCORE, scoring=scoring)
    finetune = {"llm": "base", "dataset": "data", "hyperparameter": {"ref": "g0"}, "earlyStopping": BY_SCORE}
    job = {"metadata": {"name": "j"}, "spec": {"finetune": finetune, "scoring": scoring}}
    for obj in (experiment, FinetuneJob.parse(job)):
        with pytest.raises(Invalid, match="what ranks is not measured on the way"):
            await platform.apply(obj)
    by_loss = {"patience": 2, "measure": "loss"}
    await platform.apply(make_objects(1, name="well", earlyStopping=by_loss, scoring=scoring)[-1])
