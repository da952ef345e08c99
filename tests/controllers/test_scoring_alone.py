"""Scoring on its own: services, judges, plugins, and two Scorings compared."""

import pytest

from datatunerx.client.api import Plural
from datatunerx.client.errors import ApiError
from datatunerx.resources import FinetuneExperiment, Scoring
from datatunerx.resources.experiment import MetricResult
from datatunerx.resources.outcome import ScoringPlugin
from datatunerx.resources.wire import API_VERSION, GROUP, RETRY, VERSION
from datatunerx.runs.result import PluginFacts

SERVICE = {"url": "http://127.0.0.1:9/v1", "model": "m", "secretRef": {"name": "key-of-service"}}
JUDGE = {"url": "https://judge.example/v1", "model": "j", "secretRef": {"name": "key-of-judge"}}
OWN = {"metrics": ["exact-match"], "questions": [{"question": "1+1?", "answer": "2"}]}


def scoring(name, **spec):
    return Scoring.parse({"metadata": {"name": name}, "spec": spec})


def plugin(name="polite", **spec):
    return ScoringPlugin.parse({"metadata": {"name": name}, "spec": {"entryPoint": name} | spec})


async def phase(platform, name, wanted="Succeeded"):
    async def look():
        found = await platform.api.get(Scoring, name)
        return found if found.status.phase == wanted else None

    return await platform.until(look)


async def waiting(platform, name, reason):
    async def look():
        found = await platform.api.get(Scoring, name)
        return found if found.status.reason == reason else None

    return await platform.until(look)


async def test_a_service_is_scored_on_own_questions_without_any_dataset(platform):
    measure = OWN | {"metrics": ["judge", "exact-match"], "judge": JUDGE}
    await platform.apply(scoring("s", service=SERVICE, measure=measure))
    found = await phase(platform, "s")
    assert (found.status.metric, found.status.score) == ("judge", 0.2)
    (worker,) = platform.backend.of("score")
    plan = worker.plan.score
    assert (plan.service.url, plan.model, plan.data) == (SERVICE["url"], None, None)
    assert plan.measure.judge.model == "j" and plan.measure.questions[0].answer == "2"


async def test_what_had_no_score_is_measured_again_for_who_asks_and_what_has_one_is_not(platform):
    """As when the judge was away."""
    behaviour = platform.backend.behaviour
    behaviour.scores[""] = None
    await platform.apply(scoring("s", service=SERVICE, measure=OWN))
    assert (await phase(platform, "s")).status.reason == "ScoreMissing"
    behaviour.scores[""] = 0.7
    await platform.api.patch(Scoring, "s", {"metadata": {"annotations": {RETRY: "1"}}})

    async def measured():
        return (await platform.api.get(Scoring, "s")).status.score == 0.7

    await platform.until(measured)
    behaviour.scores[""] = 0.9
    await platform.api.patch(Scoring, "s", {"metadata": {"annotations": {RETRY: "2"}}})
    await platform.apply(scoring("other", service=SERVICE, measure=OWN))
    await phase(platform, "other")  # whatever was asked of s is acted on by then
    assert await measured() and len(platform.backend.of("score")) == 3


async def test_a_plugin_is_waited_for_by_name_and_called_with_its_parameters(platform):
    schema = {"type": "object", "properties": {"words": {"type": "array"}, "most": {"type": "integer"}}}
    platform.backend.behaviour.plugins["polite"] = PluginFacts(version="1.2", parameter_schema=schema)
    platform.backend.behaviour.extra["polite"] = MetricResult(value=0.9, low=0.8, high=1.0, n=20)
    uses = [{"ref": "polite", "parameters": {"most": 3}}]
    measure = OWN | {"plugins": uses, "rankBy": "polite"}
    await platform.apply(scoring("s", service=SERVICE, measure=measure))
    found = await waiting(platform, "s", "ScoringPluginNotFound")
    assert "there is no ScoringPlugin 'polite'" in found.status.message
    await platform.apply(plugin(parameters={"words": ["please"], "most": 9}))
    found = await phase(platform, "s")
    assert (found.status.metric, found.status.score, found.status.low) == ("polite", 0.9, 0.8)
    (worker,) = platform.backend.of("score")
    (told,) = worker.plan.score.measure.plugins
    assert told.parameters == {"words": ["please"], "most": 3}
    assert (told.plugin.entry_point, told.version) == ("polite", "1.2")


