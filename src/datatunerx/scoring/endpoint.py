"""Asking a model behind an OpenAI-shaped URL: many questions, a few at a time, each a few times at most.

Only the URL that the user wrote is called: no redirect is followed, no proxy of the environment used.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from datatunerx.resources.finetune import Endpoint
from datatunerx.scoring.errors import ScoringError

MAX_REPLY_BYTES = 4 << 20
MAX_DEAF = 5
"""Questions in a row that get no answer, before the others are not asked any more."""
RETRY_SECONDS = 0.5
"""Before the second try; twice as long before each further one."""
LONGEST_WAIT = 30.0
"""Seconds that a server may have us wait by Retry-After."""
_SHOWN = 200
_AGAIN = (408, 409, 425, 429)

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Reply:
    """What came of one question: a text, or why there is none."""

    text: str | None
    finish: str = "stop"
    why: str = ""


class _NotNow(Exception):
    """No answer this time; asking again may help, after `seconds` if the server said so."""

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds


class _Never(Exception):
    """No answer, and asking again will not help."""


def key_problem(endpoint: Endpoint) -> str | None:
    """Why its key cannot be sent there; None if it can."""
    parts = urlsplit(endpoint.url)
    if endpoint.secret_ref is None or parts.scheme == "https" or _is_here(parts.hostname or ""):
        return None
    return f"{parts.scheme}://{parts.netloc} would have the key sent in clear; use https, or no secretRef"


def ask(
    endpoint: Endpoint,
    questions: Sequence[Messages],
    body: dict[str, Any],
    key: str | None,
    tell: Callable[[int], None] = lambda done: None,
) -> list[Reply]:
    """One reply per question, in order. `tell` hears how many are done.

    Raises `ScoringError` where the key would be sent in clear.
    """
    if problem := key_problem(endpoint):
        raise ScoringError(problem)
    return asyncio.run(_ask_all(_Asking(endpoint, body, key, tell), questions))


@dataclass
class _Asking:
    endpoint: Endpoint
    body: dict[str, Any]
    key: str | None
    tell: Callable[[int], None]
    done: int = 0
    deaf: int = 0
    """Questions without an answer since the last that had one."""
    last: str = ""

    def note(self, reply: Reply) -> Reply:
        self.deaf = 0 if reply.text is not None else self.deaf + 1
        self.last = reply.why or self.last
        self.done += 1
        self.tell(self.done)
        return reply


async def _ask_all(asking: _Asking, questions: Sequence[Messages]) -> list[Reply]:
    waiting = iter(enumerate(questions))
    replies = [Reply(None, why="not asked")] * len(questions)
    timeout = aiohttp.ClientTimeout(total=asking.endpoint.timeout_seconds)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def work() -> None:
            for number, messages in waiting:
                if asking.deaf >= MAX_DEAF:
                    why = f"not asked after {MAX_DEAF} in a row without an answer; the last: {asking.last}"
                    replies[number] = Reply(None, why=why[:_SHOWN])
                else:
                    replies[number] = asking.note(await _ask(session, asking, messages))

        async with asyncio.TaskGroup() as group:
            for _ in range(asking.endpoint.concurrency):
                group.create_task(work())
    return replies


async def _ask(session: aiohttp.ClientSession, asking: _Asking, messages: Messages) -> Reply:
    wait, why = RETRY_SECONDS, ""
    for attempt in range(asking.endpoint.retries + 1):
        try:
            return await _post(session, asking, messages)
        except _Never as error:
            return Reply(None, why=str(error))
        except _NotNow as error:
            why = str(error)
            if attempt < asking.endpoint.retries:
                await asyncio.sleep(wait if error.seconds is None else error.seconds)
                wait *= 2
    return Reply(None, why=f"{why} ({asking.endpoint.retries + 1} tries)")


async def _post(session: aiohttp.ClientSession, asking: _Asking, messages: Messages) -> Reply:
    endpoint = asking.endpoint
    content = {"model": endpoint.model, "messages": messages} | asking.body | endpoint.body
    headers = {"Authorization": f"Bearer {asking.key}"} if asking.key else {}
    url = f"{endpoint.url.rstrip('/')}/chat/completions"
    try:
        async with session.post(url, json=content, headers=headers, allow_redirects=False) as answer:
            data = await _read(answer)
            status, after = answer.status, answer.headers.get("Retry-After", "")
    except TimeoutError:
        raise _NotNow(f"no answer within {endpoint.timeout_seconds} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise _NotNow(_clean(f"{type(error).__name__}: {error}", asking.key)) from None
    if status != 200:
        why = _clean(f"HTTP {status}: {data[:_SHOWN].decode('utf-8', 'replace')}", asking.key)
        if status in _AGAIN or status >= 500:
            raise _NotNow(why, min(float(after), LONGEST_WAIT) if after.isdigit() else None)
        raise _Never(why)
    return _reply(data)


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for chunk in answer.content.iter_any():
        data += chunk
        if len(data) > MAX_REPLY_BYTES:
            raise _Never(f"a reply of more than {MAX_REPLY_BYTES:,} bytes")
    return bytes(data)


def _reply(data: bytes) -> Reply:
    try:
        choice = json.loads(data)["choices"][0]
        text, finish = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise _Never("the reply is not a chat completion") from None
    if not isinstance(text, str):
        raise _Never("the reply has no text")
    return Reply(text, finish if isinstance(finish, str) else "stop")


def _clean(text: str, key: str | None) -> str:
    """One line, and without the key: a server may repeat what it was sent."""
    line = " ".join(text.split())
    return (line.replace(key, "***") if key else line)[:_SHOWN]


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
