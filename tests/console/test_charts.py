"""Curves of jobs beside each other: whole, joined over runs, cut to a picture, and said in words."""

import asyncio
import json
import threading
from types import SimpleNamespace

import pytest

from datatunerx.client import Plural
from datatunerx.console import charts
from datatunerx.resources import GROUP
from datatunerx.resources.wire import VERSION

RUNS = Plural(GROUP, VERSION, "runs")
JOB = "faq-zh-qwen-b"


@pytest.fixture
async def runs(filled, tmp_path):
    """Makes a run of some jobs and what its worker has told of them."""

    async def make(name, plan, jobs, events):
        folder = tmp_path / "home" / "data" / "runs" / (plan * 8)
        folder.mkdir(parents=True)
        (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        spec = {"type": "tune", "planId": plan * 8, "planUri": "file:///p.json"}
        spec["serves"] = [f"Finetune/{job}" for job in jobs]
        metadata = {"name": name}
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Run", "metadata": metadata, "spec": spec}
        await filled.api.create_raw(RUNS, body)
        return folder

    return SimpleNamespace(make=make)


def loss(step, value, time=None, job=JOB):
    return {"time": 1000.0 + (step if time is None else time), "type": "metrics", "job": job, "step": step,
            "values": {"loss": value}}  # fmt: skip


async def drawn(filled, **query):
    asked = "&".join(f"{name}={value}" for name, value in ({"job": JOB, "name": "loss"} | query).items())
    return json.loads(await filled.get(f"charts?{asked}"))[0]


async def test_a_job_that_two_runs_trained_is_one_history(filled, runs):
    await runs.make("x-first", "1", [JOB], [loss(step, 1.0) for step in range(1, 11)])
    await runs.make("x-second", "2", [JOB], [loss(step, 0.5, 100 + step) for step in range(7, 15)])
    found = await drawn(filled)
    steps = [step for curve in found["curves"] for step in curve["x"]]
    assert steps == list(range(1, 15))  # 7 to 10 were done again, and count as they were done last
    assert [curve["y"][0] for curve in found["curves"]] == [1.0, 0.5]
    assert [curve["gaps"] for curve in found["curves"]] == [[], []]
    assert {"job": JOB, "x": 7.0, "step": None} in found["marks"]
    assert set(found["live"]) == {"x-first", "x-second", "run-b"}
    times = await drawn(filled, x="time")
    assert times["curves"][0]["x"][0] == 0 and times["curves"][1]["x"][0] == 106
    assert times["curves"][1]["gaps"] == [[5, 106]]


async def test_a_worker_that_died_and_went_on_in_one_file_tells_no_step_twice(filled, runs):
    events = [loss(step, 1.0) for step in (1, 2, 3, 4)] + [loss(step, 0.5) for step in (3, 4, 5)]
    await runs.make("x", "1", [JOB], events)
    curve = (await drawn(filled))["curves"][0]
    assert (curve["x"], curve["y"]) == ([1, 2, 3, 4, 5], [1, 1, 0.5, 0.5, 0.5])


async def test_a_long_history_is_cut_to_the_picture_with_its_extremes(filled, runs):
    events = [loss(step, 9.0 if step == 5000 else step % 7 / 10) for step in range(1, 10001)]
    await runs.make("x", "1", [JOB], events)
    found = await drawn(filled, bins="100")
    curve = found["curves"][0]
    assert len(found["grid"]) == len(curve["y"]) == 200 and not curve["x"]
    assert max(curve["y"]) == 9.0 and min(curve["y"]) == 0.0
    near = await drawn(filled, bins="100", **{"from": "4990", "to": "5010"})
    assert near["grid"] is None and 5000 in near["curves"][0]["x"]


async def test_what_was_read_is_not_read_again_and_what_is_new_is_added(filled, runs):
    folder = await runs.make("x", "1", [JOB], [loss(1, 1.0), loss(2, 0.8)])
    first = await drawn(filled)
    state = (folder / "points/state.json").read_text()
    assert json.loads(state)["offset"] == (folder / "events.jsonl").stat().st_size == first["live"]["x"]
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps(loss(3, 0.6)) + '\n{"torn')
    assert (await drawn(filled))["curves"][0]["y"] == pytest.approx([1.0, 0.8, 0.6])
    (folder / "points/state.json").write_text("{}")  # a crash, or another version of us
    from datatunerx.server import curves

    curves.known.forget()
    assert (await drawn(filled))["curves"][0]["y"] == pytest.approx([1.0, 0.8, 0.6])


async def test_a_long_history_is_read_beside_what_is_drawn_run_by_run(filled, runs, monkeypatch):
    from datatunerx.server import curves
    from datatunerx.telemetry.points import Points

    monkeypatch.setattr(curves, "AT_ONCE", 0)
    slow, advance = threading.Event(), Points.advance
    monkeypatch.setattr(Points, "advance", lambda points, seconds: slow.wait(20) and advance(points, seconds))
    for name, plan in (("x-first", "1"), ("x-second", "2")):
        await runs.make(name, plan, [JOB], [loss(step, 1.0, 100 * int(plan) + step) for step in range(1, 11)])
    early = await drawn(filled)
    assert early["behind"] > 0 and not early["curves"]  # answered while not a line was read
    assert early["runs"] == [1, 3]  # run-b has no events at all
    slow.set()
    async with asyncio.timeout(20):
        while (found := await drawn(filled))["behind"]:
            await asyncio.sleep(0.02)
    assert found["runs"] == [3, 3]
    assert {step for curve in found["curves"] for step in curve["x"]} == set(range(1, 11))


