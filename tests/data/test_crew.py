"""Several processes make of data what one makes, and none of them outlives the work."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datatunerx.data import DataError, inspect, read_rows, tokenise
from datatunerx.data import pieces as pieces_module
from datatunerx.data import rows as rows_module
from datatunerx.data.crew import CrewError, in_order, num_processes
from datatunerx.data.pieces import ProcessEnded, of_split, processes_for, rows_of
from datatunerx.resources.enums import Split, TooLong, Untrainable
from datatunerx.resources.material import AutoSplit


def crew() -> list[psutil.Process]:
    """The processes below this one that belong to a crew."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if "data.crew" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture
def tokenised(tokenizer_dir, tmp_path):
    def make(files: Any, processes: int, split: Split = Split.TRAIN, **more: Any) -> Any:
        settings = {
            "tokenizer_dir": tokenizer_dir, "template": None, "cutoff_length": 60,
            "too_long": TooLong.SPLIT, "untrainable": Untrainable.DROP,
            "cache_dir": tmp_path / str(processes),
        } | more  # fmt: skip
        return tokenise(files, split, processes=processes, **settings)

    return make


def uneven(chat_row, count: int) -> list[Any]:
    """Rows of all lengths, some of them broken, some without an answer, some twice."""
    rows = [chat_row(f"why {i % 90} " * (i % 23 + 1), f"so {i} " * (i % 13)) for i in range(count)]
    for number, odd in {
        3: "{broken",
        40: chat_row("no answer"),
        41: "",
        77: '{"messages": 1}',
        90: "[]",
    }.items():
        rows[number:number] = [odd]
    return rows


# -- the same, in one process and in several


LINE = st.sampled_from(
    [
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "%d"}]}' % n
        for n in range(9)
    ]
    + [b"", b"   ", b"{broken", b'{"other": 1}', b"\xff\xfe", b'{"messages": null}', b"\r"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    lines=st.lists(LINE, min_size=1, max_size=30), ends=st.sampled_from([b"", b"\n", b"\r\n"]),
    bom=st.sampled_from([b"", b"\xef\xbb\xbf"]), size=st.integers(1, 400), share=st.sampled_from([0, 0.3]),
)  # fmt: skip
@pytest.mark.parametrize("split", Split)
def test_rows_read_in_pieces_are_those_of_the_whole(split, lines, ends, bom, size, share, tmp_path, dataset):
    path = tmp_path / "d.jsonl"
    path.write_bytes(bom + b"\n".join(lines) + ends)
    files = dataset(str(path), auto_split=AutoSplit(validate=share, test=share / 2))

    def read(rows) -> Any:
        try:
            return list(rows)
        except DataError as error:
            return str(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces_module, "PIECE_BYTES", size)
        pieced = read(row for piece in of_split(files, split, 1) for row in rows_of(piece, files))
    assert pieced == read(read_rows(files, split))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_one_process_and_three_write_the_same_bytes(
    kind, tokenised, dataset, chat_row, write_rows, tmp_path, monkeypatch
):
    monkeypatch.setattr(pieces_module, "PIECE_BYTES", 3000)
    monkeypatch.setattr(rows_module, "BATCH_ROWS", 40)  # of files that are not cut
    if kind == "jsonl":
        paths = [write_rows(uneven(chat_row, 250), f"{n}.jsonl") for n in range(2)]
    else:
        paths = [str(tmp_path / "d.csv")]
        rows = "".join(f"why {n} {'x ' * (n % 31)},so {n}\n" for n in range(700))
        Path(paths[0]).write_text("prompt,completion\n" + rows)
    files = dataset(*paths, auto_split=AutoSplit(validate=0.1, test=0.1))

    for split in (Split.TRAIN, Split.TEST) if kind == "jsonl" else (Split.TRAIN,):
        one, three = (tokenised(files, processes, split) for processes in (1, 3))
        assert len(one) > 20 and one.folder.name == three.folder.name
        for file in one.folder.iterdir():
            assert file.read_bytes() == (three.folder / file.name).read_bytes(), (split, file.name)
    assert crew() == []


