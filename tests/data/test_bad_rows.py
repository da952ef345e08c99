"""A bad row is named by file, line and field, with what was found and one fix; the others are read."""

import json
import os
import random
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datatunerx.data import Conversation, DataError, Problem, inspect, read_rows
from datatunerx.data.raw import MAX_ROW_BYTES
from datatunerx.resources.enums import Split

GOOD = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'


def turns(*more: object) -> str:
    return json.dumps({"messages": [{"role": "user", "content": "a"}, *more]})


def answer(content: object) -> str:
    return turns({"role": "assistant", "content": content})


BAD = {
    "no assistant turn": (turns(), "no assistant turn", "messages", "user"),
    "empty list": ('{"messages": []}', "no turns", "messages", "an empty list"),
    "null list": ('{"messages": null}', "wrong type", "messages", "null"),
    "text for list": ('{"messages": "hello"}', "wrong type", "messages", "'hello'"),
    "empty answer": (answer(" \n"), "empty assistant turn", "messages", "turn 2"),
    "empty question": (
        '{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "b"}]}',
        "empty user turn", "messages", "turn 1",
    ),
    "null answer": (answer(None), "null turn", "messages[1].content", "null"),
    "no content": (turns({"role": "assistant"}), "null turn", "messages[1].content", "null"),
    "null turn": (turns(None), "null turn", "messages[1]", "null"),
    "number for text": (answer(5), "wrong type", "messages[1].content", "number 5"),
    "text for turn": (turns("hi"), "wrong type", "messages[1]", "'hi'"),
    "unknown role": (turns({"role": "narrator"}), "unknown role", "messages[1].role", "'narrator'"),
    "role a number": (turns({"role": 1}), "unknown role", "messages[1].role", "number 1"),
    "picture": (
        answer([{"type": "image_url"}]),
        "wrong type", "messages[1].content", "a part that is not text",
    ),
    "missing column": ('{"mesages": []}', "missing column", "messages", "mesages"),
    "broken json": ('{"messages": [', "bad JSON", "", "expecting value at column 15"),
    "two on a line": (GOOD + GOOD, "bad JSON", "", "extra data at column 88"),
    "array": ("[1]", "a row is not an object", "", "a list"),
    "bare number": ("3", "a row is not an object", "", "number 3"),
    "duplicate key": ('{"messages": [], "messages": []}', "duplicate key", "messages", "'messages'"),
    "nan": ('{"messages": NaN}', "NaN or Infinity in JSON", "", "NaN"),
    "infinity": ('{"x": -Infinity}', "NaN or Infinity in JSON", "", "-Infinity"),
    "surrogate": (answer("\ud83d"), "half a surrogate pair", "messages[1].content", None),
    "nul": (answer("b\0"), "NUL character", "messages[1].content", "'b\\x00'"),
    "deep": ("[" * 100_000, "JSON nested too deeply", "", ""),
    "huge number": ('{"x": ' + "9" * 5000 + "}", "bad JSON", "", None),
    "tools": (GOOD[:-1] + ', "tools": [{"type": "function"}]}', "wrong type", "tools[0]", "an object"),
    "a call": (
        turns({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}),
        "wrong type", "messages[1].tool_calls[0].function.arguments",
        "expecting property name enclosed in double quotes at column 2",
    ),
    "a number in a call": (
        turns({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 10**30}}}]}),
        "number too large", "messages[1].tool_calls", "number 1e+30",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_and_the_rows_around_it_are_read(name, dataset, write_rows):
    line, reason, field, found = BAD[name]
    path = write_rows([GOOD, line, GOOD])

    first, bad, last = read_rows(dataset(path), Split.TRAIN)

    assert isinstance(first.value, Conversation) and isinstance(last.value, Conversation)
    problem = bad.value
    assert isinstance(problem, Problem)
    assert (problem.file, problem.line, problem.reason, problem.field) == (path, 2, reason, field)
    assert found is None or problem.found == found
    assert problem.fix
    said = str(problem.error())
    assert said.startswith(f"{path}:2: ") and "Fix: " in said and "\n" not in said and said.isprintable()


def test_a_byte_that_is_not_utf8_is_named_by_its_place(dataset, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD.encode() + b'\n{"messages": "\xe9"}\n')
    _, bad = read_rows(dataset(str(path)), Split.TRAIN)
    assert (bad.line, bad.value.reason, bad.value.found) == (
        2,
        "not UTF-8",
        "byte 0xe9 at byte 15 of the line",
    )


