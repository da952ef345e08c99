"""`dtx up --detach`: which server it waits for, and that none is left behind that does not answer."""

import os
import re
import signal
import stat

import psutil
import pytest

from datatunerx.app.settings import Settings
from datatunerx.cli import serve
from datatunerx.cli.errors import NoServer

pytestmark = pytest.mark.slow


def test_the_server_of_the_home_is_waited_for_whichever_one_commands_use(lonely, tmp_path):
    lonely.environment["DTX_KUBECONFIG"] = str(tmp_path / "another-server")
    said = lonely("up", "--detach", "--port", "0")
    pid = int(re.search(r"pid (\d+)", said)[1])
    try:
        assert stat.S_IMODE((lonely.home / "server.log").stat().st_mode) == 0o600
        del lonely.environment["DTX_KUBECONFIG"]
        lonely("get", "fe")
    finally:
        os.kill(pid, signal.SIGTERM)


async def test_a_server_that_does_not_answer_in_time_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "DETACH_SECONDS", 0.1)
    before = psutil.Process().children()
    with pytest.raises(NoServer, match="it was ended"):
        await serve._detached(Settings(tmp_path / "home", port=0))
    assert psutil.Process().children() == before