@pytest.mark.slow
def test_one_process_and_three_find_the_same(
    dataset, chat_row, write_rows, tokenizer_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(pieces_module, "PIECE_BYTES", 3000)
    train = write_rows(uneven(chat_row, 250))
    test = write_rows(uneven(chat_row, 100)[50:], "test.jsonl")
    files = dataset(train, splits={Split.TEST: [test]}, auto_split=AutoSplit(validate=0.1, test=0))
    reports = [tmp_path / f"{processes}.json" for processes in (1, 3)]
    one, three = (
        inspect(files, tokenizer_dir, None, path, processes=processes)
        for path, processes in zip(reports, (1, 3), strict=True)
    )
    assert one.report == three.report and one.report.overlap and one.report.overlap.duplicates
    written = [json.loads(path.read_text()) | {"reportUri": ""} for path in reports]
    assert written[0] == written[1] and len(written[0]["preview"]) == 3


@pytest.mark.slow
def test_the_first_bad_row_is_told_whoever_finds_it(tokenised, dataset, chat_row, write_rows, monkeypatch):
    monkeypatch.setattr(pieces_module, "PIECE_BYTES", 1000)
    rows = [chat_row("a", "b")] * 150
    rows[120] = rows[60] = chat_row("a", "long " * 99)
    path = write_rows(rows)
    for processes in (1, 3):
        with pytest.raises(DataError, match=rf"^{path}:61: longer than cutoffLength"):
            tokenised(dataset(path), processes, too_long=TooLong.ERROR)
    assert crew() == []


def test_little_data_is_worth_one_process_and_cores_bound_the_others(dataset, tmp_path, monkeypatch):
    path = tmp_path / "d.jsonl"
    path.write_bytes(b"x" * 1000)
    assert processes_for(dataset(str(path)), Split.TRAIN) == 1
    os.truncate(path, 1 << 30)
    assert processes_for(dataset(str(path)), Split.TRAIN) == num_processes()
    assert processes_for(dataset(path.as_uri()), Split.TEST) == num_processes()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert processes_for(dataset(str(path)), Split.TRAIN) == 1


# -- what ends badly


@pytest.mark.slow
def test_a_process_that_is_killed_is_told_with_file_and_line_and_leaves_nothing(
    tokenised, dataset, chat_row, write_rows, tmp_path, monkeypatch
):
    monkeypatch.setattr(pieces_module, "PIECE_BYTES", 1000)
    path = write_rows([chat_row(f"a {n}", "b") for n in range(400)])
    killed: list[int] = []

    def kill(rows: int, speed: float, total: int, doing: str) -> None:
        if not killed:
            lead = min(crew(), key=lambda process: process.pid)
            killed.append(next(one for one in crew() if one.ppid() == lead.pid).pid)
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(
        ProcessEnded, match=rf"^{path}:\d+: the process .* was ended by SIGKILL\. Fix: "
    ) as told:
        tokenised(dataset(path), 2, on_progress=kill)
    assert told.value.line > 1
    assert list((tmp_path / "2" / "tokens").glob("[!.]*")) == [] and crew() == []
    assert not [one for one in (tmp_path / "2" / "tokens").iterdir() if one.name != ".lock"]


@pytest.mark.slow
def test_how_a_process_ended_is_told():
    for thing, said in ((9, "was ended by SIGKILL"), (15, None)):
        answers = in_order(signal.raise_signal, [0, 0, thing, 0], 2)
        if said:
            with pytest.raises(CrewError, match=said) as told:
                list(answers)
            assert told.value.thing == thing
        else:  # the asker hears of these, and ends the others
            assert list(answers) == [None] * 4
    assert crew() == []


PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from datatunerx.data.crew import in_order
for _ in in_order(time.sleep, [0.1] + [float(sys.argv[1])] * 20, 2):
    print("one", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_its_asker(number):
    words = [sys.executable, "-c", PROGRAM, "60"]
    asker = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert asker.stdout and asker.stdout.readline() == b"one\n"
    below = psutil.Process(asker.pid).children(recursive=True)
    assert len(below) == 3
    asker.send_signal(number)
    asker.wait(20)
    asker.stdout.close()
    deadline = time.monotonic() + 30
    while any(one.is_running() for one in below) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [one for one in below if one.is_running()]