def test_a_byte_that_is_not_utf8_in_a_csv_is_named_by_its_row_and_column(dataset, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"prompt,completion\na,b\nc,d\xff\ne,f\n")
    rows = list(read_rows(dataset(str(path)), Split.TRAIN))
    assert [isinstance(row.value, Problem) for row in rows] == [False, True, False]
    assert (rows[1].line, rows[1].value.field, rows[1].value.found) == (3, "completion", "byte 0xff")


def test_a_csv_row_with_too_many_cells_is_a_bad_row(dataset, tmp_path):
    (tmp_path / "a.csv").write_text("prompt,completion\na,b\nc,d,e\nf\n")
    rows = list(read_rows(dataset(str(tmp_path / "a.csv")), Split.TRAIN))
    assert [getattr(row.value, "found", "") for row in rows] == [
        "", "3 cells for 2 columns", "1 cells for 2 columns",
    ]  # fmt: skip


def test_a_line_longer_than_the_limit_is_a_bad_row_and_not_memory(dataset, tmp_path):
    import tracemalloc

    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(GOOD.encode() + b"\n")
        for _ in range(40):
            file.write(b"x" * 2**20)
        file.write(b"\n" + GOOD.encode())
    tracemalloc.start()
    _, bad, good = read_rows(dataset(str(path)), Split.TRAIN)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (bad.line, bad.value.reason, good.line) == (2, "row too large", 3)
    assert isinstance(good.value, Conversation)
    assert peak < 3 * MAX_ROW_BYTES


