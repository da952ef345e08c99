"""A model is scored alike, whoever is scored beside it and in whichever run."""

import json
from pathlib import Path

import pytest

from datatunerx.data import content_digest
from datatunerx.resources.enums import Metric, RunPhase, RunType, Split
from datatunerx.resources.finetune import GenerationSettings, MetricOptions
from datatunerx.runs import ScorePlan
from datatunerx.runs.plan import identified
from datatunerx.scoring import Prediction, write_predictions
from datatunerx.worker.journal import Journal
from datatunerx.worker.marks import Folders
from datatunerx.worker.measure import Subject, measure_stored


def predictions(uri: str) -> list[dict]:
    return [json.loads(line) for line in Path(uri.removeprefix("file://")).read_text().splitlines()]


def answers(uri: str) -> list[str]:
    return [prediction["answer"] for prediction in predictions(uri)]


@pytest.mark.slow
def test_a_score_run_finds_what_the_tune_run_found_also_where_answers_are_drawn(room):
    data = room.data(test=room.rows(9))
    drawn = room.measure(
        data, metrics=[Metric.EXACT_MATCH, Metric.PERPLEXITY],
        generation=GenerationSettings(max_new_tokens=6, temperature=1.0, seed=7),
    )  # fmt: skip
    greedy = room.measure(data, split=Split.TEST, limit=5)
    jobs = [room.job("a", data, drawn), room.job("b", data, greedy, maxSteps=3)]
    tuning = room.tune([data], jobs, baselines=[drawn, greedy])
    code, tuned = room.run(tuning)
    assert code == 0, room.log(tuning)
    assert len(tuned.scores) == 4

    checkpoint = f"file://{tuned.jobs['a'].checkpoint.uri.removeprefix('file://')}"
    for adapter, subject in ((None, ""), (checkpoint, "a")):
        content = ScorePlan(model=room.model, adapter_uri=adapter, data=data, measure=drawn)
        plan = identified(RunType.SCORE, room.root_uri, {"score": content})
        code, result = room.run(plan)
        assert (code, result.phase) == (0, RunPhase.SUCCEEDED), room.log(plan)
        mine, theirs = result.scores[0], tuned.score(subject, drawn.key())
        assert mine.metrics["exact-match"] == theirs.metrics["exact-match"]
        found, expected = (score.metrics["perplexity"].value for score in (mine, theirs))
        assert found == pytest.approx(expected, rel=1e-4)
        said, heard = answers(mine.predictions_uri), answers(theirs.predictions_uri)
        assert said == heard and len(set(said)) > 1


@pytest.mark.slow
def test_a_question_too_long_for_the_model_counts_as_not_answered_and_is_told(room):
    long = {"messages": [{"role": "user", "content": "x " * 200}, {"role": "assistant", "content": "red"}]}
    data = room.data(test=[*room.rows(2), long])
    content = ScorePlan(model=room.model, data=data, measure=room.measure(data))
    plan = identified(RunType.SCORE, room.root_uri, {"score": content})
    code, result = room.run(plan)
    assert code == 0 and result.scores[0].metrics["exact-match"].n == 3
    assert [p["finish"] for p in predictions(result.scores[0].predictions_uri)][2] == "too-long"
    assert any("1 of 3 questions leave no room" in (e.message or "") for e in room.events(plan))


@pytest.mark.slow
def test_a_model_that_could_be_asked_nothing_has_no_score_rather_than_none_right(room):
    data = room.data(test=room.rows(3))
    cramped = room.measure(
        data, metrics=[Metric.EXACT_MATCH, Metric.PERPLEXITY],
        generation=GenerationSettings(max_new_tokens=4096),
    )  # fmt: skip
    content = ScorePlan(model=room.model, data=data, measure=cramped)
    plan = identified(RunType.SCORE, room.root_uri, {"score": content})
    code, result = room.run(plan)
    found = result.scores[0].metrics
    assert code == 0 and found["exact-match"].value is None and found["perplexity"].value > 0
    assert "none of the 3 questions" in found["exact-match"].why_missing
    assert "maxNewTokens (4096)" in found["exact-match"].why_missing


@pytest.mark.slow
def test_a_changed_test_file_is_not_scored_and_bad_rows_are_told(room):
    data = room.data(test=[*room.rows(2), "{"])
    inspected = data.model_copy(update={"digest": content_digest(data)})
    for files, seen in ((inspected, True), (data.model_copy(update={"digest": "0" * 64}), False)):
        content = ScorePlan(model=room.model, data=files, measure=room.measure(files))
        plan = identified(RunType.SCORE, room.root_uri, {"score": content})
        code, result = room.run(plan)
        found = result.scores[0].metrics["exact-match"]
        assert code == 0 and (found.value is not None) is seen
        said = " ".join(e.message or "" for e in room.events(plan))
        if seen:
            assert "1 bad rows of colours's test split are not asked; the first: " in said
        else:
            assert "changed since they were inspected" in found.why_missing


def test_stored_answers_are_measured_by_the_field_that_is_asked_for(room):
    data = room.data()
    stored = room.root / "stored.jsonl"
    rows = [
        Prediction(n, "q", json.dumps({"category": c, "priority": "low"}), json.dumps({"category": c}))
        for n, c in enumerate(("bug", "question", "bug"))
    ]
    write_predictions(stored, rows)

    def f1(**options):
        measure = room.measure(
            data, metrics=[Metric.F1], metric_options={Metric.F1: MetricOptions(**options)}
        )
        content = ScorePlan(model=room.model, data=data, measure=measure)
        plan = identified(RunType.SCORE, room.root_uri, {"score": content})
        found = measure_stored(Subject("", None), measure, stored.as_uri(), Folders(), Journal(plan), {})
        return found.metrics["f1"].value

    assert f1(field="category") == 1.0
    assert f1(field="priority") == 0.0
    assert f1() == 0.5


@pytest.mark.slow
def test_a_new_metric_on_stored_answers_needs_no_model(room):
    data = room.data(test=room.rows(4))

    def plan(measure, **told):
        content = ScorePlan(model=room.model, data=data, measure=measure, **told)
        return identified(RunType.SCORE, room.root_uri, {"score": content})

    code, first = room.run(plan(room.measure(data)))
    assert code == 0
    stored = first.scores[0].predictions_uri
    elsewhere = room.model.model_copy(update={"uri": f"{room.root_uri}/no-model"})
    later = plan(room.measure(data, metrics=[Metric.BLEU]), predictions_uri=stored)
    later.score.model = elsewhere
    code, second = room.run(later)
    assert code == 0 and second.scores[0].metrics["bleu"].n == 4, room.log(later)
    assert second.scores[0].predictions_uri != stored
    assert predictions(second.scores[0].predictions_uri) == predictions(stored)

    # Likelihoods were not stored: the model is asked.
    code, third = room.run(plan(room.measure(data, metrics=[Metric.PERPLEXITY]), predictions_uri=stored))
    assert code == 0 and third.scores[0].metrics["perplexity"].value is not None
