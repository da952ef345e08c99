"""`dtx tune` with no server running: the platform lives in the command, and its state outlives it."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


class Tuning:
    def __init__(self, home: Path, model: Path, data: Path) -> None:
        self.home = home
        self.environment = {
            **os.environ, "DTX_HOME": str(home), "DTX_PORT": "0", "DTX_POLL_SECONDS": "0.2",
            "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        self.words = [
            "tune", "--llm", str(model), "--data", str(data), "--set", "lora.rank=2,4",
            "--set", "cutoffLength=64", "--set", "batchSize=4", "--set", "learningRate=0.01",
            "--max-new-tokens", "8",
        ]  # fmt: skip

    def start(self, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "datatunerx.cli", *self.words, *more]
        return subprocess.Popen(
            command, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def phases(self) -> list[str]:
        """Of the jobs, as a server that is started later tells them."""
        command = [sys.executable, "-m", "datatunerx.cli"]
        with subprocess.Popen([*command, "up"], env=self.environment, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None and server.stdout.readline().startswith(b"dtx serves")
            said = subprocess.run(
                [*command, "get", "fj", "-o", "json"], env=self.environment, capture_output=True, check=True
            ).stdout
            server.terminate()
        return [job["status"]["phase"] for job in json.loads(said)["items"]]


@pytest.fixture
def tuning(tmp_path, tiny_model, colour_rows):
    data = tmp_path / "colours.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in colour_rows))
    return Tuning(tmp_path / "home", tiny_model, data)


def test_a_file_and_two_ranks_become_a_verdict(tuning):
    process = tuning.start("--set", "maxSteps=6")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert "ranked by exact-match" in out and "(untouched base)" in out
    assert "from peft import PeftModel" in out and "Traceback" not in err
    assert tuning.phases() == ["Succeeded", "Succeeded"]


def first_step(process: subprocess.Popen[str]) -> int:
    """The first step that its output tells of."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"step (\d+)/", line):
            return int(found[1])
    raise AssertionError(process.communicate(timeout=60))


def test_ctrl_c_suspends_and_the_same_command_goes_on(tuning):
    endless = ("--set", "maxSteps=100000", "--set", "saveEvery=100000", "--name", "long")
    process = tuning.start(*endless)
    first_step(process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "Suspended; what was trained is kept" in out
    assert tuning.phases() == ["Suspended", "Suspended"]
    kept = [int(path.name.rpartition("-")[2]) for path in tuning.home.glob("data/artifacts/*/step-*")]
    assert len(kept) == 2  # one checkpoint each: saveEvery lies beyond what can be reached here

    again = tuning.start(*endless)
    assert first_step(again) >= min(kept)
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=120)
    assert again.returncode == 130
    assert tuning.phases() == ["Suspended", "Suspended"]
