import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datatunerx.compute import LocalBackend, Submission
from datatunerx.compute.processes import TOKEN
from datatunerx.resources.enums import RunType

# Stands for the interpreter: called as `python -m datatunerx.worker PLAN_URI`, it does what the plan says.
# A plan that is a real one is done by the real worker.
WORKER = """#!{python} -SE
import json, os, signal, subprocess, sys, time
plan = sys.argv[3].removeprefix("file://")
folder = os.path.dirname(plan)
told = json.load(open(plan))
if "tune" in told:
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
do = told["do"]
with open(folder + "/starts", "a") as file:
    file.write(str(os.getpid()) + "\\n")
with open(folder + "/environment", "w") as file:
    json.dump(dict(os.environ), file)
def result(phase):
    with open(folder + "/result.part", "w") as file:
        json.dump({{"planId": "p", "phase": phase}}, file)
    os.rename(folder + "/result.part", folder + "/result.json")
def leave(*_):
    result("Stopped")
    sys.exit(0)
if do == "work":
    time.sleep(0.2)
    result("Succeeded")
elif do == "fail":
    sys.exit(3)
elif do == "die":
    os.kill(os.getpid(), signal.SIGKILL)
elif do == "sleep":
    signal.signal(signal.SIGTERM, leave)
    open(folder + "/ready", "w").close()
    while True: time.sleep(60)
elif do in ("ignore", "orphan"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = [sys.executable, "-SEc", "import time; time.sleep(300)", "of", folder]
    plain = subprocess.Popen(child)
    hidden = subprocess.Popen(child, env={{}}, start_new_session=True)
    if do == "orphan":
        result("Succeeded")
        os._exit(0)
    open(folder + "/ready", "w").close()
    while True: time.sleep(60)
"""


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


class Place:
    """A home with runs whose plans say what their worker does."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.python = home / "python"
        self.python.write_text(WORKER.format(python=sys.executable))
        self.python.chmod(0o755)
        self.number = 0

    def backend(self, **settings) -> LocalBackend:
        return LocalBackend(self.home, python=str(self.python), **{"gpus": 0} | settings)

    def run(self, do: str, type: RunType = RunType.TUNE, **fields) -> Submission:
        self.number += 1
        name = f"run-{self.number}"
        folder = self.folder(name)
        folder.mkdir(parents=True)
        (folder / "plan.json").write_text(json.dumps({"do": do}))
        return Submission(
            run=name, plan_uri=(folder / "plan.json").as_uri(), log_uri=(folder / "worker.log").as_uri(),
            type=type, **{"created": float(self.number)} | fields,
        )  # fmt: skip

    def folder(self, run: str) -> Path:
        return self.home / "runs" / run

    def starts(self, run: str) -> list[int]:
        path = self.folder(run) / "starts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def ready(self, run: str) -> bool:
        return (self.folder(run) / "ready").exists()

    def processes(self, run: str) -> list[int]:
        """Everyone who names the run's folder in its command line."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    line = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if any(str(self.folder(run)) in part for part in line.decode(errors="replace").split("\0")):
                    found.append(int(entry.name))
        return found


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    for number in range(1, place.number + 1):
        for pid in place.processes(f"run-{number}"):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def backend(place):
    backend = place.backend()
    yield backend
    backend.close()


@pytest.fixture
def decoy():
    """Somebody else's training, with somebody else's token."""
    code = "import time; time.sleep(300)"
    process = subprocess.Popen(
        [sys.executable, "-SEc", code, "train.py"], env={TOKEN: "not-ours"}, start_new_session=True
    )
    yield process
    assert process.poll() is None, "the decoy was ended"
    process.kill()
    process.wait()


@pytest.fixture
def until():
    return wait_for


@pytest.fixture
def ended(until):
    """Wait until a run has ended and return its state."""

    async def wait(backend, run, seconds=60.0):
        end = time.monotonic() + seconds
        while not (state := await backend.phase(run)) or not state.phase.terminal:
            assert time.monotonic() < end, f"{run} is still {state}"
            time.sleep(0.02)
        return state

    return wait
