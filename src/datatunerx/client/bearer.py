"""A transport that brings somebody's token along, so that they get what they may have and no more."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from datatunerx.client.transport import Response, Transport


class Bearer:
    """Another transport, with a token. Below it must be one that adds no identity of its own."""

    def __init__(self, transport: Transport, token: str) -> None:
        self._transport = transport
        self._header = {"authorization": f"Bearer {token}"}

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **rest: Any
    ) -> Response:
        given = {**(headers or {}), **self._header}
        return await self._transport.request(method, path, headers=given, **rest)

    def stream(
        self, path: str, *, headers: Mapping[str, str] | None = None, **rest: Any
    ) -> AsyncIterator[bytes]:
        return self._transport.stream(path, headers={**(headers or {}), **self._header}, **rest)
