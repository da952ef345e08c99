"""How jobs end, wait, and are spoken to while others train on."""

import errno
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datatunerx.resources.enums import StopMode
from datatunerx.runs.commands import Command, Verb
from datatunerx.runs.events import EventType
from datatunerx.training import checkpoints, loop
from datatunerx.training.lanes import SamplePrompt


def after(passes, *commands):
    """Says the commands after so many passes."""
    waiting = iter([*([] for _ in range(passes - 1)), list(commands)])
    return lambda: next(waiting, [])


def test_a_job_tells_each_step_its_checkpoints_and_its_end(make_base, make_job, make_rows, watched):
    job = make_job("a", validate=make_rows(3, seed=5), max_steps=5, save_every=2)

    trained = watched.run(make_base(), [job])

    assert len(watched.values("a", "loss")) == 5
    assert [e.step for e in watched.of_type(EventType.CHECKPOINT)] == [2, 4, 5]
    assert len(watched.values("a", "evalLoss")) == 3
    assert [c.eval_loss for c in checkpoints.whole(job.folder)] == watched.values("a", "evalLoss")
    last = watched.of_type(EventType.PROGRESS)[-1].progress
    assert (last.step, last.steps, last.epoch, last.eta_seconds) == (5, 5, 1.0, 0.0)
    assert last.tokens == sum(len(ids) for ids, _ in job.rows)
    assert trained["a"].outcome.checkpoint.step == 5


def test_training_makes_the_loss_fall(make_base, make_job, make_rows, watched):
    watched.run(
        make_base(), [make_job("a", make_rows(4), max_steps=40, learning_rate=0.1, lora={"rank": 16})]
    )

    losses = watched.values("a", "loss")
    assert losses[-1] < losses[0] - 0.1


def test_samples_are_answered_at_step_0_and_at_each_checkpoint(make_base, make_job, watched):
    job = make_job("a", samples=[SamplePrompt("hi", [1, 2])], max_steps=2, save_every=1)

    watched.run(make_base(), [job], decode=lambda ids: f"{len(ids)} tokens")

    told = [e.sample for e in watched.of_type(EventType.SAMPLE)]
    assert [(s.step, s.prompt, s.answer) for s in told] == [(n, "hi", "64 tokens") for n in (0, 1, 2)]


def test_stop_and_keep_writes_a_checkpoint_and_the_others_train_on(make_base, make_job, watched):
    jobs = [make_job(n, max_steps=8) for n in ("a", "b")]

    trained = watched.run(make_base(), jobs, poll_commands=after(6, Command(verb=Verb.STOP, job="a")))

    stopped = trained["a"].outcome
    assert (stopped.phase, stopped.checkpoint.step) == ("Stopped", stopped.step)
    assert 0 < stopped.step < 8
    assert trained["b"].outcome.phase == "Succeeded"


def test_stop_and_discard_writes_nothing(make_base, make_job, watched):
    command = Command(verb=Verb.STOP, job="a", mode=StopMode.DISCARD)

    trained = watched.run(make_base(), [make_job("a")], poll_commands=after(3, command))

    assert trained["a"].outcome.phase == "Stopped"
    assert trained["a"].outcome.checkpoint is None


def test_save_and_evaluate_now_are_done_between_two_steps(make_base, make_job, make_rows, watched):
    commands = (Command(verb=Verb.EVALUATE, job="a"), Command(verb=Verb.SAVE, job="a"))

    watched.run(
        make_base(), [make_job("a", validate=make_rows(2))], capacity=1000, poll_commands=after(2, *commands)
    )

    assert [e.step for e in watched.of_type(EventType.CHECKPOINT)] == [2, 6]
    assert len(watched.values("a", "evalLoss")) == 2


def test_a_command_for_a_job_that_has_left_is_past_asking(make_base, make_job, watched):
    jobs = [make_job("a", max_steps=1), make_job("b", max_steps=8)]

    stop = after(3, Command(verb=Verb.STOP, job="a"))
    trained = watched.run(make_base(), jobs, capacity=1000, poll_commands=stop)

    assert trained["a"].outcome.phase == "Succeeded"


