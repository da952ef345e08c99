"""`dtx chat`: one model, many turns, each answer as it is made."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from datatunerx.cli.documents import Json
from datatunerx.cli.errors import Exit
from datatunerx.cli.models import loaded, model_named, served
from datatunerx.cli.text import number, readable
from datatunerx.client import Api, ApiError
from datatunerx.client.api import path_of
from datatunerx.resources import InferenceService

HELP = "/system TEXT is told it first, /reset forgets what was said, /exit ends; Ctrl-C stops an answer"
UNAVAILABLE = 503


@dataclass
class Talk:
    """What was said so far, and how answers are made."""

    service: str
    model: str
    namespace: str
    settings: Json
    system: str | None = None
    turns: list[Json] = field(default_factory=list)
    unanswered: int = 0
    """Questions that were refused, or whose answer broke off."""

    def body(self) -> bytes:
        first = [{"role": "system", "content": self.system}] if self.system else []
        asked = {"model": self.model, "messages": [*first, *self.turns], "stream": True, **self.settings}
        return json.dumps(asked).encode()


async def chat(
    api: Api, name: str, namespace: str, settings: Json, system: str | None, *, terminal: bool
) -> Exit:
    """Talk until /exit or the end of input. What is asked of nobody, such as a prompt, is told on stderr.

    Exit code 1 if piped input was not answered as a whole.
    """
    model = await model_named(api, name, namespace)
    async with served(api, [model], namespace, "chat", _say) as service:
        talk = Talk(service, model.name, namespace, settings, system)
        if terminal:
            _say(f"{model.name} listens. {HELP}")
        while (line := _line(terminal)) is not None:
            text = line.strip()
            if text == "/exit":
                break
            if text:
                await _turn(api, talk, text)
    return Exit.FAILED if talk.unanswered and not terminal else Exit.OK


async def _turn(api: Api, talk: Talk, text: str) -> None:
    """Follow a command, or ask and show the answer; one that was stopped is kept as far as it came."""
    command, _, rest = text.partition(" ")
    if command == "/reset":
        talk.turns.clear()
        return _say("forgotten")
    if command == "/system":
        talk.system = rest.strip() or None
        return _say("what it is told first is set; /reset begins anew with it")
    if command.startswith("/") and command.isascii() and command[1:].isalpha():
        return _say(f"{command} is no command; {HELP}")
    talk.turns.append({"role": "user", "content": text})
    parts: list[str] = []
    with _stoppable(asyncio.create_task(_show(api, talk, parts))) as answering:
        try:
            await answering
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            print(flush=True)
            _say("stopped")
        except ApiError as error:
            talk.turns.pop()
            talk.unanswered += 1
            if parts:
                print(flush=True)
            return _say(f"error: {error.message}")
    talk.turns.append({"role": "assistant", "content": "".join(parts)})


async def _show(api: Api, talk: Talk, parts: list[str]) -> None:
    """Print the answer as it comes; a service that was unloaded meanwhile is loaded first."""
    try:
        await _print(api, talk, parts)
    except ApiError as error:
        if error.status != UNAVAILABLE or parts:
            raise
        _say(error.message)
        await loaded(api, talk.service, talk.namespace, _say)
        await _print(api, talk, parts)


async def _print(api: Api, talk: Talk, parts: list[str]) -> None:
    where = path_of(InferenceService, talk.namespace, talk.service, "proxy/v1/chat/completions")
    facts: Json = {}
    async for chunk in events(api.transport.stream(where, body=talk.body(), headers=JSON)):
        if "error" in chunk:
            raise ApiError(0, "AnswerBrokeOff", chunk["error"]["message"])
        for choice in chunk.get("choices") or []:
            if piece := (choice.get("delta") or {}).get("content"):
                parts.append(piece)
                print(readable(piece) if sys.stdout.isatty() else piece, end="", flush=True)
        facts = chunk.get("datatunerx") or facts
    print(flush=True)
    if facts and sys.stderr.isatty():
        speed = number(round(facts["tokensPerSecond"], 1))
        _say(f"({facts['tokens']} tokens, {facts['seconds']:.1f} s, {speed} tokens/s)")


JSON = {"content-type": "application/json"}


async def events(lines: AsyncIterator[bytes]) -> AsyncIterator[Json]:
    """The documents of a stream of server-sent events, until [DONE]."""
    async for line in lines:
        if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
            yield json.loads(line[5:])


@contextmanager
def _stoppable(answering: "asyncio.Task[None]") -> "Iterator[asyncio.Task[None]]":
    """Ctrl-C ends the task and not the program, as long as the block lasts."""
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, answering.cancel)
    try:
        yield answering
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)


def _line(terminal: bool) -> str | None:
    """What the user says next; None at the end of input. Nothing else is under way, so this may block."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio's would not wake the reading
    try:
        return input("> ") if terminal else sys.stdin.readline() or None
    except EOFError:
        return None
    except KeyboardInterrupt:
        if not terminal:
            return None
        _say("\n/exit or Ctrl-D ends")
        return ""
    finally:
        signal.signal(signal.SIGINT, before)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
