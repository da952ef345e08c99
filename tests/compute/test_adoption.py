import json
import os
import signal
import subprocess
import sys
import time

import pytest

from datatunerx.compute import records
from datatunerx.resources.enums import RunPhase
from datatunerx.runs.files import EVENTS

# A server that submits what it is told and looks on, until it is killed.
SERVER = """
import asyncio, json, sys
from pathlib import Path
from datatunerx.compute import LocalBackend, Submission
from datatunerx.resources.enums import RunType
async def main():
    backend = LocalBackend(Path(sys.argv[1]), gpus=0, python=sys.argv[2], grace_seconds=1.0)
    runs = [Submission(**fields | {"type": RunType(fields["type"])}) for fields in json.loads(sys.argv[3])]
    for run in runs:
        await backend.submit(run)
    for name in json.loads(sys.argv[4]):
        await backend.stop(name)
    print("up", flush=True)
    while True:
        states = [await backend.phase(run.run) for run in runs]
        if all(state.phase.terminal for state in states):
            print("done", flush=True)
        await asyncio.sleep(0.05)
asyncio.run(main())
"""


@pytest.fixture
def serve(place):
    servers = []

    def start(runs, stop=()):
        what = json.dumps([vars(run) for run in runs]), json.dumps(list(stop))
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(place.home), str(place.python), *what],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.kill()
        server.wait()
        server.stdout.close()


@pytest.mark.slow
async def test_a_worker_survives_its_server_and_is_adopted_by_the_next(place, serve, until, ended):
    run = place.run("sleep")
    server = serve([run])
    until(lambda: place.ready(run.run))
    server.kill()
    server.wait()
    backend = place.backend()
    assert (await backend.phase(run.run)).phase is RunPhase.RUNNING
    await backend.submit(run)
    assert len(place.starts(run.run)) == 1
    await backend.stop(run.run)
    assert (await ended(backend, run.run)).phase is RunPhase.STOPPED
    backend.close()


@pytest.mark.slow
async def test_a_worker_that_died_while_no_server_watched_is_reported_by_the_next(place, serve, until, ended):
    run = place.run("sleep")
    server = serve([run])
    until(lambda: place.ready(run.run))
    (place.folder(run.run) / EVENTS).touch()  # one that never said a word may be started once more
    server.kill()
    server.wait()
    os.kill(place.starts(run.run)[0], signal.SIGKILL)
    backend = place.backend()
    state = await ended(backend, run.run)
    assert (state.phase, state.reason, state.exit_code) == (RunPhase.FAILED, "WorkerDied", None)
    backend.close()


@pytest.mark.slow
async def test_a_stop_goes_on_under_the_next_server(place, serve, until, ended):
    run = place.run("ignore")
    server = serve([run])
    until(lambda: place.ready(run.run))
    server.kill()
    server.wait()
    second = serve([run], stop=[run.run])
    assert second.stdout.readline() == "up\n"
    second.kill()
    second.wait()
    backend = place.backend(grace_seconds=1.0)
    assert (await ended(backend, run.run)).phase is RunPhase.STOPPED
    assert place.processes(run.run) == []
    backend.close()


async def test_a_worker_is_found_by_its_token_when_its_server_died_before_noting_the_pid(place, until, ended):
    backend = place.backend()
    run = place.run("sleep")
    await backend.submit(run)
    until(lambda: place.ready(run.run))
    backend.close()
    path = place.home / "compute" / f"{run.run}.json"
    record = records.Record.model_validate_json(path.read_text())
    record.pid, record.started = None, ""
    path.write_text(record.model_dump_json(by_alias=True))

    successor = place.backend()
    await successor.submit(run)
    assert (await successor.phase(run.run)).phase is RunPhase.RUNNING
    await successor.stop(run.run)
    assert (await ended(successor, run.run)).phase is RunPhase.STOPPED
    assert len(place.starts(run.run)) == 1
    successor.close()


@pytest.mark.parametrize(("spoke", "phase"), [(False, RunPhase.SUCCEEDED), (True, RunPhase.FAILED)])
async def test_a_start_that_came_to_nothing_is_made_again_and_one_that_spoke_is_not(
    place, ended, spoke, phase
):
    run = place.run("work")
    record = records.Record.of(run, "f" * 32, ["cpu"])
    (place.home / "compute").mkdir()
    records.save(place.home / "compute", record)
    if spoke:
        (place.folder(run.run) / "events.jsonl").write_text("")
    backend = place.backend()
    await backend.submit(run)
    assert (await ended(backend, run.run)).phase is phase
    assert len(place.starts(run.run)) == (0 if spoke else 1)
    backend.close()


async def test_the_record_of_a_deleted_run_is_forgotten_and_no_other(place, ended):
    backend = place.backend()
    kept, deleted = place.run("work"), place.run("work")
    for run in (kept, deleted):
        await backend.submit(run)
        await ended(backend, run.run)
    backend.close()
    for path in place.folder(deleted.run).iterdir():
        path.unlink()
    place.folder(deleted.run).rmdir()
    successor = place.backend()
    assert (await successor.phase(kept.run)).phase is RunPhase.SUCCEEDED
    assert await successor.phase(deleted.run) is None
    assert [path.name for path in (place.home / "compute").iterdir()] == [f"{kept.run}.json"]
    successor.close()


@pytest.mark.slow
def test_ten_runs_survive_many_kills_of_the_server_and_each_runs_once_in_order(place, serve):
    runs = [place.run("work") for _ in range(10)]
    # The delays put kills into start-up, between fork and record, and into the work.
    for delay in (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45):
        server = serve(runs)
        server.stdout.readline()
        time.sleep(delay)
        server.kill()
        server.wait()
    server = serve(runs)
    assert server.stdout.readline() == "up\n" and server.stdout.readline() == "done\n"
    assert [len(place.starts(run.run)) for run in runs] == [1] * 10
    times = [(place.folder(run.run) / "starts").stat().st_mtime for run in runs]
    assert times == sorted(times)
    assert all((place.folder(run.run) / "result.json").exists() for run in runs)


async def test_the_queue_keeps_its_order_over_a_restart_whoever_asks_first(place, ended, until):
    backend = place.backend()
    blocker, low, high = place.run("sleep"), place.run("work"), place.run("work", priority=3)
    deleted = place.run("work", priority=9)
    for run in (blocker, low, high, deleted):
        await backend.submit(run)
    until(lambda: place.ready(blocker.run))
    backend.close()
    (place.folder(deleted.run) / "plan.json").unlink()

    successor = place.backend()
    assert [(await successor.phase(run.run)).position for run in (high, low)] == [1, 2]
    assert await successor.phase(deleted.run) is None
    os.kill(place.starts(blocker.run)[0], signal.SIGKILL)
    await successor.submit(low)
    for run in (high, low):
        assert (await ended(successor, run.run)).phase is RunPhase.SUCCEEDED
    times = [(place.folder(run.run) / "starts").stat().st_mtime for run in (high, low)]
    assert times == sorted(times) and [len(place.starts(r.run)) for r in (high, low)] == [1, 1]
    successor.close()