def test_three_steps_without_a_trained_token_end_the_job_and_name_the_rows(make_base, make_job, watched):
    ids = np.arange(8, dtype=np.int32)
    job = make_job(
        "a", [(ids, np.full(8, -100, dtype=np.int32))] * 4, row_names=[f"d.jsonl:{n}" for n in range(4)]
    )

    trained = watched.run(make_base(), [job, make_job("b")])

    outcome = trained["a"].outcome
    assert (outcome.phase, outcome.reason, outcome.step) == ("Failed", "NoTrainableTokens", 3)
    assert "d.jsonl:0" in outcome.message
    assert watched.values("a", "loss") == []
    assert trained["b"].outcome.phase == "Succeeded"


def test_a_message_names_twenty_rows_and_counts_the_others(make_base, make_job, watched):
    ids = np.arange(4, dtype=np.int32)
    rows = [(ids, np.full(4, -100, dtype=np.int32))] * 50

    trained = watched.run(make_base(), [make_job("a", rows, batch_size=50)])

    assert trained["a"].outcome.message.count(", row ") == 19
    assert "and 30 more" in trained["a"].outcome.message


def test_a_target_that_is_not_there_fails_that_job_alone(make_base, make_job, watched):
    trained = watched.run(make_base(), [make_job("a", lora={"targets": ["query"]}), make_job("b")])

    assert trained["a"].outcome.reason == "UnknownTarget"
    assert "q_proj" in trained["a"].outcome.message
    assert trained["b"].outcome.phase == "Succeeded"


