"""One HTTP exchange over raw ASGI: what was asked, and answering it."""

import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import orjson

from datatunerx.server.errors import ApiError, Json, bad_request, too_large
from datatunerx.server.tokens import User

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON = "application/json"
MAX_BODY = 3 << 20
WARNINGS, WARNINGS_SIZE = 50, 4096
"""Warning headers of one answer, and characters in all of them: clients take a hundred headers at most."""


class Request:
    """What was asked. Query values are the last given of each name."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        raw = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        self.query: dict[str, str] = {name: values[-1] for name, values in raw.items()}
        self.headers: dict[str, str] = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        self.user = User("system:anonymous", ("system:unauthenticated",))
        self.allowed_paths: Sequence[Path] = ()
        """Folders of this machine that others than its owner may name files of."""
        self.doubled: list[str] = []
        """Paths of fields that stand twice in the body, until they are judged."""
        self.warnings: list[str] = []
        self.started = False
        """Whether an answer has begun."""
        self._receive = receive
        self._send = send

    def header(self, name: str) -> str:
        """The header's value; empty when absent."""
        return self.headers.get(name, "")

    def flag(self, name: str) -> bool:
        """A boolean query parameter; present without a value means yes."""
        return name in self.query and self.query[name].lower() not in ("false", "0")

    def number(self, name: str) -> int | None:
        """A whole-number query parameter; 400 when it is something else."""
        value = self.query.get(name, "")
        if not value:
            return None
        if not value.isdigit():
            raise bad_request(f'query parameter {name}: "{value}" is not a whole number')
        return int(value)

    @property
    def agent(self) -> str:
        """Who changes things, when no fieldManager says so."""
        return self.header("user-agent").split("/", 1)[0].strip() or "unknown"

    async def body(self) -> bytes:
        """The whole body, unpacked; 413 beyond 3 MiB (of either form)."""
        length = self.header("content-length")
        if length.isdigit() and int(length) > MAX_BODY:
            raise too_large(MAX_BODY)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > MAX_BODY:
                raise too_large(MAX_BODY)
            if not message.get("more_body"):
                break
        body = b"".join(parts)
        return _unzip(body) if self.header("content-encoding").lower() == "gzip" else body

    async def part(self) -> tuple[bytes, bool]:
        """The next bytes of the body, as they come, and whether more follow. Raises ClientGone."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message.get("body", b""), bool(message.get("more_body"))

    async def gone(self) -> None:
        """Return when the client has hung up."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, code: int, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        """Send the head of an answer."""
        self.started = True
        pairs = [(b"content-type", content_type.encode()), (b"cache-control", b"no-cache, private")]
        pairs += [(b"warning", f'299 - "{_quoted(text)}"'.encode()) for text in _fitting(self.warnings)]
        pairs += [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        await self._send({"type": "http.response.start", "status": code, "headers": pairs})

    async def chunk(self, data: bytes, more: bool = True) -> None:
        """Send a piece of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def answer(
        self, code: int, data: bytes, content_type: str = JSON, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole answer."""
        await self.start(code, content_type, {"content-length": str(len(data)), **(headers or {})})
        await self.chunk(b"" if self.method == "HEAD" else data, more=False)

    async def json(self, code: int, body: Json) -> None:
        """Send a whole JSON answer."""
        await self.answer(code, orjson.dumps(body))

    async def refuse(self, error: ApiError) -> None:
        """Send a Status object."""
        headers = {"www-authenticate": "Bearer"} if error.code == 401 else None
        await self.answer(error.code, orjson.dumps(error.status()), headers=headers)


class ClientGone(Exception):
    """The client hung up; nobody is left to answer."""


def _fitting(warnings: list[str]) -> list[str]:
    """As many as a client takes in its headers; the last says how many were left out."""
    told: list[str] = []
    size = 0
    for text in warnings:
        size += len(text)
        if size > WARNINGS_SIZE or len(told) == WARNINGS:
            return [*told, f"and {len(warnings) - len(told)} more warnings"]
        told.append(text)
    return told


def _quoted(text: str) -> str:
    # A header value must be one line of printable ASCII, quotes escaped.
    plain = "".join(letter if " " <= letter <= "~" else "?" for letter in text)
    return plain.replace("\\", "\\\\").replace('"', '\\"')


def _unzip(body: bytes) -> bytes:
    unpack = zlib.decompressobj(wbits=31)
    try:
        plain = unpack.decompress(body, MAX_BODY + 1)
    except zlib.error as error:
        raise bad_request(f"the body is not gzip as its header says: {error}") from None
    if len(plain) > MAX_BODY:
        raise too_large(MAX_BODY)
    return plain
