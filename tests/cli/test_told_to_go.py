"""A command that is told to go, or whose terminal is closed, leaves no service of its own behind."""

import signal
import time

import pytest

LLM = """
apiVersion: datatunerx.io/v1beta1
kind: LLM
metadata: {name: nowhere}
spec: {source: "file:///no/such/model"}
"""


@pytest.fixture
def bare(lonely):
    """A platform in which nothing acts: a service that is made waits, and who made it waits with it."""
    server = lonely.start("up", "--port", "0", "--no-controllers")
    assert server.stdout is not None and server.stdout.readline().startswith("dtx serves")
    yield lonely
    server.terminate()
    server.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_chat_that_is_told_to_go_deletes_the_service_it_made(bare, tmp_path, number):
    (tmp_path / "llm.yaml").write_text(LLM)
    bare("apply", "-f", str(tmp_path / "llm.yaml"))
    command = bare.start("chat", "nowhere")
    end = time.monotonic() + 60
    while "chat-nowhere" not in (said := bare("get", "isvc")):
        assert time.monotonic() < end and command.poll() is None, said

    command.send_signal(number)

    out, err = command.communicate(timeout=60)
    assert command.returncode == 128 + number, err
    assert "Traceback" not in err
    assert "chat-nowhere" not in bare("get", "isvc")
