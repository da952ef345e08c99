import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from datatunerx.compute import processes, records
from datatunerx.resources.enums import RunPhase, RunType
from datatunerx.storage import Refused


async def test_a_run_runs_and_its_result_is_the_verdict(backend, place, ended):
    run = place.run("work")
    assert await backend.phase(run.run) is None
    await backend.submit(run)
    assert (await backend.phase(run.run)).phase is RunPhase.RUNNING
    state = await ended(backend, run.run)
    assert (state.phase, state.exit_code) == (RunPhase.SUCCEEDED, 0)


async def test_submitting_again_does_nothing_not_even_after_the_end(backend, place, ended):
    run = place.run("work")
    for _ in range(3):
        await backend.submit(run)
    await ended(backend, run.run)
    await backend.submit(run)
    time.sleep(0.5)
    assert len(place.starts(run.run)) == 1


@pytest.mark.parametrize(
    ("do", "code", "words"), [("fail", 3, "exit code 3"), ("die", -9, "SIGKILL.*memory")]
)
async def test_an_end_without_a_result_is_a_failure_with_its_reason(backend, place, ended, do, code, words):
    run = place.run(do)
    await backend.submit(run)
    state = await ended(backend, run.run)
    assert (state.phase, state.exit_code, state.reason) == (RunPhase.FAILED, code, "WorkerDied")
    assert re.search(words, state.message)


async def test_a_worker_killed_from_outside_is_reported_at_once(backend, place, until, ended):
    run = place.run("sleep")
    await backend.submit(run)
    until(lambda: place.ready(run.run))
    os.kill(place.starts(run.run)[0], signal.SIGKILL)
    state = await ended(backend, run.run, seconds=10)
    assert (state.phase, state.reason) == (RunPhase.FAILED, "WorkerDied")


async def test_a_worker_ended_by_a_signal_without_a_name_is_reported_by_its_number(
    backend, place, until, ended
):
    run = place.run("sleep")
    await backend.submit(run)
    until(lambda: place.ready(run.run))
    os.kill(place.starts(run.run)[0], 40)
    state = await ended(backend, run.run, seconds=10)
    assert (state.exit_code, state.reason) == (-40, "WorkerDied")
    assert "signal 40" in state.message


async def test_the_log_holds_both_outputs_and_outlives_the_worker(place, ended):
    place.python.write_text(
        f"#!{sys.executable} -SE\nimport sys\nprint('out')\nprint('err', file=sys.stderr)\n"
    )
    backend = place.backend()
    run = place.run("")
    await backend.submit(run)
    await ended(backend, run.run)
    backend.close()
    assert set((place.folder(run.run) / "worker.log").read_text().split()) == {"out", "err"}


async def test_a_python_that_is_not_there_is_a_failure_with_its_name(place, ended):
    backend = place.backend()
    place.python.unlink()
    run = place.run("work")
    await backend.submit(run)
    state = await ended(backend, run.run)
    assert state.reason == "StartFailed" and str(place.python) in state.message
    backend.close()


async def test_a_worker_sees_its_token_and_its_threads_but_not_the_servers_secrets(
    backend, place, ended, monkeypatch
):
    monkeypatch.setenv("MY_API_KEY", "secret")
    run = place.run("work")
    await backend.submit(run)
    await ended(backend, run.run)
    environment = json.loads((place.folder(run.run) / "environment").read_text())
    assert len(environment["DTX_RUN_TOKEN"]) == 32
    assert environment["OMP_NUM_THREADS"] == str(len(os.sched_getaffinity(0)))
    assert environment["GOMP_SPINCOUNT"] == "2000"
    assert environment["CUDA_VISIBLE_DEVICES"] == "" and "MY_API_KEY" not in environment


async def test_one_cpu_slot_is_given_by_priority_then_age_and_positions_are_told(
    backend, place, ended, until
):
    first = place.run("sleep")
    old, young, urgent = place.run("work"), place.run("work"), place.run("work", priority=5)
    for run in (first, young, old, urgent):
        await backend.submit(run)
    positions = {run.run: (await backend.phase(run.run)).position for run in (urgent, old, young)}
    assert positions == {urgent.run: 1, old.run: 2, young.run: 3}
    assert (await backend.phase(old.run)).phase is RunPhase.PENDING
    until(lambda: place.ready(first.run))
    await backend.stop(first.run)
    for run in (urgent, old, young):
        assert (await ended(backend, run.run)).phase is RunPhase.SUCCEEDED
    times = [(place.folder(run.run) / "starts").stat().st_mtime for run in (first, urgent, old, young)]
    assert times == sorted(times)


async def test_inspections_need_no_device_and_two_run_at_once(backend, place, until):
    training = place.run("sleep")
    looks = [place.run("sleep", RunType.INSPECT) for _ in range(3)]
    for run in (training, *looks):
        await backend.submit(run)
    phases = [(await backend.phase(run.run)).phase.value for run in (training, *looks)]
    assert phases == ["Running", "Running", "Running", "Pending"]
    assert (await backend.phase(looks[2].run)).position == 1


