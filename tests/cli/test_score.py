"""`dtx score`: what is asked for becomes one Scoring, and what cannot be meant is told at once."""

import json

import pytest

from datatunerx.cli.check import problems
from datatunerx.cli.errors import BadInput
from datatunerx.cli.score import Request, build, table
from datatunerx.resources import Scoring


def test_what_is_asked_for_is_an_object_that_the_server_takes(tmp_path):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("{answer}?")
    questions = tmp_path / "own.jsonl"
    questions.write_text('{"question": "a", "answer": "b"}\n\n{"question": "c"}\n')
    body = build(
        Request(
            model="ckpt/faq-r8", data="faq", split="validate", questions=["1+1?=2", str(questions)],
            metrics=["f1:field=category", "judge"], plugins=["polite"], judge="https://j/v1#big",
            judge_secret="keys:judge", judge_prompt=prompt, rank_by="polite", limit=5, max_new_tokens=9,
        )
    )  # fmt: skip
    assert problems(body) == []
    spec = Scoring.parse(body).spec
    assert (spec.model.kind, spec.model.name, spec.dataset) == ("LLMCheckpoint", "faq-r8", "faq")
    assert [(q.question, q.answer) for q in spec.measure.questions] == [
        ("1+1?", "2"),
        ("a", "b"),
        ("c", None),
    ]
    judge = spec.measure.judge
    assert (judge.url, judge.model, judge.prompt) == ("https://j/v1", "big", "{answer}?")
    assert (judge.secret_ref.name, judge.secret_ref.key) == ("keys", "judge")
    assert (spec.measure.ranks, spec.measure.limit) == ("polite", 5)


def test_the_same_request_has_the_same_name_and_another_one_another():
    def name(**asked):
        return build(Request(model="llm/base", data="d", **asked))["metadata"]["name"]

    assert name() == name() != name(metrics=["bleu"])
    assert name().startswith("score-base-")


def test_a_service_is_named_by_its_url():
    body = build(Request(url="https://h/v1", service_model="Big One", secret="k", questions=["a=b"]))
    assert problems(body) == [] and "model" not in body["spec"]
    assert body["spec"]["service"]["secretRef"] == {"name": "k"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "llm/NAME or ckpt/NAME"), ({"model": "llm/a", "url": "https://h/v1"}, "llm/NAME or ckpt/NAME"),
        ({"model": "fe/a"}, "is no model"), ({"url": "https://h/v1"}, "--service-model"),
        ({"model": "llm/a", "judge": "https://j/v1"}, "URL#MODEL"),
        ({"model": "llm/a", "questions": ["/nowhere/q.jsonl"]}, "cannot be read"),
        ({"model": "llm/a", "metrics": ["f1:category"]}, "f1:option=value"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_told_with_the_fix(asked, said):
    with pytest.raises(BadInput, match=said):
        build(Request(**asked))


def test_bad_questions_are_told_by_file_and_line(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"question": "a\u2028b"}\n')
    (question,) = build(Request(model="llm/a", questions=[str(path)]))["spec"]["measure"]["questions"]
    assert question == {"question": "a\u2028b"}
    for line, said in (("{", "own.jsonl:2: not JSON"), ('{"q": 1}', "own.jsonl:2: write one object a line")):
        path.write_text('{"question": "a"}\n' + line)
        with pytest.raises(BadInput, match=said):
            build(Request(model="llm/a", questions=[str(path)]))


@pytest.mark.parametrize(
    ("metric", "answer", "said"),
    [
        ("field-accuracy", "red", "field-accuracy needs a JSON object as reference"),
        ("f1:field=category", '{"other": 1}', "f1 needs a JSON object with the field 'category'"),
    ],
)
def test_an_answer_that_the_metric_cannot_use_is_refused_by_file_and_line(tmp_path, metric, answer, said):
    path = tmp_path / "own.jsonl"
    rows = [
        {"question": "a", "answer": '{"category": "x"}'},
        {"question": "b"},
        {"question": "c", "answer": answer},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BadInput, match=f"own.jsonl:3: answer: {said}"):
        build(Request(model="llm/a", questions=[str(path)], metrics=[metric]))
    build(Request(model="llm/a", questions=[str(path)], metrics=["accuracy", "f1"]))


def test_a_missing_metric_is_a_dash_with_its_reason():
    metrics = {
        "bleu": {"value": 12.5, "low": 10.0, "high": 15.0, "n": 9},
        "polite": {"whyMissing": "PluginTimeout"},
    }
    scoring = Scoring.parse(
        {"metadata": {"name": "s"}, "spec": {"model": {"name": "c"}}, "status": {"metrics": metrics}}
    )
    cells = [list(column.cells) for column in table(scoring).columns]
    assert cells[1] == ["12.5", "-"] and cells[2] == ["[10, 15]", "-"] and cells[4] == ["", "PluginTimeout"]
