"""A real server in a process of its own, for client libraries that know nothing of us."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

GROUP, VERSION = "datatunerx.io", "v1beta1"


class Server:
    """`dtx up --no-controllers` on one port, restarted, killed or emptied at will."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[str] | None = None

    @property
    def kubeconfig(self) -> str:
        return str(self.home / "kubeconfig")

    def start(self) -> None:
        words = [sys.executable, "-m", "datatunerx.cli", "up", "--no-controllers", "--port", str(self.port)]
        environment = {**os.environ, "DTX_HOME": str(self.home), "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert "serves" in self.process.stdout.readline()

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.communicate(timeout=60)

    def reset(self) -> None:
        """Lose every object; keep certificate and token."""
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.home / "db")
        self.start()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("home"))
    made.start()
    yield made
    made.stop()


def group(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/{VERSION}", "kind": "Hyperparameter", "metadata": {"name": name},
        "spec": {"learningRate": 0.001} | spec,
    }  # fmt: skip


@pytest.fixture
def make_group():
    """A Hyperparameter as a user of a client library would write it."""
    return group