async def test_each_gpu_is_a_slot_and_no_two_runs_see_the_same(place, until):
    backend = place.backend(gpus=3)
    pair, single, waiting = place.run("sleep", accelerators=2), place.run("sleep"), place.run("sleep")
    too_big = place.run("sleep", accelerators=4)
    for run in (too_big, pair, single, waiting):
        await backend.submit(run)
    until(lambda: place.ready(pair.run) and place.ready(single.run))
    seen = [json.loads((place.folder(r.run) / "environment").read_text()) for r in (pair, single)]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in seen] == ["0,1", "2"]
    held = [(await backend.phase(run.run)).devices for run in (pair, single, waiting)]
    assert held == [("0", "1"), ("2",), ()]
    assert (await backend.phase(waiting.run)).phase is RunPhase.PENDING
    refusal = await backend.phase(too_big.run)
    assert refusal.reason == "NotEnoughDevices" and "4 GPUs" in refusal.message and "has 3" in refusal.message
    backend.close()


async def test_a_gpu_asked_of_a_machine_without_one_is_told_and_holds_up_nobody(backend, place, ended):
    greedy, modest = place.run("work", accelerators=1), place.run("work")
    await backend.submit(greedy)
    await backend.submit(modest)
    assert (await ended(backend, modest.run)).phase is RunPhase.SUCCEEDED
    assert "has 0" in (await backend.phase(greedy.run)).message


async def test_a_run_stopped_in_the_queue_never_starts(backend, place, ended):
    first, second = place.run("sleep"), place.run("work")
    await backend.submit(first)
    await backend.submit(second)
    await backend.stop(second.run)
    await backend.submit(second)
    await backend.stop(first.run)
    await ended(backend, first.run)
    time.sleep(0.5)
    assert (await backend.phase(second.run)).phase is RunPhase.STOPPED and not place.starts(second.run)


async def test_a_stopped_worker_may_finish_what_it_does(backend, place, until, ended):
    run = place.run("sleep")
    await backend.submit(run)
    until(lambda: place.ready(run.run))
    await backend.stop(run.run)
    await backend.stop(run.run)
    state = await ended(backend, run.run)
    assert (state.phase, state.exit_code) == (RunPhase.STOPPED, 0)
    assert (place.folder(run.run) / "result.json").exists()


async def test_a_worker_that_ignores_the_signal_is_killed_with_its_children_but_nobody_else(
    place, until, ended, decoy
):
    backend = place.backend(grace_seconds=1.0)
    run = place.run("ignore")
    await backend.submit(run)
    until(lambda: place.ready(run.run))
    assert len(place.processes(run.run)) == 3
    await backend.stop(run.run)
    assert (await backend.phase(run.run)).reason == "Stopping"
    state = await ended(backend, run.run)
    assert state.phase is RunPhase.STOPPED
    assert place.processes(run.run) == []
    backend.close()


async def test_what_a_worker_leaves_behind_is_ended_with_it(backend, place, until, ended):
    run = place.run("orphan")
    await backend.submit(run)
    assert (await ended(backend, run.run)).phase is RunPhase.SUCCEEDED
    plain_child_left = [pid for pid in place.processes(run.run) if os.getsid(pid) != pid]
    assert plain_child_left == []


async def test_a_worker_does_not_outlive_its_plan(backend, place, until, ended):
    run = place.run("sleep")
    await backend.submit(run)
    until(lambda: place.ready(run.run))
    (place.folder(run.run) / "plan.json").unlink()
    assert (await ended(backend, run.run)).phase is RunPhase.STOPPED
    assert place.processes(run.run) == []


@pytest.mark.slow
async def test_twenty_starts_and_stops_leave_nothing_behind(backend, place, ended):
    for number in range(20):
        run = place.run("sleep")
        await backend.submit(run)
        time.sleep(0.01 * number)  # also while the interpreter starts
        await backend.stop(run.run)
        assert (await ended(backend, run.run)).phase is RunPhase.STOPPED
        assert place.processes(run.run) == []


async def test_a_stranger_with_the_pid_of_an_ended_worker_is_left_in_peace(place, ended, decoy):
    run = place.run("work")
    backend = place.backend()
    await backend.submit(run)
    await ended(backend, run.run)
    backend.close()
    path = place.home / "compute" / f"{run.run}.json"
    for started in ("1", processes.look(decoy.pid).started):
        # As if the server had been killed before it saw the end, and the kernel had given the pid out again.
        record = json.loads(path.read_text()) | {"phase": "Running", "pid": decoy.pid, "started": started}
        path.write_text(json.dumps(record))
        successor = place.backend()
        await successor.stop(run.run)
        assert (await successor.phase(run.run)).phase is RunPhase.SUCCEEDED
        successor.close()


@pytest.mark.parametrize("name", ["../evil", "a/../../b", "/etc/x"])
async def test_a_run_cannot_be_named_out_of_its_folder(backend, place, name):
    run = place.run("work")
    with pytest.raises(Refused):
        await backend.submit(type(run)(**vars(run) | {"run": name}))