async def test_a_parameter_that_the_plugin_does_not_take_is_named(platform):
    schema = {"type": "object", "properties": {"most": {"type": "integer"}}}
    platform.backend.behaviour.plugins["polite"] = PluginFacts(version="1.2", parameter_schema=schema)
    uses = [{"ref": "polite", "parameters": {"most": "three"}}]
    await platform.apply(plugin(), scoring("s", service=SERVICE, measure=OWN | {"plugins": uses}))
    found = await waiting(platform, "s", "PluginParametersInvalid")
    assert "measure.plugins polite: parameters.most" in found.status.message
    assert not platform.backend.of("score")


async def test_a_score_that_ranks_and_was_not_found_is_missing_and_says_why(platform):
    platform.backend.behaviour.extra["polite"] = MetricResult(why_missing="PluginTimeout: too long")
    await platform.apply(plugin())
    for name, by in (("a", "polite"), ("b", "polite/tone")):
        measure = OWN | {"plugins": [{"ref": "polite"}], "rankBy": by}
        await platform.apply(scoring(name, service=SERVICE, measure=measure))
        found = await phase(platform, name)
        assert found.status.score is None and found.status.reason == "ScoreMissing"
        assert "PluginTimeout: too long" in found.status.message


async def test_the_jobs_of_an_experiment_are_ranked_by_a_plugin_that_wants_less(platform, make_objects):
    platform.backend.behaviour.extra["cost"] = MetricResult(value=2.0, n=20, higher_is_better=False)
    judged = {"metrics": ["exact-match", "judge"], "judge": JUDGE, "plugins": [{"ref": "cost"}]}
    await platform.apply(plugin("cost"), *make_objects(2, scoring=judged | {"rankBy": "cost"}))
    found = await platform.ended(FinetuneExperiment, "e")
    assert found.status.metric == "cost" and found.status.best.score == 2.0
    (worker,) = platform.backend.of("tune")
    assert [one.measure.plugins[0].plugin.name for one in worker.plan.tune.jobs] == ["cost", "cost"]


async def test_a_worker_gets_the_secrets_of_judge_and_service_and_the_plan_only_their_names(platform):
    secrets = Plural("", "v1", "secrets")
    for name in ("key-of-service", "key-of-judge"):
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "stringData": {"token": "t0k3n"},
        }
        await platform.api.create_raw(secrets, body, "default")
    measure = OWN | {"metrics": ["judge"], "judge": JUDGE}
    await platform.apply(scoring("s", service=SERVICE, measure=measure))
    await phase(platform, "s")
    (worker,) = platform.backend.of("score")
    given = worker.submission.environment["DTX_CREDENTIALS"]
    assert "key-of-service" in given and "key-of-judge" in given and "t0k3n" in given
    assert "t0k3n" not in worker.plan.model_dump_json()


