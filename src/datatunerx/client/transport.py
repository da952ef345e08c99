"""How a request reaches the API: one small protocol, and the way that needs no socket.

`Https` in `https.py` is the other way; callers cannot tell which they have.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, urlencode

from datatunerx.client.errors import Unreachable, from_answer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

USER = "datatunerx.user"
"""Scope extension by which an in-process caller says who it is; nothing from the network can set it."""
AGENT = "datatunerx"
MAX_LINE = 64 << 20


class Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes


class Transport(Protocol):
    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """One exchange. Raises Unreachable when nobody answers; a refusal is an ordinary Response."""
        ...

    def stream(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> AsyncIterator[bytes]:
        """Lines of a GET, or of a POST of `body`, as they come, until the server ends them.

        Raises ApiError when it is refused.

        Every line, empty ones too: in a log they say something.
        """
        ...


class InProcess:
    """Calls the ASGI app in this process, as `user`, who counts as authenticated."""

    def __init__(self, app: ASGIApp, user: str = "datatunerx:controllers") -> None:
        self._app = app
        self._user = user

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        status, answered, parts = 0, {}, list[bytes]()
        given = [{"type": "http.request", "body": body or b"", "more_body": False}]

        async def receive() -> Message:
            if given:
                return given.pop()
            await asyncio.Event().wait()  # we do not hang up
            raise AssertionError

        async def send(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], _decoded(message.get("headers", ()))
            else:
                parts.append(message.get("body", b""))

        await self._app(self._scope(method, path, query, headers, body), receive, send)
        if not status:
            raise Unreachable(0, "NoAnswer", f"{method} {path}: the server gave no answer; is it stopping?")
        return Response(status, answered, b"".join(parts))

    async def stream(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> AsyncIterator[bytes]:
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue(1000)
        left = asyncio.Event()
        status = 0
        given = [{"type": "http.request", "body": body or b"", "more_body": False}]
        method = "GET" if body is None else "POST"

        async def receive() -> Message:
            if given:
                return given.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message.get("body"):
                await chunks.put(message["body"])

        async def call() -> None:
            try:
                await self._app(self._scope(method, path, query, headers, body), receive, send)
            finally:
                await chunks.put(None)

        async def answered() -> AsyncIterator[bytes]:
            refusal = b""
            while (chunk := await chunks.get()) is not None:
                if status == 200:
                    yield chunk
                else:
                    refusal += chunk
            if status != 200:
                raise from_answer(status, refusal)

        task = asyncio.create_task(call())
        try:
            async for line in lines(answered(), path):
                yield line
            await task  # an error of the app is the caller's to see
        finally:
            left.set()
            if not task.done():
                task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _scope(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        body: bytes | None = None,
    ) -> Scope:
        sent = {"host": "localhost", "user-agent": AGENT, **(headers or {})}
        if body is not None:
            sent["content-length"] = str(len(body))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": path,
            "raw_path": quote(path).encode(),
            "root_path": "",
            "query_string": urlencode(query or {}).encode(),
            "headers": [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in sent.items()],
            "client": ("in-process", 0),
            "server": ("localhost", 0),
            "extensions": {USER: self._user},
        }


async def lines(chunks: AsyncIterator[bytes], path: str) -> AsyncIterator[bytes]:
    """The lines in chunks of any size, without their ends; the last one may have none."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > MAX_LINE:
            raise Unreachable(0, "LineTooLong", f"{path}: a line of more than {MAX_LINE} bytes")
    if rest:
        yield rest


def _decoded(pairs: Any) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}