@pytest.fixture
def small_disk(tmp_path):
    """A real file system with room for about one checkpoint."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=160k tmpfs {disk} 2>/dev/null"):
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    os.system(f"umount {disk}")


def test_a_full_disk_pauses_the_job_keeps_the_last_checkpoint_and_goes_on_with_space(
    make_base, make_job, watched, small_disk
):
    job = make_job("a", folder=small_disk / "a", max_steps=4, save_every=1, keep_checkpoints=9)
    seen = []

    def free_some(_seconds):
        seen.append([c.step for c in checkpoints.whole(job.folder)])
        checkpoints.verify(checkpoints.whole(job.folder)[-1])
        if len(seen) % 3 == 0:
            for checkpoint in checkpoints.whole(job.folder):
                shutil.rmtree(checkpoint.path)

    time = iter(range(10**6))
    trained = watched.run(make_base(), [job], clock=lambda: float(next(time)), sleep=free_some)

    assert trained["a"].outcome.phase == "Succeeded"
    assert seen[0] and seen[0] == seen[2]
    assert any("DiskFull" in e.message for e in watched.of_type(EventType.WARNING))
    assert "paused: DiskFull" in [e.progress.activity for e in watched.of_type(EventType.PROGRESS)]
    assert len(watched.values("a", "loss")) == 4


def test_a_full_disk_does_not_hold_up_the_neighbours(make_base, make_job, watched, monkeypatch):
    full = make_job("full", max_steps=2)
    real, refused = checkpoints.save, []

    def save(folder, *arguments, **settings):
        if folder == full.folder and not any(e.job == "b" for e in watched.of_type(EventType.JOB)):
            refused.append(folder)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(folder, *arguments, **settings)

    monkeypatch.setattr(checkpoints, "save", save)
    time = iter(range(10**6))
    trained = watched.run(
        make_base(), [full, make_job("b", max_steps=9)], clock=lambda: float(next(time)), sleep=lambda _: None
    )

    assert refused
    assert {t.outcome.phase for t in trained.values()} == {"Succeeded"}
    assert watched.of_type(EventType.JOB)[0].job == "b"


@pytest.fixture
def disk(monkeypatch):
    """Refuses checkpoints while it is full; says which were asked for."""
    real = checkpoints.save
    disk = SimpleNamespace(full=True, asked=[])

    def save(folder, step, *arguments, **settings):
        disk.asked.append(step)
        if disk.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(folder, step, *arguments, **settings)

    monkeypatch.setattr(checkpoints, "save", save)
    return disk


def run_on_full_disk(watched, base, job, disk, *commands, until):
    """Commands are said one a look, as soon as the disk has refused; space comes after `until` refusals."""
    time, waiting = iter(range(10**6)), iter(commands)

    def poll():
        disk.full = disk.full and len(disk.asked) < until
        command = next(waiting, None) if disk.asked else None
        return [command] if command else []

    return watched.run(
        base, [job], capacity=1000, poll_commands=poll, clock=lambda: float(next(time)), sleep=lambda _: None
    )


def test_a_save_asked_of_a_waiting_job_costs_it_no_step(make_base, make_job, watched, disk):
    job = make_job("a", max_steps=2, samples=[SamplePrompt("hi", [1, 2])])
    save = Command(verb=Verb.SAVE, job="a")

    trained = run_on_full_disk(watched, make_base(), job, disk, save, until=4)

    assert (trained["a"].outcome.phase, trained["a"].outcome.step) == ("Succeeded", 2)
    assert [e.sample.step for e in watched.of_type(EventType.SAMPLE)] == [0, 2]
    assert len(watched.values("a", "loss")) == 2


def test_a_wish_to_leave_that_waits_for_space_is_not_lost_to_a_later_wish(
    make_base, make_job, make_rows, watched, disk
):
    job = make_job("a", max_steps=9, save_every=3, validate=make_rows(2))
    commands = [Command(verb=verb, job="a") for verb in (Verb.SUSPEND, Verb.SAVE, Verb.EVALUATE)]

    trained = run_on_full_disk(watched, make_base(), job, disk, *commands, until=9)

    assert (trained["a"].outcome.phase, trained["a"].outcome.step) == ("Suspended", 3)
    assert checkpoints.latest(job.folder).step == 3


def test_a_pause_is_warned_of_once_and_measures_nothing_again(make_base, make_job, watched, disk):
    ids = np.arange(4, dtype=np.int32)
    job = make_job("a", max_steps=2, validate=[(ids, np.full(4, -100, dtype=np.int32))])
    run_on_full_disk(watched, make_base(), job, disk, until=5)

    assert len(disk.asked) > 5
    told = [e.message for e in watched.of_type(EventType.WARNING)]
    assert [message.split()[0] for message in told] == ["no", "DiskFull:"]


def test_memory_that_runs_out_narrows_the_pass_and_keeps_the_numbers(
    make_base, make_job, watched, monkeypatch
):
    real = loop.train_pass

    def small(base, tick):
        real(base, tick)
        if sum(c.tokens for _, chunks in tick for c in chunks) > 40:
            raise MemoryError

    watched.run(make_base(torch.float64), [make_job("a")], capacity=1000)
    monkeypatch.setattr(loop, "train_pass", small)
    again = make_job("a", folder=make_job("x").folder)
    narrowed = type(watched)()
    trained = narrowed.run(make_base(torch.float64), [again], capacity=1000)

    assert trained["a"].outcome.phase == "Succeeded"
    assert narrowed.values("a", "loss") == pytest.approx(watched.values("a", "loss"), rel=1e-9)
    assert "memory ran out" in narrowed.of_type(EventType.WARNING)[0].message


def test_one_row_too_long_for_memory_fails_with_figures_and_a_setting(
    make_base, make_job, watched, monkeypatch
):
    real = loop.train_pass

    def small(base, tick):
        if any(lane.name == "a" for lane, _ in tick):
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried"
            )
        real(base, tick)

    monkeypatch.setattr(loop, "train_pass", small)

    trained = watched.run(make_base(), [make_job("a"), make_job("b")])

    outcome = trained["a"].outcome
    assert (outcome.phase, outcome.reason) == ("Failed", "OutOfMemory")
    assert "GiB" in outcome.message and "cutoffLength" in outcome.message
    assert trained["b"].outcome.phase == "Succeeded"


def test_a_base_in_bfloat16_trains_adapters_in_float32(make_base, make_job, make_rows, watched, tmp_path):
    rows = make_rows(8)
    jobs = [make_job(n, rows, max_steps=4, lora={"dropout": 0.1}) for n in ("a", "b")]

    exact = watched.run(make_base(), jobs[:1])
    losses = watched.values("a", "loss")
    trained = watched.run(make_base(torch.bfloat16), jobs[1:])

    assert exact["a"].outcome.phase == trained["b"].outcome.phase == "Succeeded"
    assert trained["b"].adapter.flat.dtype == torch.float32
    assert watched.values("b", "loss") == pytest.approx(losses, rel=2e-2)
