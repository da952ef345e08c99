"""Early stopping by scores that are made while the base is loaded, in a real worker."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from datatunerx.data import ChatTemplate
from datatunerx.modeling.adapters import AdapterShape, make_adapter
from datatunerx.resources.enums import FinetunePhase, Precision, Split
from datatunerx.runs import EarlyStop
from datatunerx.worker import on_the_way
from datatunerx.worker.background import load
from datatunerx.worker.journal import Journal
from datatunerx.worker.prepare import Preparation


@pytest.fixture
def stop_by(room):
    def make(data, patience=2, **fields):
        score = room.measure(data, split=Split.VALIDATE, limit=3, **fields)
        return EarlyStop(patience=patience, score=score)

    return make


def path_of(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


@pytest.mark.slow
def test_what_is_scored_in_the_end_is_the_best_by_the_answers_on_the_way(room, stop_by):
    """One job has learned all there is before its end, one learns nothing, and the one measure ranks both."""
    data = room.data(test=room.rows(6), validate=room.rows(6))
    measure = room.measure(data)
    quick = room.job("quick", data, measure, maxSteps=400, evalEvery=5, lora={"rank": 16})
    slow = room.job("slow", data, measure, maxSteps=400, evalEvery=5, learningRate=1e-9)
    jobs = [job.model_copy(update={"early_stop": stop_by(data)}) for job in (quick, slow)]
    plan = room.tune([data], jobs)

    code, result = room.run(plan)

    assert code == 0, room.log(plan)
    assert {name: o.reason for name, o in result.jobs.items()} == dict.fromkeys(
        ("quick", "slow"), "StoppedEarly"
    )
    told = [
        (e.job, e.step, e.values["evalScore"]) for e in room.events(plan) if "evalScore" in (e.values or {})
    ]
    assert [at for job, at, _ in told if job == "slow"] == [5, 10, 15]
    assert {value for job, _, value in told if job == "slow"} == {0.0}
    best = result.jobs["quick"].checkpoint
    assert best.score == max(value for job, _, value in told if job == "quick") == 1.0
    assert best.step < result.jobs["quick"].step < 400
    score = result.score("quick", measure.key())
    assert score.metrics["exact-match"].value == 1.0
    assert json.loads((path_of(best.uri) / "manifest.json").read_bytes())["score"] == 1.0


@pytest.mark.slow
def test_a_job_that_nothing_could_be_measured_of_fails_before_its_first_step_and_says_how_to_mend_it(
    room, stop_by
):
    data = room.data(validate=room.rows(3))
    bare = room.data("bare")
    jobs = [
        room.job("no-rows", bare).model_copy(update={"early_stop": EarlyStop(patience=2)}),
        room.job("no-json", data).model_copy(
            update={"early_stop": stop_by(data, metrics=["field-accuracy"])}
        ),
        room.job("no-room", data).model_copy(
            update={"early_stop": stop_by(data, generation={"maxNewTokens": 126})}
        ),
        room.job("well", data),
    ]
    _, result = room.run(room.tune([data, bare], jobs))

    said = {name: outcome.message for name, outcome in result.jobs.items()}
    assert [result.jobs[name].phase for name in ("no-rows", "no-json", "no-room")] == [
        FinetunePhase.FAILED
    ] * 3
    assert (
        "earlyStopping: the validate split has no rows" in said["no-rows"]
        and "split.validate" in said["no-rows"]
    )
    assert "colours-validate.jsonl:1: field-accuracy needs a JSON object" in said["no-json"]
    assert "set earlyStopping.measure to loss" in said["no-json"]
    assert "no validate question leaves room for 126 new tokens" in said["no-room"]
    assert result.jobs["well"].phase is FinetunePhase.SUCCEEDED


@pytest.mark.slow
def test_where_memory_runs_out_fewer_rows_are_answered_at_once_and_the_score_is_the_same(
    room, stop_by, monkeypatch
):
    data = room.data(validate=room.rows(3))
    asked, answers = [], on_the_way.answer_all

    def narrow(*arguments):
        asked.append(arguments[-1])
        if asked[-1] > 1000:
            raise MemoryError
        return answers(*arguments)

    monkeypatch.setattr(on_the_way, "answer_all", narrow)
    base, template = load(room.model_dir, Precision.FLOAT32), ChatTemplate.load(room.model_dir)
    adapter = make_adapter("a", AdapterShape(2, 4.0, 0.0, ("all-linear",)), base.widths, seed=1)
    with Journal(room.tune([data], [room.job("a", data)])) as journal:
        way = on_the_way.OnTheWay(base, template, journal)
        way.add("a", stop_by(data).score, data)
        found = [way({"a": adapter}, lambda: None) for _ in range(2)]

    assert found == [{"a": 0.0}] * 2
    assert asked == [16384, 8192, 4096, 2048, 1024, 512, 512], "what fits is remembered"


def test_the_samples_system_prompt_stands_before_each_of_them(room):
    data = room.data()
    job = room.job("a", data).model_copy(
        update={"samples": ["say red", "say blue"], "sample_system_prompt": "one word"}
    )
    plain = job.model_copy(update={"name": "b", "sample_system_prompt": None})
    template = ChatTemplate.load(room.model_dir)
    with Journal(room.tune([data], [job])) as journal:
        preparation = Preparation(room.model, {data.name: data}, room.root / "cache", journal, template)
        asked, bare = (preparation.prepare(one).samples for one in (job, plain))

    decoder = Tokenizer.from_file(str(room.model_dir / "tokenizer.json"))
    system = "<|im_start|>system\none word<|im_end|>\n"
    assert [text for text, _ in asked] == ["say red", "say blue"]
    for (_, ids), (_, without) in zip(asked, bare, strict=True):
        said = decoder.decode(without, skip_special_tokens=False)
        assert "system" not in said
        assert decoder.decode(ids, skip_special_tokens=False) == system + said
