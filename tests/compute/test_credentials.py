"""What a worker is given to read far files with stands in its environment only, never on the disk."""

import json
import os
import subprocess
import sys
import time

from datatunerx.resources.enums import RunPhase, RunType
from datatunerx.runs.files import CREDENTIALS
from datatunerx.worker.credentials import take

VALUE = "a-value-nobody-may-see"
GIVEN = {CREDENTIALS: json.dumps({"bucket": {"secretAccessKey": VALUE}})}


def waited(true, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


async def test_a_worker_gets_them_and_no_record_holds_them(place, backend):
    submission = place.run("work", RunType.INSPECT, environment=GIVEN)
    await backend.submit(submission)
    told = place.folder(submission.run) / "environment"
    waited(lambda: told.exists() and told.read_text().endswith("}"))
    assert json.loads(told.read_text())[CREDENTIALS] == GIVEN[CREDENTIALS]
    assert VALUE not in repr(submission)
    for path in (place.home / "compute").rglob("*"):
        assert not path.is_file() or VALUE not in path.read_text()


async def test_a_run_that_waits_with_them_is_not_written_down_but_submitted_again(place, backend):
    running = place.run("sleep")
    await backend.submit(running)
    waiting = place.run("work", environment=GIVEN)
    await backend.submit(waiting)
    state = await backend.phase(waiting.run)
    assert state and state.phase is RunPhase.PENDING
    backend.close()
    after = place.backend()  # the next server has never heard of it, so its controller brings it again
    try:
        assert await after.phase(waiting.run) is None
        assert await after.phase(running.run) is not None
        assert not [p for p in (place.home / "compute").rglob("*") if p.is_file() and VALUE in p.read_text()]
    finally:
        after.close()


def test_a_worker_takes_them_out_of_its_environment_before_it_starts_anybody():
    environment = dict(os.environ) | GIVEN
    assert take(environment) == {"bucket": {"secretAccessKey": VALUE}}
    assert CREDENTIALS not in environment and take(environment) == {}
    code = (
        "import os, subprocess, sys\n"
        "from datatunerx.worker.__main__ import main\n"
        "main([])\n"  # refused for want of a plan, and by then they are taken
        "print(subprocess.run(['env'], capture_output=True, text=True).stdout)"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | GIVEN, capture_output=True, text=True, check=True
    )
    assert "PATH=" in child.stdout and VALUE not in child.stdout
