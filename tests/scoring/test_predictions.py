"""Stored answers come back as they were, and a file that is none says where and why."""

import json
import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datatunerx.scoring import Prediction, PredictionsError, read_predictions, score, write_predictions

GOOD = {"row": 0, "question": "q", "reference": "r", "answer": "a"}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters()),  # with half surrogate pairs and every kind of line separator
            st.text(),
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
            st.none() | st.integers(0, 10**6),
        ),
        max_size=5,
    )
)
def test_predictions_come_back_as_they_were_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("predictions") / "base.jsonl"
    written = [
        Prediction(row, text, other, text + other, nll=nll, tokens=tokens, finish="length")
        for row, (text, other, nll, tokens) in enumerate(rows)
    ]
    write_predictions(path, written)
    assert read_predictions(path) == written
    assert [entry.name for entry in path.parent.iterdir()] == ["base.jsonl"]


def test_a_new_metric_needs_only_the_stored_answers(tmp_path):
    path = tmp_path / "answers.jsonl"
    write_predictions(path, [Prediction(0, "q", "the cat", "the dog"), Prediction(1, "q", "a", "a")])
    assert score(read_predictions(path), ["exact-match"])["exact-match"].value == 0.5
    assert score(read_predictions(path), ["rouge-1"])["rouge-1"].value == 0.75


def test_a_likelihood_that_is_not_a_number_is_missing_when_read_again(tmp_path):
    path = tmp_path / "answers.jsonl"
    write_predictions(path, [Prediction(0, "q", "r", "a", nll=math.nan, tokens=3)])
    assert read_predictions(path)[0].nll is None


def test_chinese_is_legible_in_the_file(tmp_path):
    path = tmp_path / "answers.jsonl"
    write_predictions(path, [Prediction(0, "天气", "好", "好")])
    assert "天气" in path.read_text("utf-8")


def test_the_bytes_are_on_disk_before_the_name_and_the_name_before_the_call_returns(tmp_path, monkeypatch):
    path = tmp_path / "answers.jsonl"
    synced = []
    fsync = os.fsync

    def watch(descriptor):
        synced.append((os.fstat(descriptor).st_ino, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_predictions(path, [Prediction(0, "q", "r", "a")])
    assert synced == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "answers.jsonl"
    write_predictions(path, [Prediction(0, "q", "r", "old")])

    def broken():
        yield Prediction(0, "q", "r", "new")
        raise RuntimeError("the model died")

    with pytest.raises(RuntimeError):
        write_predictions(path, broken())
    assert read_predictions(path)[0].answer == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["answers.jsonl"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"row": 1', "not one JSON object a line"),
        (b"[1]", "expected a JSON object, found list"),
        (b"\xff\xfe", "not UTF-8"),
        (json.dumps({**GOOD, "anwser": "x"}).encode(), "unknown field 'anwser'"),
        (json.dumps({"row": 1, "question": "q", "reference": "r"}).encode(), "field 'answer' is missing"),
        (json.dumps({**GOOD, "row": "1"}).encode(), "field 'row' cannot be \"1\""),
        (json.dumps({**GOOD, "row": True}).encode(), "field 'row' cannot be true"),
        (json.dumps(GOOD).encode(), "row 0 is already on line 1"),
    ],
)
def test_a_broken_line_is_named_with_its_file_and_number(tmp_path, line, complaint):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + line + b"\n")
    with pytest.raises(PredictionsError, match=r"answers.jsonl:2: ") as caught:
        read_predictions(path)
    assert complaint in str(caught.value)
