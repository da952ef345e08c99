"""An inspection reads everything, reports everything, and is quick."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from datatunerx.data import DataError, content_digest, inspect, questions, read_rows
from datatunerx.data import pieces as pieces_module
from datatunerx.resources.enums import Split
from datatunerx.resources.material import AutoSplit, Overlap


def test_the_report_counts_every_row_of_every_split(dataset, write_rows, chat_row, tokenizer_dir, tmp_path):
    train = write_rows([chat_row(f"why {i}", "so") for i in range(20)] + ["{", chat_row("no answer")])
    test = write_rows([chat_row("t", "u"), {"messages": None}], "test.jsonl")
    files = dataset(train, splits={Split.TEST: [test]}, auto_split=AutoSplit(validate_=0.1, test=0.1))

    facts = inspect(files, tokenizer_dir, None, tmp_path / "out" / "report.json")

    report = facts.report
    assert facts.digest == content_digest(files)
    assert (report.format, report.read, report.kept, report.dropped) == ("messages", 24, 21, 3)
    assert report.splits == {"train": 18, "validate": 2, "test": 1}
    assert {entry.reason: entry.where for entry in report.reasons} == {
        "bad JSON": [f"{train}:21"], "no assistant turn": [f"{train}:22"], "wrong type": [f"{test}:2"],
    }  # fmt: skip
    assert report.tokens is not None and report.tokens.trained >= 21 * 2
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert facts.report_uri == (tmp_path / "out" / "report.json").as_uri()
    assert written["report"] == report.dump()
    assert [problem["line"] for problem in written["problems"]] == [21, 22, 2]
    shown = written["preview"][0]
    assert [shown["text"][start:end] for start, end in shown["trained"]] == ["so<|im_end|>"]
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "report.json"]


def test_without_a_tokenizer_rows_are_counted_and_tokens_are_not(dataset, write_rows, chat_row):
    report = inspect(dataset(write_rows([chat_row("a", "b")]))).report
    assert (report.kept, report.tokens) == (1, None)


def test_a_dataset_without_files_is_refused(dataset):
    with pytest.raises(DataError, match="splits: dataset d has no files"):
        inspect(dataset())


def test_rows_to_score_by_stand_in_the_test_split_alone(dataset, write_rows, chat_row, tokenizer_dir):
    """No split is made from them, and nothing is said of a leak: there is no train split to leak into."""
    rows = [chat_row(f"why {i % 3}", "so") for i in range(4)]
    files = dataset(splits={Split.TEST: [write_rows(rows)]}, auto_split=AutoSplit(validate_=0.5, test=0.5))

    report = inspect(files, tokenizer_dir).report

    assert (report.format, report.read, report.kept) == ("messages", 4, 4)
    assert (report.splits, report.warnings) == ({"test": 4}, [])
    assert report.overlap == Overlap(duplicates=1)
    assert len(questions(files, Split.TEST, None)) == 4
    assert [list(read_rows(files, split)) for split in (Split.TRAIN, Split.VALIDATE)] == [[], []]


def test_rows_to_score_by_of_which_none_can_be_used_are_refused(dataset, write_rows):
    with pytest.raises(DataError, match="no row of the test split can be used"):
        inspect(dataset(splits={Split.TEST: [write_rows(["{"])]}))


def test_good_test_rows_do_not_make_up_for_bad_train_rows(dataset, write_rows, chat_row):
    files = dataset(write_rows(["{"]), splits={Split.TEST: [write_rows([chat_row("a", "b")], "t.jsonl")]})
    with pytest.raises(DataError, match="bad JSON"):
        inspect(files)


def test_neither_torch_nor_transformers_nor_pyarrow_is_loaded_for_a_small_text(
    write_rows, chat_row, tokenizer_dir
):
    path = write_rows([chat_row("a", "b")])
    code = (
        "import sys; from pathlib import Path; from datatunerx.data import inspect; "
        "from datatunerx.runs.plan import DataFiles; "
        "inspect(DataFiles(name='d', splits={'train': [sys.argv[1]]}), Path(sys.argv[2])); "
        "print(sorted({'torch', 'transformers', 'pyarrow', 'fsspec', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path, str(tokenizer_dir)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_an_error_says_file_line_field_and_fix_and_survives_a_pickle():
    import pickle

    error = DataError("is odd", "a.jsonl", 3, "messages", "make it even")
    assert str(pickle.loads(pickle.dumps(error))) == "a.jsonl:3: messages: is odd. Fix: make it even"
    assert str(DataError("is odd")) == "is odd"
    assert Path("a.jsonl").name in str(error)


@pytest.mark.parametrize(
    ("groups", "apart"), [(None, "rows that differ"), ("customer", "groups")], ids=["few rows", "one group"]
)
def test_a_split_that_gets_no_row_is_warned_of(groups, apart, dataset, write_rows, chat_row):
    rows = [chat_row(str(n), "b") | {"customer": "same"} for n in range(2 if groups is None else 20)]
    files = dataset(write_rows(rows), auto_split=AutoSplit(validate=0, test=0.2, groupBy=groups))
    (warning,) = inspect(files).report.warnings
    assert warning.startswith("no row went to the test split") and f"too few {apart}" in warning
    more = [chat_row(str(n), "b") | {"customer": str(n)} for n in range(20)]
    files = dataset(write_rows(more), auto_split=AutoSplit(validate=0, test=0.2, groupBy=groups))
    assert inspect(files).report.warnings == []


def test_rows_with_tools_are_warned_of_while_it_is_not_known_who_writes_them(
    dataset, write_rows, chat_row, tokenizer_dir
):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    files = dataset(write_rows([chat_row("a", "b"), chat_row("c", "d") | {"tools": tools}]))
    (warning,) = inspect(files).report.warnings
    assert warning.startswith("rows with tools or calls: 1;") and "spec.llm" in warning
    report = inspect(files, tokenizer_dir).report  # its template writes none
    assert (report.warnings, report.kept) == ([], 1)
    assert report.reasons[0].reason == "chat template: the template does not write tool definitions"


def test_progress_is_told_in_rows_of_about_as_many_as_there_are(
    dataset, write_rows, chat_row, tmp_path, monkeypatch
):
    path = write_rows([chat_row("a", "b")] * 10)
    monkeypatch.setattr(pieces_module, "PIECE_BYTES", Path(path).stat().st_size * 4 // 10)
    said: list[tuple[int, int]] = []
    inspect(dataset(path), on_progress=lambda rows, speed, total, doing: said.append((rows, total)))
    assert said == [(4, 10), (8, 10), (10, 10)]
    table = str(tmp_path / "t.csv")
    Path(table).write_text("prompt,completion\na,b\n")
    inspect(dataset(table), on_progress=lambda rows, speed, total, doing: said.append((rows, total)))
    assert said[3:] == [(1, 0)]


def test_each_pass_of_an_inspection_tells_how_far_it_is(dataset, write_rows, chat_row, monkeypatch):
    path = write_rows([chat_row(f"why {i}", "so") for i in range(10)])
    monkeypatch.setattr(pieces_module, "PIECE_BYTES", Path(path).stat().st_size * 6 // 10)
    said: list[tuple[str, int, int]] = []
    files = dataset(path, auto_split=AutoSplit(validate_=0.1, test=0.2))
    inspect(files, on_progress=lambda rows, speed, total, doing: said.append((doing, rows, total)))
    first, second, third = (
        [(rows, total) for told, rows, total in said if told == doing]
        for doing in ("reading", "signing the held-out rows of", "looking for near copies in")
    )
    assert first[-1] == (10, 10) and len(first) == 2
    assert second[-1] == (3, 3) and all(total == 3 for _, total in second)
    assert third[-1] == (7, 7) and len(third) == 2


@pytest.mark.parametrize("groups", [None, "customer"], ids=["copies", "a large group"])
def test_a_made_split_that_is_far_from_its_share_is_warned_of(groups, dataset, write_rows, chat_row):
    large = [chat_row("same" if groups is None else str(n), "b") | {"customer": "one"} for n in range(30)]
    rows = large + [chat_row(f"other {n}", "b") | {"customer": str(n)} for n in range(4)]
    files = dataset(write_rows(rows), auto_split=AutoSplit(validate=0, test=0.5, groupBy=groups))
    report = inspect(files).report
    (warning,) = report.warnings
    share = report.splits["test"] / 34
    assert warning.startswith(f"{share:.1%} of the rows went to the test split, 50.0% were asked for")
    even = write_rows([chat_row(str(n), "b") | {"customer": str(n // 2)} for n in range(34)])
    files = dataset(even, auto_split=AutoSplit(validate=0, test=0.5, groupBy=groups))
    assert inspect(files).report.warnings == []
