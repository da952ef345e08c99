"""A Scoring's own Run: lost ones are made again, a stop or a deletion by somebody is heeded."""

import pytest

from datatunerx.client.api import Plural
from datatunerx.client.errors import ApiError
from datatunerx.resources import FinetuneExperiment, FinetuneJob, Run, Scoring
from datatunerx.resources.finetune import Measure
from datatunerx.resources.outcome import ModelRef, ScoringSpec
from datatunerx.resources.wire import API_VERSION, GROUP, VERSION, ObjectMeta
from datatunerx.storage import local_path


async def ends(platform, make_objects, deaths):
    """An experiment whose tune run brings no score, so that e-g0 is scored in Runs of its own."""
    platform.backend.behaviour.refuse_scoring = {"e-g0"}
    platform.backend.behaviour.scores_die = deaths
    await platform.apply(*make_objects(1, baseline=False))
    await platform.ended(FinetuneExperiment, "e")
    runs = [run for run in await platform.api.list(Run) if run.spec.type == "score"]
    return await platform.api.get(Scoring, "e-g0"), sorted(run.status.phase for run in runs)


async def test_a_score_run_whose_worker_was_killed_is_made_again(platform, make_objects):
    scoring, runs = await ends(platform, make_objects, [-9])
    assert (scoring.status.phase, scoring.status.score) == ("Succeeded", 0.5)
    assert runs == ["Failed", "Succeeded"]
    assert (await platform.api.get(FinetuneJob, "e-g0")).status.phase == "Succeeded"


async def test_a_worker_that_dies_on_it_again_is_the_end_and_the_reason_says_so(platform, make_objects):
    scoring, runs = await ends(platform, make_objects, [-9, -9, -9])
    assert (scoring.status.phase, scoring.status.reason) == ("Failed", "WorkerDied")
    assert "2 workers died on it" in scoring.status.message and runs == ["Failed", "Failed"]


async def test_interruptions_from_outside_do_not_count_as_deaths(platform, make_objects):
    scoring, runs = await ends(platform, make_objects, ["stop", "stop", -9])
    assert scoring.status.phase == "Succeeded"
    assert runs == ["Failed", "Stopped", "Stopped", "Succeeded"]


async def test_an_adapter_is_scored_in_the_precision_it_was_trained_in(platform, make_objects):
    platform.backend.behaviour.refuse_scoring = {"e-g0"}
    llm, data, group, experiment = make_objects(1, baseline=False)
    group.spec = group.spec.model_validate({"precision": "bfloat16"})
    await platform.apply(llm, data, group, experiment)
    await platform.ended(FinetuneExperiment, "e")
    (worker,) = platform.backend.of("score")
    assert worker.plan.score.precision == "bfloat16"


async def test_a_new_metric_is_measured_on_answers_that_are_stored_and_on_no_others(platform, make_objects):
    await platform.apply(*make_objects(1))
    await platform.ended(FinetuneExperiment, "e")
    stored = (await platform.api.get(Scoring, "e-g0")).status.predictions_uri

    async def asked(name, **measure):
        spec = ScoringSpec(
            model=ModelRef(name="e-g0"), dataset="data", measure=Measure(metrics=["bleu"], **measure)
        )
        await platform.apply(Scoring(metadata=ObjectMeta(name=name), spec=spec))

        async def done():
            return (await platform.api.get(Scoring, name)).status.phase == "Succeeded"

        await platform.until(done)
        return platform.backend.of("score")[-1].plan.score.predictions_uri

    assert await asked("in-letters", metric_options={"bleu": {"tokenizer": "char"}}) == stored
    assert platform.backend.of("score")[-1].plan.score.measure.metric_options["bleu"].tokenizer == "char"
    assert await asked("bleu") == stored
    assert await asked("fewer", limit=3) is None
    local_path(stored).unlink()
    for name in ("bleu", "in-letters"):
        await platform.api.delete(Scoring, name)
    assert await asked("again") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"f1": {"field": "category"}}, "not among metrics"),
        ({"bleu": {"field": "category"}}, "field is an option of accuracy, precision, recall, f1 only"),
        ({"bleu": {"tokenizer": "zn"}}, "tokenizer"),
        ({"bleu": {"feild": "category"}}, "feild"),
    ],
)
async def test_an_option_that_its_metric_does_not_have_is_refused_at_once(platform, options, message):
    spec = {
        "model": {"name": "c"},
        "dataset": "d",
        "measure": {"metrics": ["bleu"], "metricOptions": options},
    }
    body = {"apiVersion": API_VERSION, "kind": "Scoring", "metadata": {"name": "s"}, "spec": spec}
    with pytest.raises(ApiError, match=message):
        await platform.api.create_raw(Plural(GROUP, VERSION, "scorings"), body, "default")
