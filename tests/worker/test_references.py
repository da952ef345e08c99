"""Test rows that cannot give the score which is asked for are told of before the training."""

import pytest

from datatunerx.resources.enums import FinetunePhase, Metric

pytestmark = pytest.mark.slow


def rows(*answers):
    return [
        {"messages": [{"role": "user", "content": "say"}, {"role": "assistant", "content": answer}]}
        for answer in answers
    ]


def test_a_job_that_could_not_be_ranked_is_not_trained_and_its_row_is_named(room):
    data = room.data(test=rows('{"colour": "red"}', "red"))
    hopeless = room.measure(data, metrics=[Metric.FIELD_ACCURACY])
    partly = room.measure(data, metrics=[Metric.EXACT_MATCH, Metric.FIELD_ACCURACY])
    plan = room.tune([data], [room.job("a", data, hopeless), room.job("b", data, partly)])
    _, result = room.run(plan)
    a, b = result.jobs["a"], result.jobs["b"]
    assert (a.phase, a.step, b.phase) == (FinetunePhase.FAILED, 0, FinetunePhase.SUCCEEDED), room.log(plan)
    assert "colours-test.jsonl:2: field-accuracy needs a JSON object as reference" in a.message
    warned = [e.message or "" for e in room.events(plan) if e.type == "warning" and e.job == "b"]
    assert any("colours-test.jsonl:2: field-accuracy needs" in text for text in warned), warned
    assert result.score("b", partly.key()).metrics["exact-match"].value is not None
