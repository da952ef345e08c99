"""Every format in every kind of file says the same conversation."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datatunerx.data import Conversation, DataError, Problem, read_rows
from datatunerx.data.rows import recognised
from datatunerx.resources.enums import DataFormat, Split

SAID = [{"role": "user", "content": "Où?\nHere,"}, {"role": "assistant", "content": 'At "home" 😀'}]
MORE = [{"role": "user", "content": "Two"}, {"role": "assistant", "content": "2"}]
WRITTEN: dict[str, list[dict[str, Any]]] = {
    "messages": [{"messages": SAID}, {"messages": MORE}],
    "sharegpt": [
        {"conversations": [{"from": "human", "value": a["content"]}, {"from": "gpt", "value": b["content"]}]}
        for a, b in (SAID, MORE)
    ],
    "alpaca": [
        {"instruction": "Où?\nHere,", "input": "", "output": 'At "home" 😀'},
        {"instruction": "Two", "input": "", "output": "2"},
    ],
    "prompt-completion": [{"prompt": a["content"], "completion": b["content"]} for a, b in (SAID, MORE)],
}


def write(rows: list[dict[str, Any]], path: Path) -> None:
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        case ".json":
            path.write_text(json.dumps(rows if path.stem == "array" else {"v": 1, "data": rows}, indent=1))
        case ".csv" | ".tsv":
            with path.open("w", encoding="utf-8-sig", newline="") as file:
                writer = csv.DictWriter(file, rows[0], delimiter="," if path.suffix == ".csv" else "\t")
                writer.writeheader()
                cells = (
                    {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows
                )
                writer.writerows(cells)
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case ".arrow":
            table = pa.Table.from_pylist(rows)
            made = pa.ipc.new_file if path.stem == "file" else pa.ipc.new_stream
            with made(str(path), table.schema) as sink:
                sink.write_table(table)


FILES = ["a.jsonl", "array.json", "object.json", "a.csv", "a.tsv", "a.parquet", "file.arrow", "stream.arrow"]


@pytest.mark.parametrize("format", WRITTEN)
@pytest.mark.parametrize("name", FILES)
def test_every_format_is_recognised_in_every_kind_of_file(name, format, tmp_path, dataset):
    write(WRITTEN[format], tmp_path / name)

    rows = list(read_rows(dataset(str(tmp_path / name)), Split.TRAIN))

    assert [row.value for row in rows] == [Conversation(SAID), Conversation(MORE)]
    assert all(row.file == str(tmp_path / name) for row in rows)


def test_a_text_row_is_known_by_its_line_and_a_table_row_by_its_number(tmp_path, dataset, write_rows):
    write(WRITTEN["alpaca"], tmp_path / "a.csv")
    write(WRITTEN["alpaca"], tmp_path / "a.parquet")
    lines = write_rows(["", json.dumps({"messages": SAID}), "", json.dumps({"messages": MORE})])

    def numbers(uri: str) -> list[int]:
        return [row.line for row in read_rows(dataset(uri), Split.TRAIN)]

    assert numbers(lines) == [2, 4]
    assert numbers(str(tmp_path / "a.csv")) == [2, 4]  # the first row's text holds a line break
    assert numbers(str(tmp_path / "a.parquet")) == [1, 2]


def test_alpaca_history_input_and_system_become_turns(dataset, write_rows):
    row = {"system": "Be brief.", "history": [["a", "b"]], "instruction": "c", "input": "d", "output": "e"}
    (read,) = read_rows(dataset(write_rows([row])), Split.TRAIN)
    assert [(m["role"], m["content"]) for m in read.value.messages] == [
        ("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c\n\nd"), ("assistant", "e"),
    ]  # fmt: skip


def test_tool_turns_and_parts_of_text_are_kept(dataset, write_rows):
    call = [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]
    turns = [
        {"role": "developer", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": call},
        {"role": "tool", "content": "1", "tool_call_id": "t"},
        {"role": "assistant", "content": "done"},
    ]
    (read,) = read_rows(dataset(write_rows([{"messages": turns}])), Split.TRAIN)
    assert read.value.messages[:2] == [{"role": "system", "content": "s"}, {"role": "user", "content": "ab"}]
    assert read.value.messages[2] == {"role": "assistant", "content": "", "tool_calls": call}
    assert read.value.messages[3] == {"role": "tool", "content": "1", "tool_call_id": "t"}


ASKED: dict[str, Any] = {"role": "user", "content": "q"}
GOOD, BAD = ({"role": "assistant", "content": text} for text in "gb")
PLAIN = Conversation([ASKED, GOOD])
PAIR = Conversation([ASKED, GOOD], rejected=[ASKED, BAD])
SYSTEM = {"role": "system", "content": "s"}
SPELT: dict[str, tuple[str, dict[str, Any], Conversation]] = {
    "question and answer": ("prompt-completion", {"question": "q", "answer": "g"}, PLAIN),
    "query and response": ("prompt-completion", {"query": "q", "response": "g"}, PLAIN),
    "input and output": ("prompt-completion", {"input": "q", "output": "g"}, PLAIN),
    "dolly": (
        "alpaca", {"instruction": "q", "context": "", "response": "g", "category": "c"},
        PLAIN,
    ),
    "turns in both": (
        "prompt-completion", {"prompt": [SYSTEM, ASKED], "completion": [GOOD]},
        Conversation([SYSTEM, ASKED, GOOD]),
    ),
    "roles of sharegpt": (
        "sharegpt",
        {"system": "s", "conversation": [{"from": "human", "value": "q"}, {"from": "chatgpt", "value": "g"}]},
        Conversation([SYSTEM, ASKED, GOOD]),
    ),
    "messages named conversations": ("sharegpt", {"conversations": [ASKED, GOOD]}, PLAIN),
    "xtuner": (
        "sharegpt",
        {"conversation": [{"system": "s", "input": "q", "output": "g"}, {"input": "q", "output": "b"}]},
        Conversation([SYSTEM, ASKED, GOOD, ASKED, BAD]),
    ),
    "a pair of texts": (
        "preference", {"prompt": "q", "chosen": "g", "rejected": "b"},
        PAIR,
    ),
    "a pair of turns": (
        "preference", {"prompt": [SYSTEM, ASKED], "chosen": [GOOD], "rejected": [BAD]},
        Conversation([SYSTEM, ASKED, GOOD], rejected=[SYSTEM, ASKED, BAD]),
    ),
    "a pair of whole conversations": (
        "preference",
        {"prompt": "q", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD], "messages": [ASKED, GOOD]},
        PAIR,
    ),
    "a pair without a prompt": (
        "preference", {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
        PAIR,
    ),
    "a pair under turns": (
        "preference",
        {
            "conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "g"},
            "rejected": {"from": "gpt", "value": "b"},
        },
        PAIR,
    ),
    "a labelled answer": (
        "labelled", {"prompt": "q", "completion": "b", "label": False},
        Conversation([ASKED, BAD], label=False),
    ),
    "labelled turns": (
        "labelled", {"messages": [ASKED, GOOD], "kto_tag": True}, Conversation([ASKED, GOOD], label=True),
    ),
    "a class is no label": (
        "prompt-completion", {"prompt": "q", "completion": "g", "label": "sport"}, PLAIN,
    ),
    "plain text": ("text", {"text": "Once.", "id": 3}, Conversation([{"role": "text", "content": "Once."}])),
}  # fmt: skip


@pytest.mark.parametrize("name", SPELT)
def test_the_usual_spellings_are_recognised(name, dataset, write_rows):
    format, row, said = SPELT[name]
    files = dataset(write_rows([row]))
    (read,) = read_rows(files, Split.TRAIN)
    assert read.value == said
    assert recognised(files) == format


def test_tools_and_calls_are_taken_in_every_way_they_are_written(dataset, write_rows):
    bare = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    full = {"type": "function", "function": bare}
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    text_call = {"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    openai = [ASKED, {"role": "assistant", "content": None, "tool_calls": [text_call]}, GOOD]
    sharegpt = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
        {"from": "observation", "value": "1"}, {"from": "gpt", "value": "g"},
    ]  # fmt: skip
    plain = write_rows([{"messages": [ASKED, GOOD]}, {"messages": openai, "tools": [full]}], "a.jsonl")
    spelt = write_rows([{"conversations": sharegpt, "tools": json.dumps([bare])}], "b.jsonl")
    first, second, third = read_rows(dataset(plain, spelt), Split.TRAIN)
    assert first.value.tools == []
    assert second.value.tools == third.value.tools == [full]
    assert second.value.messages[1] == third.value.messages[1] == {
        "role": "assistant", "content": "", "tool_calls": [call],
    }  # fmt: skip


def test_pairs_that_teach_nothing_are_bad_rows(dataset, write_rows):
    rows = [
        {"prompt": "q", "chosen": "g", "rejected": "b"},
        {"prompt": "q", "chosen": "g", "rejected": "g"},
        {"prompt": "q", "chosen": "g", "rejected": None},
        {"chosen": "g", "rejected": "b"},
        {"chosen": [ASKED, GOOD], "rejected": [{"role": "user", "content": "z"}, BAD]},
        {"prompt": "other", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
    ]
    read = list(read_rows(dataset(write_rows(rows)), Split.TRAIN))
    assert [getattr(row.value, "reason", "") for row in read] == [
        "", "chosen and rejected are the same", "null turn", "no prompt",
        "chosen and rejected begin otherwise", "another prompt",
    ]  # fmt: skip


def test_two_columns_that_could_both_be_meant_are_not_chosen_between(dataset, write_rows):
    path = write_rows([{"question": "q", "answer": "a", "response": "b"}])
    with pytest.raises(DataError, match="columns answer, question, response are no known format"):
        list(read_rows(dataset(path), Split.TRAIN))
    (read,) = read_rows(dataset(path, features={"completion": "answer"}), Split.TRAIN)
    assert read.value.messages[1]["content"] == "a"


def test_the_chosen_answers_alone_are_read_only_when_asked_for(dataset, write_rows):
    path = write_rows([{"prompt": "q", "chosen": "g", "rejected": "b"}])
    (read,) = read_rows(dataset(path, features={"completion": "chosen"}), Split.TRAIN)
    assert read.value == Conversation([ASKED, GOOD])


def test_lines_of_a_text_file_are_rows(dataset, tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffOne.\r\n\n Two é.\n".encode() + b"\xff\nlast")
    read = list(read_rows(dataset(str(tmp_path / "a.txt")), Split.TRAIN))
    assert [(row.line, getattr(row.value, "reason", "")) for row in read] == [
        (1, ""), (3, ""), (4, "not UTF-8"), (5, ""),
    ]  # fmt: skip
    assert [row.value.messages[0]["content"] for row in read if row.line != 4] == ["One.", " Two é.", "last"]


def test_a_spreadsheet_is_read_as_it_is_shown(dataset, tmp_path):
    from datetime import date

    from openpyxl import Workbook

    book = Workbook()
    sheet = book.active
    for row in (
        ["prompt", "completion"],
        ["q", 42],
        ["when", date(2026, 1, 31)],
        [],
        ["yes?", True],
        ["x", "g", "over"],
    ):
        sheet.append(row)
    book.create_sheet("empty")
    book.save(tmp_path / "a.xlsx")
    read = list(read_rows(dataset(str(tmp_path / "a.xlsx")), Split.TRAIN))
    assert [(row.line, getattr(row.value, "reason", "")) for row in read] == [
        (2, ""), (3, ""), (5, ""), (6, "wrong number of cells"),
    ]  # fmt: skip
    assert [row.value.messages[1]["content"] for row in read[:3]] == ["42", "2026-01-31", "true"]


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_a_csv_may_be_separated_by_another_character(mark, dataset, tmp_path):
    (tmp_path / "a.csv").write_text(f'prompt{mark}completion\n"a, b"{mark}c\n')
    (read,) = read_rows(dataset(str(tmp_path / "a.csv")), Split.TRAIN)
    assert [m["content"] for m in read.value.messages] == ["a, b", "c"]


@pytest.mark.parametrize("name", ["a.parquet", "file.arrow"])
def test_tables_may_hold_their_texts_in_any_encoding(name, dataset, tmp_path):
    turn = pa.struct([("role", pa.dictionary(pa.int8(), pa.string())), ("content", pa.string())])
    labels = pa.array(["true", "false"]).dictionary_encode()
    rows = {"messages": pa.array([SAID, MORE], pa.list_(turn)), "label": labels}
    views = {"prompt": pa.array(["q"], pa.string_view()), "completion": pa.array(["g"], pa.string_view())}
    for number, columns in enumerate((rows, views)):
        if number and name == "a.parquet":
            continue  # it has no such thing
        table = pa.table(columns)
        if name == "a.parquet":
            pq.write_table(table, tmp_path / name)
        else:
            with pa.ipc.new_file(str(tmp_path / name), table.schema) as sink:
                sink.write_table(table)
        read = [row.value for row in read_rows(dataset(str(tmp_path / name)), Split.TRAIN)]
        assert read == (
            [PLAIN] if number else [Conversation(SAID, label=True), Conversation(MORE, label=False)]
        )


def test_of_a_table_only_the_columns_that_matter_are_read(dataset, tmp_path, monkeypatch):
    rows = [{"prompt": "p", "completion": "c", "vector": [0.5] * 10, "other": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    asked = []
    real = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda self, **more: asked.append(more["columns"]) or real(self, **more),
    )
    (read,) = read_rows(dataset(str(tmp_path / "a.parquet")), Split.TRAIN)
    assert read.value.messages[1]["content"] == "c" and asked == [["prompt", "completion"]]


def test_columns_under_other_names_are_mapped(dataset, write_rows):
    path = write_rows([{"q": "a", "a": "b", "prompt": 3}])
    files = dataset(path, features={"prompt": "q", "completion": "a"})
    (read,) = read_rows(files, Split.TRAIN)
    assert [m["content"] for m in read.value.messages] == ["a", "b"]


def test_a_mapping_of_a_part_that_the_format_has_not_is_refused(dataset, write_rows):
    path = write_rows([{"q": "a", "a": "b"}])
    files = dataset(path, format=DataFormat.PROMPT_COMPLETION, features={"question": "q"})
    with pytest.raises(DataError, match=r"features\.question.*no part 'question'.*prompt, completion"):
        list(read_rows(files, Split.TRAIN))


def test_unknown_columns_are_named_with_the_formats_we_know(dataset, write_rows):
    with pytest.raises(DataError, match=r"train\.jsonl: columns a, q are no known format .*instruction"):
        list(read_rows(dataset(write_rows([{"q": "a", "a": "b"}])), Split.TRAIN))


def test_a_file_that_a_package_ships_is_found_without_importing_it(
    dataset, tmp_path, monkeypatch, write_rows
):
    (tmp_path / "shipped" / "sets").mkdir(parents=True)
    (tmp_path / "shipped" / "__init__.py").write_text("raise RuntimeError('imported')")
    write_rows([{"messages": SAID}], "shipped/sets/a.jsonl")
    monkeypatch.syspath_prepend(str(tmp_path))

    (read,) = read_rows(dataset("pkg://shipped/sets/a.jsonl"), Split.TRAIN)

    assert read.where == "pkg://shipped/sets/a.jsonl:1"
    with pytest.raises(DataError, match="is not pkg://module/file"):
        list(read_rows(dataset("pkg://shipped/../secret.jsonl"), Split.TRAIN))
    with pytest.raises(DataError, match="no package 'not_shipped' is installed"):
        list(read_rows(dataset("pkg://not_shipped/a.jsonl"), Split.TRAIN))


def test_a_file_uri_is_read(dataset, write_rows):
    path = write_rows([{"messages": SAID}], "with space.jsonl")
    assert len(list(read_rows(dataset(Path(path).as_uri()), Split.TRAIN))) == 1


def test_a_json_array_larger_than_a_chunk_is_read_row_by_row(dataset, tmp_path):
    text = "é" * 700_000
    rows = [{"prompt": text, "completion": str(i)} for i in range(4)]
    (tmp_path / "a.json").write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    read = list(read_rows(dataset(str(tmp_path / "a.json")), Split.TRAIN))
    assert [row.value.messages[1]["content"] for row in read] == ["0", "1", "2", "3"]


def test_a_json_file_of_lines_is_read_as_lines(dataset, write_rows):
    path = write_rows([{"messages": SAID}, {"messages": []}], "a.json")
    good, bad = read_rows(dataset(path), Split.TRAIN)
    assert isinstance(good.value, Conversation)
    assert isinstance(bad.value, Problem) and bad.line == 2