async def test_a_curve_is_broken_where_the_job_reported_no_number_or_nothing(filled, runs):
    events = [loss(step, 1.0) for step in (1, 2, 3, 4, 5, 6, 7, 8, 12, 13)]
    for event in events:
        event["values"]["learningRate"] = 0.1
    del events[4]["values"]["loss"]
    await runs.make("x", "1", [JOB], events)
    curve = (await drawn(filled))["curves"][0]
    assert curve["gaps"] == [[4, 6], [8, 12]] and None not in curve["y"]
    assert (await drawn(filled, name="learningRate"))["curves"][0]["gaps"] == [[8, 12]]
    assert (await drawn(filled, x="time"))["curves"][0]["gaps"] == [[3, 5], [7, 11]]
    assert (await drawn(filled, **{"from": "9", "to": "11"}))["curves"][0]["gaps"] == [[8, 12]]
    assert (await drawn(filled, **{"from": "1", "to": "3"}))["curves"][0]["gaps"] == []


async def test_a_cut_curve_is_broken_where_it_can_be_seen(filled, runs):
    events = [loss(step, step % 7 / 10) for step in range(1, 10001) if step != 77 and not 4000 < step < 5000]
    await runs.make("x", "1", [JOB], events)
    assert (await drawn(filled, bins="100"))["curves"][0]["gaps"] == [[4000, 5000]]
    near = await drawn(filled, bins="100", **{"from": "70", "to": "80"})
    assert near["curves"][0]["gaps"] == [[76, 78]]


def test_between_two_runs_is_a_gap_where_steps_are_left_out():
    first, next_on, later = ([step, 12.0 * step, 0.5] for step in (40, 50, 90))
    before, on = charts.Part([10, 120.0, 0.9], first, 15.0), charts.Part(next_on, later, 15.0)
    assert charts.between(None, on, "step") == charts.between(before, on, "step") == []
    assert charts.between(before, on, "time") == [[480, 600]]  # nobody trained meanwhile
    assert charts.between(before, charts.Part(later, later, 0.0), "step") == [[480, 1080]]
    assert charts.between(charts.Part(first, first, 0.0), charts.Part(later, later, 0.0), "step") == []


async def test_smoothing_is_the_moving_average_of_every_point(filled, runs):
    values = [1.0, 0.0, 0.5, 0.25]
    await runs.make("x", "1", [JOB], [loss(step, value) for step, value in enumerate(values, 1)])
    curve = (await drawn(filled, smooth="0.5"))["curves"][0]
    assert curve["smooth"] == pytest.approx([1.0, 0.5, 0.5, 0.375])


async def test_odd_lines_and_strange_queries_do_no_harm(filled, runs):
    odd = [
        {"type": "metrics"},
        loss(1, 1.0, job="../../x"),
        loss(-1, 1.0),
        [],
        "metrics",
        loss(1, 1.0),
        loss(2, "x"),
        loss(3, 1.0) | {"values": {"a/b": 1.0}},
    ]
    await runs.make("x", "1", [JOB], odd)
    for query in ({}, {"x": "nonsense"}, {"bins": "-3"}, {"from": "nan"}, {"smooth": "9"}, {"to": "1e400"}):
        assert (await drawn(filled, **query))["curves"][0]["y"] == [1.0]


async def test_the_table_of_a_chart_has_every_point(filled, runs):
    await runs.make("x", "1", [JOB], [loss(1, 0.5), loss(2, 0.25)])
    text = await filled.get(f"charts.csv?job={JOB}&name=loss")
    assert text.splitlines() == ["job,run,step,loss", f"{JOB},x,1.0,0.5", f"{JOB},x,2.0,0.25"]


def facts(*points):
    ends = {"first": points[0], "last": points[-1], "level": points[-1][2]}
    return ends | {"lowest": min(points, key=lambda p: p[2]), "highest": max(points, key=lambda p: p[2])}


def test_a_sentence_says_what_the_curve_shows():
    risen, falls = facts([100, 1, 0.9], [400, 2, 0.5], [600, 3, 0.7]), facts([100, 1, 0.9], [600, 3, 0.4])
    text, values = charts.sentence("evalLoss", {"a": risen}, {"a": "a"}, {"a": {300: None, 420: None}})
    assert text.format(**values) == "It has risen since step 400 (0.5); checkpoint 420 is best."
    text, values = charts.sentence("evalLoss", {"a": risen}, {"a": "a"}, {"a": {100: 0.9, 600: 0.7}})
    assert values["checkpoint"] == 600  # by what was measured, not by nearness
    text, values = charts.sentence("evalLoss", {"a": falls}, {"a": "a"}, {})
    assert text.format(**values) == "Still falling: 0.4 at step 600 is the lowest so far."
    text, values = charts.sentence("evalLoss", {"a": risen, "b": falls}, {"a": "a", "b": "b"}, {})
    assert text.format(**values) == "b is lowest, 0.4 at step 600. The curve rises again in 1 of 2 jobs."
    text, values = charts.sentence("evalScore", {"a": risen, "b": falls}, {"a": "a", "b": "b"}, {})
    assert text.format(**values) == "a is highest, 0.9 at step 100."
    assert charts.sentence("loss", {}, {}, {}) is None


def test_the_colour_of_a_job_does_not_change_when_others_come():
    jobs = [
        {"metadata": {"name": f"j{n:02}", "creationTimestamp": f"2026-01-01T00:00:{n:02}Z"}}
        for n in range(20)
    ]
    few, all_of_them = charts.hues(jobs[:9]), charts.hues(jobs[::-1])
    assert few.items() <= all_of_them.items()
    assert len(set(all_of_them.values())) == 20
