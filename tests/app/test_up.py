"""`dtx up` as a process: it answers soon, alone on its home and port, and loses nothing when it is killed."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datatunerx.client import Api
from datatunerx.client.https import Https
from datatunerx.client.kubeconfig import load
from datatunerx.resources import Hyperparameter

pytestmark = pytest.mark.slow


class Server:
    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        environment = {**os.environ, "DTX_HOME": str(home)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "datatunerx.cli", "up", *(options or ("--port", "0"))],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ready(self) -> int:
        """Its port, once it serves."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"https://[^ ]+:(\d+)", line)
        assert found, line + self.process.communicate(timeout=10)[1]
        return int(found[1])

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out + err


@pytest.fixture
def start(tmp_path):
    servers: list[Server] = []

    def begin(*options: str, home: Path | None = None) -> Server:
        servers.append(Server(home or tmp_path / "home", *options))
        return servers[-1]

    yield begin
    for server in servers:
        if server.process.poll() is None:
            server.end(signal.SIGKILL)


async def groups(home: Path) -> list[str]:
    async with Https(load(home / "kubeconfig")) as transport:
        return [group.metadata.name for group in await Api(transport).list(Hyperparameter)]


async def make_group(home: Path, name: str) -> None:
    async with Https(load(home / "kubeconfig")) as transport:
        await Api(transport).create(Hyperparameter.parse({"metadata": {"name": name}, "spec": {}}))


async def test_it_answers_soon_and_stops_in_good_order(start):
    began = time.monotonic()
    server = start()
    server.ready()
    assert await groups(server.home) == []
    assert time.monotonic() - began < 10  # 0.8 s on a machine with nothing else to do
    assert (server.home / "kubeconfig").stat().st_mode & 0o777 == 0o600
    assert server.home.stat().st_mode & 0o077 == 0
    code, said = server.end()
    assert code == 0 and "workers that train go on" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_it_without_a_traceback(start, number):
    server = start()
    server.ready()
    code, said = server.end(number)
    assert code == 0 and "Traceback" not in said


def test_a_second_server_on_the_same_home_is_refused_and_names_the_first(start):
    first = start()
    first.ready()
    second = start(home=first.home)
    out, err = second.process.communicate(timeout=20)
    assert second.process.returncode == 1
    assert f"pid {first.process.pid}" in err and "DTX_HOME" in err and "Traceback" not in err


def test_a_port_in_use_is_named_with_the_fix(start, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = start("--port", str(port))
        out, err = server.process.communicate(timeout=20)
    assert server.process.returncode == 1
    assert f"port {port}" in err and "--port" in err and "Traceback" not in err
    start().ready()  # and the home is free again


async def test_what_was_acknowledged_survives_kill_9(start):
    first = start()
    first.ready()
    await make_group(first.home, "kept")
    first.end(signal.SIGKILL)
    second = start()
    second.ready()
    assert await groups(second.home) == ["kept"]


def test_the_platform_loads_no_training_library(tmp_path):
    code = "import sys, datatunerx.app.up; print([m for m in ('torch', 'ray') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
