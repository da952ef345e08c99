"""A talk, with the server's stream pretended: what is sent, what is kept, and what Ctrl-C ends."""

import asyncio
import json
import os
import signal

import pytest

from datatunerx.cli.chat import Talk, _turn
from datatunerx.client import Api
from datatunerx.client.errors import ApiError


class Stream:
    """Says its pieces, then hangs if it is told to."""

    def __init__(self, *pieces, hangs=False, error=None, breaks=""):
        self.pieces, self.hangs, self.error, self.asked = pieces, hangs, error, []
        self.breaks = breaks

    async def stream(self, path, *, body, headers):
        self.asked.append(json.loads(body))
        if self.error:
            raise self.error
        for piece in self.pieces:
            yield b"data: " + json.dumps({"choices": [{"delta": {"content": piece}}]}).encode()
        if self.hangs:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(30)
        if self.breaks:
            yield b"data: " + json.dumps({"error": {"message": self.breaks}}).encode()
        yield b"data: [DONE]"


@pytest.fixture
def talk():
    return Talk("s", "tiny", "default", {"max_tokens": 5})


async def test_each_turn_sends_all_that_was_said(talk, capsys):
    stream = Stream("Hel", "lo")
    await _turn(Api(stream), talk, "/system Be kind.")
    await _turn(Api(stream), talk, "Hi")
    await _turn(Api(stream), talk, "And now?")

    said = [(m["role"], m["content"]) for m in stream.asked[1]["messages"]]
    first = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello")]
    assert said == [*first, ("user", "And now?")]
    assert stream.asked[1]["max_tokens"] == 5 and capsys.readouterr().out == "Hello\nHello\n"


async def test_a_reset_forgets_what_was_said_but_not_what_it_is_told(talk):
    stream = Stream("a")
    for text in ("/system S", "one", "/reset", "two"):
        await _turn(Api(stream), talk, text)
    assert [m["content"] for m in stream.asked[-1]["messages"]] == ["S", "two"]


async def test_ctrl_c_ends_the_answer_and_not_the_talk(talk, capsys):
    before = signal.getsignal(signal.SIGINT)
    await asyncio.wait_for(_turn(Api(Stream("so far", hangs=True)), talk, "Hi"), 10)
    assert "stopped" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before

    stream = Stream("again")
    await _turn(Api(stream), talk, "Go on")
    assert [m["content"] for m in stream.asked[0]["messages"]] == ["Hi", "so far", "Go on"]


async def test_a_refused_question_is_told_and_forgotten(talk, capsys):
    refused = ApiError(400, "too_long", "the prompt has 900 tokens and the context 128")
    await _turn(Api(Stream(error=refused)), talk, "x" * 1000)
    assert "the context 128" in capsys.readouterr().err and talk.turns == []
    assert talk.unanswered == 1


async def test_an_answer_that_breaks_off_is_told_and_the_talk_goes_on(talk, capsys):
    await _turn(Api(Stream("so f", breaks="the worker is gone")), talk, "Hi")
    assert "the worker is gone" in capsys.readouterr().err and (talk.turns, talk.unanswered) == ([], 1)
    await _turn(Api(Stream("here")), talk, "Hi")
    assert [m["content"] for m in talk.turns] == ["Hi", "here"]


async def test_an_unknown_command_is_no_question(talk, capsys):
    stream = Stream("a")
    await _turn(Api(stream), talk, "/quit")
    assert stream.asked == [] and "/exit" in capsys.readouterr().err
