"""What events measured, in columns: whole, in order, kept, and read without standing in anybody's way."""

import json

import numpy as np
import pytest

from datatunerx.resources.finetune import CheckpointRef, Progress
from datatunerx.runs.events import Event, EventType
from datatunerx.telemetry import points
from datatunerx.telemetry.events import encode
from datatunerx.telemetry.points import Points


def told(step, job="a", **values):
    return encode(Event(time=1000.0 + step, type=EventType.METRICS, job=job, step=step, values=values))


@pytest.fixture
def events(tmp_path):
    return tmp_path / "run" / "events.jsonl"


@pytest.fixture
def write(events):
    events.parent.mkdir()

    def append(*lines):
        with events.open("ab") as file:
            file.writelines(lines)

    return append


def series(found, name, job="a"):
    records = found.read(job, name)
    return records["step"].tolist(), records["value"].tolist()


def test_what_a_worker_writes_is_found_in_the_columns(events, write):
    ref = CheckpointRef(step=2, uri="file:///c", digest="d", eval_loss=0.5)
    bare = CheckpointRef(step=2, uri="file:///c", digest="d")
    progress = Progress(step=2, steps=4, epoch=0.5, tokens=900, activity="training")
    write(
        told(1, loss=2.0, learningRate=0.5),
        encode(Event(type=EventType.ACTIVITY, activity="loading")),
        encode(Event(time=1002.0, type=EventType.PROGRESS, job="a", step=2, progress=progress)),
        encode(Event(time=1002.0, type=EventType.CHECKPOINT, job="a", step=2, checkpoint=ref)),
        encode(Event(type=EventType.CHECKPOINT, job="b", step=2, checkpoint=bare)),
    )  # fmt: skip
    columns = Points(events)
    assert columns.advance(1) == 0 and columns.behind() == 0
    assert series(columns.seen, "loss") == ([1], [2.0]) and series(columns.seen, "tokens") == ([2], [900.0])
    assert "tokensPerSecond" not in columns.seen.names("a")  # it was not told
    assert series(columns.seen, "checkpoint") == ([2], [0.5])
    assert np.isnan(columns.seen.read("b", "checkpoint")["value"]).all()  # saved, not evaluated
    assert columns.seen.began["a"] == 1001.0
    again = Points(events).seen  # another process
    assert (again.series, again.offset) == (columns.seen.series, events.stat().st_size)


def test_values_that_are_told_in_changing_company_stay_in_order(events, write):
    write(
        told(1, loss=1.0), told(2, loss=2.0, evalLoss=9.0), told(3, loss=3.0), told(4, evalLoss=8.0, loss=4.0)
    )
    columns = Points(events)
    columns.advance(1)
    assert series(columns.seen, "loss") == ([1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0])
    assert series(columns.seen, "evalLoss") == ([2, 4], [9.0, 8.0])


def raw(**changes):
    line = {"time": 1, "job": "a", "step": 3, "values": {"loss": 1}} | changes
    return json.dumps({name: value for name, value in line.items() if value is not None}).encode()


@pytest.mark.parametrize(
    "odd",
    [
        b'{"torn',
        b"[" * 100_000,
        b'{"time": 1, "job": "\xff"}',
        raw(values={"loss": "x"}),
        raw(values={"../loss": 1}),
        raw(step=10**11),
        raw(step=None),
        raw(job="../x"),
        b"[]",
        b"7",
        b"",
    ],
)
def test_a_line_that_is_no_event_takes_no_other_along(events, write, odd):
    write(told(1, loss=1.0), odd + b"\n", told(2, loss=2.0))
    columns = Points(events)
    columns.advance(1)
    assert {job: list(names) for job, names in columns.seen.series.items()} == {"a": ["loss"]}
    assert series(columns.seen, "loss") == ([1, 2], [1.0, 2.0])


def test_what_was_seen_stays_while_more_is_read(events, write, monkeypatch):
    monkeypatch.setattr(points, "CHUNK", 4096)
    write(*(told(step, loss=step) for step in range(1, 2001)))
    columns = Points(events)
    columns.advance(0)  # one chunk
    early = columns.seen
    steps, _ = series(early, "loss")
    assert 0 < len(steps) < 2000 and columns.behind() > 0
    assert columns.advance(30) == 0
    assert series(early, "loss")[0] == steps
    assert series(columns.seen, "loss")[0] == list(range(1, 2001))
    assert early.edges("a", "loss")["step"].tolist() == [1, len(steps)]


def test_a_file_that_was_begun_anew_is_read_anew(events, write):
    write(told(1, loss=1.0), told(2, loss=2.0))
    columns = Points(events)
    columns.advance(1)
    events.write_bytes(told(1, loss=5.0))
    assert columns.behind() == events.stat().st_size
    columns.advance(1)
    assert series(columns.seen, "loss") == ([1], [5.0])


def broken(steps, reports=()):
    return points.broken(np.array(steps), np.array(reports, int)).tolist()


def test_a_line_is_broken_where_a_step_that_is_due_tells_nothing():
    assert broken([1, 2, 3, 6, 7, 9, 10]) == [2, 4]
    assert broken([10, 20, 40, 50, 60, 200]) == [1, 4]
    assert broken([2, 4, 6, 8], reports=range(1, 10)) == [0, 1, 2]  # whatever the distance: it was no number
    assert broken([1, 2, 3], reports=[1, 2, 3]) == broken([3, 4], reports=[1, 2, 9]) == []


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [7],
        [1, 8],
        [10, 20, 30, 40, 43],  # the last step is told, due or not
        [1, 10, 20, 30],  # and so is the first
        [100, 200, 210],
        [100, 130, 200, 260, 300, 390, 400, 500],  # evaluated at every 100 and at every checkpoint
        [33, 67, 100, 133, 167],  # at each third of an epoch
        [10, 20, 23, 30, 40],  # somebody asked for one more
    ],
)
def test_a_line_of_points_that_are_seldom_or_early_is_whole(steps):
    assert broken(steps) == []
