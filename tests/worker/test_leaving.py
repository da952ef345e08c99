"""Stopped, suspended, killed: what was trained stays, and is taken up again."""

import os
import signal
import time

import pytest

from datatunerx.resources.enums import FinetunePhase, RunPhase

pytestmark = pytest.mark.slow
LONG = {"maxSteps": 20000, "saveEvery": 10}


def at_step(step):
    return lambda event: event.progress is not None and event.progress.step >= step


def first_step(room, plan, job):
    return next(e.progress.step for e in room.events(plan) if e.type == "progress" and e.job == job)


def test_after_a_kill_training_goes_on_from_the_last_whole_checkpoint_and_no_finished_job_is_repeated(room):
    data = room.data(test=room.rows(3))
    measure = room.measure(data)
    short = room.job("short", data, measure, maxSteps=5)
    jobs = [short, room.job("long", data, measure, maxSteps=3000, saveEvery=20)]
    plan = room.tune([data], jobs)
    worker = room.start(plan)
    room.wait_for(plan, lambda e: e.type == "checkpoint" and e.job == "long" and e.step >= 40)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert not (room.folder(plan) / "result.json").exists()
    reached = max(e.step for e in room.events(plan) if e.type == "checkpoint" and e.job == "long")

    # The same trainings in another run, as after a retry; the long one is told to stop there.
    again = room.tune([data], jobs, salt="attempt 1")
    room.say(again, verb="stop", job="long")
    code, result = room.run(again)
    assert code == 0, room.log(again)
    outcomes = result.jobs
    assert (outcomes["short"].phase, outcomes["short"].step) == (FinetunePhase.SUCCEEDED, 5)
    assert not [e for e in room.events(again) if e.type == "progress" and e.job == "short"]
    assert outcomes["long"].phase is FinetunePhase.STOPPED and outcomes["long"].step >= reached
    assert outcomes["long"].step < reached + 20
    assert {score.subject for score in result.scores} == {"short"}


def test_a_job_can_be_stopped_and_kept_or_suspended_while_its_neighbours_train_on(room):
    data = room.data()
    names = ("kept", "discarded", "suspended", "neighbour")
    jobs = [room.job(name, data, **LONG) for name in names]
    plan = room.tune([data], jobs)
    worker = room.start(plan)
    room.wait_for(plan, at_step(3))
    (room.folder(plan) / "commands").mkdir()
    (room.folder(plan) / "commands" / "junk.json").write_text("{}")
    room.say(plan, verb="stop", job="kept")
    room.say(plan, verb="stop", job="discarded", mode="discard")
    room.say(plan, verb="suspend", job="suspended")
    room.wait_for(plan, lambda e: e.type == "job" and e.job == "suspended")
    seen = len(room.events(plan))
    room.wait_for(
        plan, lambda e: e in room.events(plan)[seen:] and e.type == "progress" and e.job == "neighbour"
    )
    room.say(plan, verb="stop", job="neighbour")
    assert worker.wait(timeout=60) == 0, room.log(plan)

    outcomes = room.result(plan).jobs
    assert [outcomes[name].phase.value for name in names] == ["Stopped", "Stopped", "Suspended", "Stopped"]
    assert outcomes["kept"].checkpoint.step == outcomes["kept"].step >= 3
    assert outcomes["suspended"].checkpoint.step == outcomes["suspended"].step
    assert outcomes["neighbour"].step > outcomes["kept"].step
    discarded = outcomes["discarded"].checkpoint
    assert discarded is None or discarded.step % 10 == 0
    warnings = [e.message for e in room.events(plan) if e.type == "warning"]
    assert any("junk.json is no command" in text for text in warnings)


def test_a_worker_asked_to_leave_saves_every_job_and_says_it_was_stopped(room):
    data = room.data()
    plan = room.tune([data], [room.job(name, data, **LONG) for name in "ab"])
    worker = room.start(plan)
    room.wait_for(plan, at_step(3))
    asked = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=60) == 3
    assert time.monotonic() - asked < 15
    result = room.result(plan)
    assert result.phase is RunPhase.STOPPED
    for outcome in result.jobs.values():
        assert outcome.phase is FinetunePhase.SUSPENDED and outcome.checkpoint.step == outcome.step >= 3

    again = room.tune([data], [room.job(name, data, **LONG) for name in "ab"], salt="resumed")
    second = room.start(again)
    room.wait_for(again, lambda e: e.type == "progress")
    assert first_step(room, again, "a") == result.jobs["a"].step + 1
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=60) == 3


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.5])
def test_a_worker_asked_to_leave_before_it_trains_leaves_with_a_result(room, seconds):
    data = room.data()
    plan = room.tune([data], [room.job("a", data, **LONG)])
    worker = room.start(plan)
    room.wait_for(plan, lambda e: e.activity)
    time.sleep(seconds)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=60) == 3
    assert room.result(plan).phase is RunPhase.STOPPED


def test_settings_that_would_save_nothing_before_the_end_are_warned_of_before_the_start(room):
    data = room.data()
    plan = room.tune([data], [room.job("a", data, saveEvery=100), room.job("b", data)])
    code, _ = room.run(plan)
    assert code == 0
    kinds = [(e.type, e.job) for e in room.events(plan) if e.type in ("warning", "progress")]
    assert kinds[0] == ("warning", "a") and kinds.count(("warning", "b")) == 0


def test_the_heart_beats_all_along(room):
    data = room.data()
    plan = room.tune([data], [room.job("a", data, **LONG)])
    worker = room.start(plan)
    beats = []
    end = time.monotonic() + 60
    while len(beats) < 3 and time.monotonic() < end:
        time.sleep(0.2)
        beats = [e.time for e in room.events(plan) if e.type == "heartbeat"]
    worker.kill()
    worker.wait()
    assert (
        all(1.5 < later - earlier < 15 for earlier, later in zip(beats, beats[1:], strict=False))
        and len(beats) >= 3
    )