def test_a_bad_row_in_a_json_array_is_named_by_its_number(dataset, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(f'[{GOOD}, 5, {{"a": 1, "a": 2}}, {{"a": NaN}}, {GOOD}]')
    rows = list(read_rows(dataset(str(path)), Split.TRAIN))
    assert [(row.line, getattr(row.value, "reason", "")) for row in rows] == [
        (1, ""), (2, "a row is not an object"), (3, "duplicate key"), (4, "NaN or Infinity in JSON"), (5, ""),
    ]  # fmt: skip


def test_a_byte_order_mark_is_no_part_of_the_first_row(dataset, tmp_path):
    for name in ("a.jsonl", "a.json"):
        path = tmp_path / name
        path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n")
        (row,) = read_rows(dataset(str(path)), Split.TRAIN)
        assert isinstance(row.value, Conversation)


WHOLE = {
    "empty": ("a.jsonl", b"", "is empty"),
    "only blank lines": ("a.jsonl", b"\n \n", "has no rows"),
    "an empty array": ("a.json", b"[]", "has no rows"),
    "only a header": ("a.csv", b"prompt,completion\n", "has no rows"),
    "UTF-16": ("a.jsonl", GOOD.encode("utf-16"), "is UTF-16"),
    "UTF-16 without its mark": ("a.jsonl", GOOD.encode("utf-16-le"), "looks like UTF-16"),
    "gzip": ("a.jsonl", b"\x1f\x8b\x08\0", r"is compressed \(gzip\)"),
    "gzip under a table's name": ("a.parquet", b"\x1f\x8b\x08\0", r"is compressed \(gzip\)"),
    "a cut array": ("a.json", b"[" + GOOD.encode() + b", {", "a.json:2: bad JSON"),
    "an array nested without end": ("a.json", b"[" * 200_000, "a.json:1: JSON that cannot be read"),
    "bytes after a key": ("a.json", b'{"v" 1}', "a.json:1: bad JSON: '1' where : must be"),
    "a bad byte in an array": ("a.json", b'[{"prompt": "\xff"}]', "not UTF-8 .*0xff"),
    "a cell beyond all limits": (
        "a.csv", b'prompt,completion\n"' + b"x\n" * (9 << 20) + b'",b\n', "a.csv:2: row too large .*close",
    ),
    "an array without commas": ("a.json", b"[{} {}]", "a.json:2: bad JSON: '{' where , or ]"),
    "an object without data": ("a.json", b'{\n"rows": []}', 'no "data" list'),
    "data that is no list": ("a.json", b'{\n"data": {}}', '"data" is not a list'),
    "an unclosed quote": ("a.csv", b'prompt,completion\na,b\n"c,d\ne,f\n', "a.csv:3: .*never closed"),
    "a column twice": ("a.csv", b"prompt,prompt\na,b\n", "a.csv:1: prompt: two columns have one name"),
    "text named parquet": ("a.parquet", b"hello there", "is not Parquet"),
    "a Parquet file cut short": ("a.parquet", b"PAR1" + b"\0" * 40, "broken Parquet file"),
    "a Parquet footer that lies": ("a.parquet", b"PAR1" + b"x" * 20 + b"\xff\xff\xff\x7fPAR1", "broken"),
    "an Arrow file cut short": ("a.arrow", b"ARROW1\0\0" + b"\xff" * 20, "broken Arrow file"),
    "an unknown kind": ("a.dat", b"hello", "give one of .jsonl"),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_a_broken_file_is_refused_by_name_with_a_fix(name, dataset, tmp_path):
    file, content, said = WHOLE[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        list(read_rows(dataset(str(tmp_path / file)), Split.TRAIN))
    assert caught.value.file == str(tmp_path / file) and caught.value.fix


def test_a_parquet_footer_that_promises_more_rows_is_refused(dataset, tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"prompt": ["a"] * 300, "completion": ["b"] * 300}), path, compression="none")
    whole = path.read_bytes()
    for place in range(
        len(whole) - 400, len(whole) - 8, 5
    ):  # flip each byte of the footer: never a traceback
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            count = len(list(read_rows(dataset(str(path)), Split.TRAIN)))
        except DataError as error:
            assert error.file == str(path)
        else:
            assert count == 300


def test_a_zip_is_refused(dataset, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.jsonl", "w") as archive:
        archive.writestr("../../evil.jsonl", GOOD)
    with pytest.raises(DataError, match="compressed .zip"):
        list(read_rows(dataset(str(tmp_path / "a.jsonl")), Split.TRAIN))


def test_links_folders_devices_and_missing_files_are_refused(dataset, tmp_path, write_rows):
    os.symlink(write_rows([GOOD]), tmp_path / "link.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    said = {
        tmp_path / "link.jsonl": "is a symbolic link.*name the file it points to",
        tmp_path / "pipe.jsonl": "is a device, pipe or socket",
        tmp_path: "is a folder.*name the files in it",
        Path("/dev/zero"): "is a device",
        tmp_path / "absent.jsonl": "there is no such file.*check the path",
    }
    for path, words in said.items():
        with pytest.raises(DataError, match=words):
            list(read_rows(dataset(str(path)), Split.TRAIN))
    with pytest.raises(DataError, match="is not on this machine"):
        list(read_rows(dataset("nowhere://a/b.jsonl"), Split.TRAIN))


def test_a_dataset_in_which_all_rows_are_bad_is_refused_with_the_first_of_them(dataset, write_rows):
    path = write_rows([turns(), "{", turns(None), turns(), '{"messages": []}'])
    with pytest.raises(DataError) as caught:
        inspect(dataset(path))
    said = str(caught.value)
    assert "no row of the train split can be used" in said
    assert f"{path}:1: messages: no assistant turn" in said and f"{path}:2: bad JSON" in said


def test_a_table_whose_columns_are_not_text_has_bad_rows_only(dataset, tmp_path):
    table = pa.table({"prompt": [1, 2], "completion": [[1.5], None]})
    pq.write_table(table, tmp_path / "a.parquet")
    rows = list(read_rows(dataset(str(tmp_path / "a.parquet")), Split.TRAIN))
    assert [(row.line, row.value.reason, row.value.field) for row in rows] == [
        (1, "wrong type", "prompt"), (2, "wrong type", "prompt"),
    ]  # fmt: skip


def test_one_row_is_enough(dataset, write_rows):
    assert inspect(dataset(write_rows([GOOD]))).report.kept == 1


@pytest.mark.parametrize("seed", range(3))
def test_every_row_is_kept_or_counted_with_its_reason_and_place(seed, dataset, write_rows):
    """Against a count that is made as the file is written, which knows nothing of our reader."""
    draw = random.Random(seed)
    lines: list[str] = []
    wanted: dict[str, list[int]] = {}
    kept = 0
    for number in range(1, 3001):
        if draw.random() < 0.5:
            lines.append(draw.choice([GOOD, f"  {GOOD} ", GOOD + "\r", "" if number > 1 else GOOD]))
            kept += bool(lines[-1])
        else:
            line, reason, *_ = BAD[draw.choice([name for name in BAD if name != "deep"])]
            lines.append(line)
            wanted.setdefault(reason, []).append(number)
    path = write_rows(lines)

    report = inspect(dataset(path)).report

    assert (report.kept, report.dropped) == (kept, sum(map(len, wanted.values())))
    assert report.read == report.kept + report.dropped
    assert {entry.reason: (entry.count, entry.where) for entry in report.reasons} == {
        reason: (len(places), [f"{path}:{place}" for place in places[:20]])
        for reason, places in wanted.items()
    }
