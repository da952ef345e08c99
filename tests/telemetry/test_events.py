import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datatunerx.resources.finetune import Progress
from datatunerx.runs import Event, EventType
from datatunerx.telemetry import events as events_module
from datatunerx.telemetry.events import EventWriter, encode, read_events, read_page


def step(number: int) -> Event:
    return Event(type=EventType.METRICS, job="a", step=number, values={"loss": 1.0})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "events.jsonl"


def test_events_are_read_back_from_an_offset(path):
    writer = EventWriter(path)
    assert read_events(path, 0) == ([], 0)
    writer.write(step(1))
    first, offset = read_events(path, 0)
    writer.write(step(2))
    second, end = read_events(path, offset)
    assert [e.step for e in first + second] == [1, 2]
    assert read_events(path, end) == ([], end)
    assert read_events(path.as_uri(), 0)[1] == end


def test_no_file_is_no_events(path):
    assert read_events(path, 7) == ([], 7)


def test_a_torn_last_line_waits_until_it_is_whole(path):
    path.parent.mkdir()
    head, line = encode(step(0)), encode(step(1))
    for cut in range(len(line)):
        path.write_bytes(head + line[:cut])
        found, offset = read_events(path, 0)
        assert [e.step for e in found] == [0]
    path.write_bytes(head + line)
    assert [e.step for e in read_events(path, offset)[0]] == [1]


def test_a_writer_after_a_dead_one_does_not_glue_its_line_to_the_torn_one(path):
    path.parent.mkdir()
    path.write_bytes(encode(step(1)) + encode(step(2))[:20])
    EventWriter(path).write(step(3))
    page = read_page(path, 0)
    assert [e.step for e in page.events] == [1, 3] and page.skipped == 1


@given(st.binary(max_size=300))
def test_whatever_is_in_the_file_nothing_is_raised_and_reading_ends(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("junk") / "events.jsonl"
    path.write_bytes(junk + b"\n" + encode(step(1)))
    offset, found = 0, []
    for _ in range(100):
        page = read_page(path, offset, limit=400)
        found += page.events
        if page.offset == offset:
            break
        offset = page.offset
    assert offset == path.stat().st_size and [e.step for e in found] == [1]


def test_a_page_is_bounded_and_a_line_longer_than_it_is_passed_over(path):
    path.parent.mkdir()
    path.write_bytes(encode(step(1)) + b"x" * 5000 + b"\n" + encode(step(2)))
    offset, found = 0, []
    while (page := read_page(path, offset, limit=1000)).offset != offset:
        assert page.offset - offset <= 1000
        offset, found = page.offset, found + page.events
    assert [e.step for e in found] == [1, 2]


def test_numbers_that_are_not_finite_are_left_out_and_never_become_zero(path):
    values = {"loss": float("nan"), "gradNorm": float("inf"), "learningRate": 0.1}
    progress = Progress(step=1, tokens_per_second=float("nan"), eta_seconds=float("-inf"))
    EventWriter(path).write(Event(type=EventType.METRICS, values=values, progress=progress))
    document = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} was written"))
    assert document["values"] == {"learningRate": 0.1}
    assert "tokensPerSecond" not in document["progress"] and "etaSeconds" not in document["progress"]


def test_many_threads_and_processes_never_mix_their_lines(path):
    code = (
        "import sys; from datatunerx.telemetry.events import EventWriter; from datatunerx.runs import Event\n"
        "w = EventWriter(sys.argv[1])\n"
        "for n in range(200): w.write(Event(type='warning', step=n, message='m' * 300))"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(path)])
    writer = EventWriter(path)
    threads = [threading.Thread(target=lambda: [writer.write(step(n)) for n in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert other.wait() == 0
    page = read_page(path, 0)
    assert len(page.events) == 600 and page.skipped == 0


def test_a_full_disk_loses_events_counts_them_and_says_so_later(path, monkeypatch):
    writer = EventWriter(path)
    writer.write(step(1))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A size limit fails in the kernel as a full disk does: a short write first, then none.
    monkeypatch.setattr(events_module, "_NO_SPACE", (*events_module._NO_SPACE, 27))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path) + 10, old[1]))
        for number in (2, 3, 4):
            writer.write(step(number))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert writer.lost == 3
    writer.write(step(5))
    found, _ = read_events(path, 0)
    assert [(e.type, e.step) for e in found] == [("metrics", 1), ("warning", None), ("metrics", 5)]
    assert found[1].message is not None and found[1].message.startswith("3 events were lost")
    assert writer.lost == 0


def test_another_error_of_the_disk_stops_nobody_and_is_told_with_its_words(path, monkeypatch, caplog):
    writer = EventWriter(path)
    real = os.write

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", broken)
    writer.write(step(1))
    writer.write(step(2))
    monkeypatch.setattr(os, "write", real)
    writer.write(step(3))

    found, _ = read_events(path, 0)
    assert [e.step for e in found] == [None, 3]
    assert found[0].message == "2 events were lost: [Errno 5] Input/output error"
    assert [record.message for record in caplog.records] == ["events are being lost"]
