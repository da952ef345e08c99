"""Rows that are too long become what they were told to become, and every token is accounted for."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datatunerx.data import ChatTemplate, DataError, Problem, inspect, tokenise
from datatunerx.data.formats import Conversation
from datatunerx.data.lengths import Cut, Used
from datatunerx.data.rows import Row
from datatunerx.data.templates import Example
from datatunerx.resources.enums import Split, TooLong, TruncateSide, Untrainable

ROW = Row("a.jsonl", 1, Conversation([]))


def example(labels: list[bool]) -> Example:
    ids = np.arange(len(labels), dtype=np.int32) + 10
    return Example(ids, np.where(labels, ids, -100).astype(np.int32))


@settings(max_examples=200, deadline=None)
@given(
    labels=st.lists(st.booleans(), min_size=1, max_size=60).map(lambda found: [False, *found]),
    cutoff=st.integers(2, 40),
    how=st.sampled_from([(TooLong.SPLIT, TruncateSide.RIGHT), (TooLong.TRUNCATE, TruncateSide.RIGHT),
                         (TooLong.TRUNCATE, TruncateSide.LEFT)]),
)  # fmt: skip
def test_every_token_is_used_or_counted_as_cut(labels, cutoff, how):
    row = example(labels)
    used = Cut(cutoff, how[0], Untrainable.DROP, how[1]).apply(ROW, row)
    if isinstance(used, Problem):
        kept = {
            TooLong.SPLIT: row.labels,
            TooLong.TRUNCATE: row.labels[:cutoff] if how[1] is TruncateSide.RIGHT else row.labels[-cutoff:],
        }[how[0]]
        starts = range(0, len(labels), cutoff)  # the first token of a part has nothing that predicts it
        assert not any((kept[start : start + cutoff][start > 0 :] >= 0).any() for start in starts) or (
            how == (TooLong.TRUNCATE, TruncateSide.LEFT) and not (kept[1:] >= 0).any()
        )
        return
    assert isinstance(used, Used)
    assert sum(len(part.ids) for part in used.examples) + used.cut_tokens == len(labels)
    for part in used.examples:
        assert len(part.ids) <= cutoff and (part.labels >= 0).any()
        assert ((part.labels == -100) | (part.labels == part.ids)).all()
        assert part.labels[0] == -100
    if how[0] is TooLong.TRUNCATE and len(labels) > cutoff:
        (part,) = used.examples
        edge = row.ids[:cutoff] if how[1] is TruncateSide.RIGHT else row.ids[-cutoff:]
        assert part.ids.tolist() == edge.tolist()


@pytest.fixture
def tokenised(tokenizer_dir, tmp_path):
    def make(files: Any, **more: Any) -> Any:
        told = {
            "tokenizer_dir": tokenizer_dir, "template": None, "cutoff_length": 50, "model_digest": "m",
            "too_long": TooLong.SPLIT, "untrainable": Untrainable.DROP, "cache_dir": tmp_path / "cache",
        } | more  # fmt: skip
        return tokenise(files, Split.TRAIN, **told)

    return make


def test_a_long_row_is_split_into_rows_that_fit_and_say_where_they_come_from(
    tokenised, dataset, write_rows, chat_row, tokenizer_dir
):
    rows = [chat_row("a", "b"), chat_row("why", "so " * 60)]
    path = write_rows(rows)
    whole = ChatTemplate.load(tokenizer_dir).encode(rows[1]["messages"])

    made = tokenised(dataset(path))

    # What follows the end of the turn may be left for a last part, which teaches nothing and is left out.
    end = int(np.flatnonzero(whole.labels >= 0)[-1]) + 1
    report, parts = made.report, -(-end // 50)
    assert made.row_numbers == [f"{path}:1"] + [f"{path}:2"] * parts and parts > 2
    used = np.concatenate([ids for ids, _ in made[1:]])
    assert used.tolist() == whole.ids[: parts * 50].tolist()
    assert (report.read, report.kept, report.split, report.truncated) == (2, 2, 1, 0)
    assert report.cut_tokens == len(whole.ids) - len(used)
    assert report.tokens is not None and report.tokens.rows == 1 + parts


def test_cutting_the_left_side_keeps_the_answers_end(tokenised, dataset, write_rows, chat_row):
    path = write_rows([chat_row("why", "so " * 60), chat_row("a", "b")])
    left = tokenised(dataset(path), too_long=TooLong.TRUNCATE, truncate_side=TruncateSide.LEFT)
    right = tokenised(dataset(path), too_long=TooLong.TRUNCATE)
    assert left.folder != right.folder
    assert [
        (r.report.truncated, r.report.tokens.turns, r.report.tokens.turns_ended) for r in (left, right)
    ] == [
        (1, 2, 2),
        (1, 2, 1),
    ]
    assert left.report.cut_tokens == right.report.cut_tokens > 0


SILENT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}


def test_rows_that_teach_nothing_are_dropped_with_their_lines_when_inspected_and_when_trained(
    tokenised, dataset, write_rows, chat_row, tokenizer_dir
):
    path = write_rows([chat_row("a", "b"), SILENT, chat_row("c", "d"), SILENT])
    for report in (inspect(dataset(path), tokenizer_dir).report, tokenised(dataset(path)).report):
        assert [(r.reason, r.count, r.where) for r in report.reasons] == [
            ("no trained token", 2, [f"{path}:2", f"{path}:4"])
        ]
        assert (report.read, report.kept, report.dropped) == (4, 2, 2)


def test_a_dataset_that_teaches_nothing_is_refused_before_any_training(dataset, write_rows, tokenizer_dir):
    with pytest.raises(DataError, match=r"no row of the train split can be used: .*:1: no trained token"):
        inspect(dataset(write_rows([SILENT, SILENT])), tokenizer_dir)
