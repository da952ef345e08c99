"""A real platform: `dtx up` in a process of its own, killed and started at will, and `dtx` to speak to it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

DTX = (sys.executable, "-m", "datatunerx.cli")


class Site:
    """One DTX_HOME with a server that can be killed and started again."""

    def __init__(self, home: Path, files: Path) -> None:
        self.home, self.files = home, files
        self.environment = {
            **os.environ, "DTX_HOME": str(home), "DTX_PORT": "0", "DTX_POLL_SECONDS": "0.2",
            "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore",
        }  # fmt: skip
        self.server: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        log = (self.home.parent / "server.log").open("ab")
        self.server = subprocess.Popen([*DTX, "up", *options], env=self.environment, stdout=log, stderr=log)
        log.close()
        self.until(lambda: self.dtx("get", "llm").returncode == 0, 90, "the server answers")

    def kill(self) -> None:
        assert self.server
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()

    def dtx(self, *words: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*DTX, *words], env=self.environment, input=stdin, capture_output=True, text=True, timeout=120
        )

    def apply(self, *objects: dict[str, Any]) -> None:
        done = self.try_apply(*objects)
        assert done.returncode == 0, done.stdout + done.stderr

    def try_apply(self, *objects: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
        documents = [{"apiVersion": "datatunerx.io/v1beta1"} | one for one in objects]
        return self.dtx("apply", "-f", "-", stdin="\n---\n".join(json.dumps(one) for one in documents))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        done = self.dtx("get", kind, name, "-o", "json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def status(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(kind, name).get("status", {})
        return found

    def phase(self, kind: str, name: str) -> str:
        return str(self.status(kind, name).get("phase"))

    @staticmethod
    def until(true: Callable[[], bool], seconds: float, what: str) -> float:
        """Seconds until it was true; fails if it was not in time."""
        start = time.monotonic()
        while not true():
            assert time.monotonic() - start < seconds, f"not in {seconds} s: {what}"
            time.sleep(0.1)
        return time.monotonic() - start

    def workers(self) -> list[psutil.Process]:
        """Live worker processes of this home, whatever the server knows of them."""
        mine = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = process.info["cmdline"] or []
            ours = "datatunerx.worker" in line and any(str(self.home) in word for word in line)
            if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
                mine.append(process)
        return mine

    def events(self) -> dict[str, list[dict[str, Any]]]:
        """Every event of every run, by the run's folder."""
        return {
            path.parent.name: [json.loads(line) for line in path.read_text().splitlines()]
            for path in (self.home / "data" / "runs").glob("*/events.jsonl")
        }

    def data_file(self, name: str, rows: list[Any]) -> str:
        path = self.files / name
        path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
        return path.as_uri()


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    files = tmp_path / "files"
    files.mkdir()
    site = Site(tmp_path / "home", files)
    site.start()
    yield site
    if site.server:
        site.server.terminate()
        site.server.wait(15)
    for worker in site.workers():
        worker.kill()


def llm(source: str, name: str = "tiny") -> dict[str, Any]:
    return {"kind": "LLM", "metadata": {"name": name}, "spec": {"source": source}}


def dataset(uri: str, name: str = "colours", **spec: Any) -> dict[str, Any]:
    splits = {"train": [uri], "validate": [uri], "test": [uri]}
    return {
        "kind": "Dataset", "metadata": {"name": name}, "spec": {"subsets": [{"splits": splits}], **spec},
    }  # fmt: skip


def group(name: str = "quick", **spec: Any) -> dict[str, Any]:
    settings = {"maxSteps": 6, "batchSize": 4, "cutoffLength": 64, "learningRate": 0.01, "saveEvery": 2}
    return {"kind": "Hyperparameter", "metadata": {"name": name}, "spec": settings | spec}


def finetune(name: str, hyperparameter: str = "quick", **spec: Any) -> dict[str, Any]:
    return {
        "kind": "Finetune", "metadata": {"name": name},
        "spec": {"llm": "tiny", "dataset": "colours", "hyperparameter": {"ref": hyperparameter}, **spec},
    }  # fmt: skip


def experiment(name: str, hyperparameters: list[str], **spec: Any) -> dict[str, Any]:
    matrix = {"llms": ["tiny"], "datasets": ["colours"], "hyperparameters": hyperparameters}
    scoring = {"metrics": ["exact-match"], "generation": {"maxNewTokens": 8}}
    return {
        "kind": "FinetuneExperiment", "metadata": {"name": name},
        "spec": {"matrix": matrix, "scoring": scoring, **spec},
    }  # fmt: skip


class Make:
    """The objects the tests write."""

    llm, dataset, group = staticmethod(llm), staticmethod(dataset), staticmethod(group)
    finetune, experiment = staticmethod(finetune), staticmethod(experiment)


@pytest.fixture
def make() -> type[Make]:
    return Make