async def test_a_full_disk_leaves_the_run_in_the_queue_until_there_is_space(
    backend, place, ended, monkeypatch
):
    def full(folder, record):
        raise OSError(28, "no space left")

    real = records.save
    monkeypatch.setattr(records, "save", full)
    run = place.run("work")
    await backend.submit(run)
    time.sleep(0.5)
    assert (await backend.phase(run.run)).phase is RunPhase.PENDING and not place.starts(run.run)
    monkeypatch.setattr(records, "save", real)
    assert (await ended(backend, run.run)).phase is RunPhase.SUCCEEDED


def test_a_process_name_with_brackets_does_not_confuse_the_reader(tmp_path):
    odd = tmp_path / "a) S 1 (b"
    odd.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(odd), "30"])
    try:
        seen = processes.look(child.pid)
        assert (seen.parent, seen.session) == (os.getpid(), os.getsid(0))
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("do", ["work", "sleep"])
async def test_a_run_whose_files_were_deleted_can_come_again_under_its_name(backend, place, ended, until, do):
    blocker, run = place.run("sleep"), place.run(do)
    if do == "sleep":  # stopped while it still waits
        await backend.submit(blocker)
    await backend.submit(run)
    if do == "sleep":
        await backend.stop(run.run)
        await backend.stop(blocker.run)
    first = await ended(backend, run.run)
    assert first.phase is (RunPhase.SUCCEEDED if do == "work" else RunPhase.STOPPED)
    for path in place.folder(run.run).iterdir():
        path.unlink()
    (place.folder(run.run) / "plan.json").write_text('{"do": "work"}')
    assert await backend.phase(run.run) is None
    await backend.submit(run)
    assert (await ended(backend, run.run)).phase is RunPhase.SUCCEEDED
    assert len(place.starts(run.run)) == 1


async def test_the_token_is_durable_before_the_process_is_started(backend, place, monkeypatch):
    seen = []

    def die(argv, *, env, **rest):
        record = json.loads((place.home / "compute" / f"{run.run}.json").read_text())
        seen.append((argv[1:], record["token"] == env[processes.TOKEN], record.get("pid")))
        raise OSError("killed here")

    monkeypatch.setattr(subprocess, "Popen", die)
    run = place.run("work")
    await backend.submit(run)
    assert seen == [(["-m", "datatunerx.worker", run.plan_uri], True, None)]
    assert (await backend.phase(run.run)).reason == "StartFailed"


def test_a_pid_that_was_given_out_again_is_told_by_its_start_time_alone():
    token = "a" * 32
    child = subprocess.Popen(
        [sys.executable, "-SEc", "import time; print(flush=True); time.sleep(60)"],
        env={processes.TOKEN: token}, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        child.stdout.read(1)
        started = processes.look(child.pid).started
        assert processes.is_ours(child.pid, started, token)
        assert not processes.is_ours(child.pid, str(int(started) - 1), token)
        assert not processes.is_ours(child.pid, started, "b" * 32)
        processes.send(child.pid, str(int(started) - 1), signal.SIGKILL)
        time.sleep(0.2)
        assert child.poll() is None
        processes.send(child.pid, started, signal.SIGKILL)
        assert child.wait(timeout=60) == -signal.SIGKILL
        assert processes.look(child.pid) is None
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


async def test_an_error_in_looking_after_the_runs_does_not_end_the_looking(
    backend, place, until, monkeypatch
):
    real, tripped = backend._tick, []

    def trip():
        if not tripped:
            tripped.append(True)
            raise ValueError("no such signal")
        real()

    monkeypatch.setattr(backend, "_tick", trip)
    until(lambda: tripped)
    first, second = place.run("work"), place.run("work")
    await backend.submit(first)
    await backend.submit(second)

    # nobody asks for the runs' phases: only the looking starts the second
    until(lambda: place.starts(second.run))


async def test_a_run_whose_look_always_fails_says_so_and_holds_up_no_other(
    place, until, ended, monkeypatch, caplog
):
    backend = place.backend(gpus=2)
    cursed, first, second = place.run("sleep"), place.run("work"), place.run("work")
    real = backend._is_running

    def broken(record):
        if record.run == cursed.run:
            raise ZeroDivisionError("no such family")
        return real(record)

    monkeypatch.setattr(backend, "_is_running", broken)
    for run in (cursed, first, second):
        await backend.submit(run)
    assert (await ended(backend, first.run)).phase is RunPhase.SUCCEEDED
    # nobody asks for the last one's phase until it has run: the tick alone started it
    until(lambda: (place.folder(second.run) / "result.json").exists())
    state = await backend.phase(cursed.run)
    assert (state.phase, state.reason) == (RunPhase.RUNNING, "CannotLookAfter")
    assert "no such family" in state.message
    assert [r.message for r in caplog.records].count("looking after a run failed; trying again") == 1

    monkeypatch.setattr(backend, "_is_running", real)
    assert (await backend.phase(cursed.run)).reason == ""
    await backend.stop(cursed.run)
    assert (await ended(backend, cursed.run)).phase is RunPhase.STOPPED
    backend.close()
