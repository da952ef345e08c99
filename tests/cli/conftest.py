"""A server without controllers in this process, and a real one as its own process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from datatunerx.client import Api
from datatunerx.client.transport import InProcess
from datatunerx.resources.crds import crd_manifests
from datatunerx.server.app import create_app
from datatunerx.server.state import open_state


@pytest.fixture
async def api(tmp_path):
    """The real server on a real database; nothing reconciles, so a test may write every status itself."""
    state = open_state(tmp_path / "home")
    app = create_app(state.store, crd_manifests(), tokens=state.tokens)
    await app.start()
    yield Api(InProcess(app))
    await app.stop()
    await state.store.close()


class Dtx:
    """The command as a user runs it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "DTX_HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1"}
        self.environment.pop("DTX_KUBECONFIG", None)
        self.environment.pop("DTX_PORT", None)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "datatunerx.cli", *arguments]
        return subprocess.Popen(
            command, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What it printed, both streams; fails unless it exits with `code`."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
        return out + err


@pytest.fixture(scope="module")
def dtx(tmp_path_factory):
    """A running platform of its own, and the command that speaks to it."""
    command = Dtx(tmp_path_factory.mktemp("dtx") / "home")
    server = command.start("up", "--port", "0")
    assert server.stdout is not None
    first = server.stdout.readline()
    assert first.startswith("dtx serves"), first + server.communicate(timeout=60)[1]
    yield command
    server.terminate()
    _, errors = server.communicate(timeout=60)
    assert server.returncode == 0, errors


@pytest.fixture
def lonely(tmp_path):
    """The command with no server behind it."""
    return Dtx(tmp_path / "home")
