"""`dtx up` as a process: it answers soon, alone on its home and port, and loses nothing when it is killed."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datatunerx.app.up import make_private
from datatunerx.client import Api
from datatunerx.client.https import Https
from datatunerx.client.kubeconfig import load
from datatunerx.resources import Dataset, Hyperparameter

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
        assert found, line + self.process.communicate(timeout=60)[1]
        return int(found[1])

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
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
    out, err = second.process.communicate(timeout=60)
    assert second.process.returncode == 1
    assert f"pid {first.process.pid}" in err and "DTX_HOME" in err and "Traceback" not in err


def test_a_port_in_use_is_named_with_the_fix(start, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = start("--port", str(port))
        out, err = server.process.communicate(timeout=60)
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


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
async def test_nothing_of_a_home_is_open_to_others_even_if_the_folder_was(start, tmp_path):
    home = tmp_path / "made-by-hand"
    home.mkdir(mode=0o755)
    home.chmod(0o755)
    before = os.umask(0o022)
    try:
        server = start(home=home)
        server.ready()
    finally:
        os.umask(before)
    train = tmp_path / "rows.jsonl"
    train.write_text('{"prompt": "a", "completion": "b"}\n' * 4)
    spec = {"subsets": [{"splits": {"train": [train.as_uri()]}}]}
    async with Https(load(home / "kubeconfig")) as transport:
        await Api(transport).create(Dataset.parse({"metadata": {"name": "d"}, "spec": spec}))
        async with asyncio.timeout(60):  # until the worker that inspects it has written all it writes
            while not list(home.glob("data/runs/*/result.json")):
                await asyncio.sleep(0.1)
    server.end()
    found = [home, *home.rglob("*")]
    assert [str(path) for path in found if path.lstat().st_mode & 0o077] == []


def test_a_folder_with_other_things_in_it_keeps_its_mode(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "of-somebody-else").touch()
    shared.chmod(0o755)
    make_private(shared)
    assert shared.stat().st_mode & 0o777 == 0o755
    (shared / "of-somebody-else").rename(shared / "server.log")
    make_private(shared)
    assert shared.stat().st_mode & 0o777 == 0o700