async def test_two_scorings_are_compared_on_the_same_rows_or_told_why_not(platform):
    behaviour = platform.backend.behaviour
    behaviour.scores[""], behaviour.draws[""] = 0.9, [0.85, 0.9, 0.95]
    await platform.apply(scoring("a", service=SERVICE, measure=OWN))
    await phase(platform, "a")
    behaviour.scores[""], behaviour.draws[""] = 0.5, [0.45, 0.5, 0.55]
    await platform.apply(scoring("b", service=SERVICE | {"model": "n"}, measure=OWN))
    await phase(platform, "b")
    behaviour.draws[""] = [0.1]
    await platform.apply(scoring("c", service=SERVICE | {"model": "o"}, measure=OWN))
    await phase(platform, "c")
    await platform.api.patch(Scoring, "a", {"spec": {"compareWith": ["b", "c", "later"]}}, "default")

    async def compared():
        found = {d.to: d for d in (await platform.api.get(Scoring, "a")).status.comparisons}
        return found if len(found) == 3 else None

    found = await platform.until(compared)
    assert found["b"].value == pytest.approx(0.4) and found["b"].said == "a beats b by 0.4 +/- 0"
    assert found["c"].value is None and "other rows" in found["c"].why_missing
    assert "there is no Scoring 'later'" in found["later"].why_missing
    behaviour.scores[""], behaviour.draws[""] = 0.9, [0.85, 0.9, 0.95]
    await platform.apply(scoring("later", service=SERVICE | {"model": "p"}, measure=OWN))

    async def known():
        found = {d.to: d for d in (await platform.api.get(Scoring, "a")).status.comparisons}
        later = found.get("later")
        return later if later and later.value is not None else None

    assert "not distinguishable from noise" in (await platform.until(known)).said


async def test_the_verdict_compares_each_with_its_base_and_the_next_by_the_same_rows(platform, make_objects):
    behaviour = platform.backend.behaviour
    behaviour.scores |= {"e-g0": 0.8, "e-g1": 0.79}
    behaviour.draws |= {"": [0.1, 0.2, 0.3], "e-g0": [0.7, 0.8, 0.9], "e-g1": [0.6, 0.79, 0.95]}
    await platform.apply(*make_objects(2))
    status = (await platform.ended(FinetuneExperiment, "e")).status
    first, second, base = status.ranking
    assert first.against_base.said == "e-g0 beats base by 0.6 +/- 0"
    assert "not distinguishable from noise" in first.against_next.said and first.against_next.to == "e-g1"
    assert second.against_next.to == "base" and base.against_base is None and base.against_next is None
    assert "0.60 above the untouched base (0.20) by the same rows, +/- 0" in status.best.why
    assert "Not distinguishable from e-g1 on the same rows: the 95 % interval" in status.best.why


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"dataset": "d"}, "give model or service"),
        ({"dataset": "d", "model": {"name": "c"}, "service": SERVICE}, "give model or service"),
        ({"service": SERVICE}, "give a dataset, or measure.questions"),
        ({"service": SERVICE, "measure": {"metrics": ["bleu"]}}, "give a dataset, or measure.questions"),
        ({"service": SERVICE | {"url": "ftp://h/v1"}, "measure": OWN}, "url"),
        ({"service": SERVICE | {"url": "https://user:pw@h/v1"}, "measure": OWN}, "url"),
        ({"service": SERVICE, "measure": OWN | {"metrics": ["judge"]}}, "need each other"),
        ({"service": SERVICE, "measure": OWN | {"judge": JUDGE}}, "need each other"),
        (
            {"service": SERVICE, "measure": OWN | {"metrics": ["judge"], "judge": JUDGE | {"prompt": "hm"}}},
            "answer",
        ),
        ({"service": SERVICE, "measure": OWN | {"plugins": [{"ref": "a", "parameter": {}}]}}, "parameter"),
        ({"service": SERVICE, "measure": OWN | {"rankBy": "bleu"}}, "rankBy names what is not measured"),
        ({"service": SERVICE, "measure": OWN | {"plugins": [{"ref": "a"}], "rankBy": "ab"}}, "rankBy names"),
    ],
)  # fmt: skip
async def test_what_cannot_be_meant_is_refused_at_once(platform, spec, message):
    body = {"apiVersion": API_VERSION, "kind": "Scoring", "metadata": {"name": "s"}, "spec": spec}
    with pytest.raises(ApiError, match=message):
        await platform.api.create_raw(Plural(GROUP, VERSION, "scorings"), body, "default")
