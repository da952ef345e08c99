import json
from pathlib import Path

import pytest

from datatunerx.resources.enums import FinetunePhase, Metric, RunPhase
from datatunerx.resources.finetune import Question

pytestmark = pytest.mark.slow


def test_two_adapters_are_trained_scored_beside_the_base_and_stored(room):
    data = room.data(rows=room.rows(24), test=room.rows(6))
    measure = room.measure(
        data, metrics=[Metric.EXACT_MATCH, Metric.PERPLEXITY], questions=[Question(question="say more")]
    )
    jobs = [room.job("a", data, measure), room.job("b", data, measure, lora={"rank": 16}, maxSteps=40)]
    jobs[1].samples.append("say red")
    plan = room.tune([data], jobs, baselines=[measure])
    code, result = room.run(plan)

    assert (code, result.phase, result.plan_id) == (0, RunPhase.SUCCEEDED, plan.id), room.log(plan)
    assert {name: (o.phase, o.step) for name, o in result.jobs.items()} == {
        "a": (FinetunePhase.SUCCEEDED, 6), "b": (FinetunePhase.SUCCEEDED, 40),
    }  # fmt: skip
    assert {score.subject for score in result.scores} == {"", "a", "b"}
    base, b = result.score("", measure.key()), result.score("b", measure.key())
    assert b.metrics["exact-match"].value == 1.0 and base.metrics["exact-match"].value == 0.0
    assert b.metrics["perplexity"].value < base.metrics["perplexity"].value
    lines = [json.loads(line) for line in _path(b.predictions_uri).read_text().splitlines()]
    assert [line["answer"] for line in lines] == [line["reference"] for line in lines] and len(lines) == 6
    unscored = _path(b.predictions_uri.replace(".jsonl", ".unscored.jsonl")).read_text().splitlines()
    assert [json.loads(line)["question"] for line in unscored] == ["say more"]
    _check_checkpoint(result.jobs["b"].checkpoint.uri)
    _check_events(room.events(plan))


def _path(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def _check_checkpoint(uri: str) -> None:
    names = {path.name for path in _path(uri).iterdir()}
    assert {
        "adapter_model.safetensors",
        "adapter_config.json",
        "tokenizer.json",
        "chat_template.jinja",
    } <= names


def _check_events(events) -> None:
    steps = [event.progress.step for event in events if event.type == "progress" and event.job == "b"]
    assert steps == list(range(1, 41))
    assert [e.sample.step for e in events if e.type == "sample"][0] == 0
    assert {e.job for e in events if e.type == "data"} == {"a", "b"}
    assert next(e for e in events if e.type == "data").report.kept == 24
    assert {e.job for e in events if e.type == "job"} == {"a", "b"}
