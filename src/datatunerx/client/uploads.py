"""A file to the server's disk in parts: what broke off is gone on with, by this call or the next one."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datatunerx.client.errors import ApiError, Conflict, Unreachable, from_answer
from datatunerx.client.transport import Transport
from datatunerx.storage import sha256_of

PART_BYTES = 8 << 20
PATIENCE_SECONDS = 60.0
"""How long a server that does not answer is asked again: it may be restarting."""
PAUSE_SECONDS = 0.5

Progress = Callable[[int, int], None]
"""Called with bytes the server has, and bytes of the whole."""


async def upload(
    transport: Transport, path: Path, namespace: str, *, on_progress: Progress = lambda here, whole: None
) -> str:
    """The upload:// URI of the file, once the server has all of it and its digest is right.

    Raises ApiError for a refusal, Unreachable if the server stays away, OSError if the file cannot be read.
    """
    sha256 = await asyncio.to_thread(sha256_of, path)
    size = path.stat().st_size
    place = f"/uploads/v1/namespaces/{namespace}"
    begin = json.dumps({"name": path.name, "size": size, "sha256": sha256}).encode()
    told = await _patiently(lambda: _sent(transport, "POST", place, begin))
    place = f"{place}/{told['id']}"
    with path.open("rb") as file:
        while told["offset"] < size:
            on_progress(told["offset"], size)
            told = await _part(transport, place, file, told["offset"])
    on_progress(size, size)
    told = await _patiently(lambda: _sent(transport, "POST", f"{place}/complete"))
    return str(told["uri"])


async def _part(transport: Transport, place: str, file: Any, offset: int) -> dict[str, Any]:
    """Send the bytes from `offset` on; what the server has then, also where it is not what we thought."""
    file.seek(offset)
    data = await asyncio.to_thread(file.read, PART_BYTES)
    if not data:
        raise ApiError(0, "FileChanged", f"{file.name} became shorter while it was uploaded; upload it again")
    try:
        return await _sent(transport, "PUT", place, data, {"offset": str(offset)})
    except (Unreachable, Conflict):  # a restart, or a part that came although its answer did not
        await asyncio.sleep(PAUSE_SECONDS)
        return await _patiently(lambda: _sent(transport, "GET", place))


async def _patiently(ask: Callable[[], Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE_SECONDS
    while True:
        try:
            found: dict[str, Any] = await ask()
            return found
        except Unreachable:
            if loop.time() > end:
                raise
        await asyncio.sleep(PAUSE_SECONDS)


async def _sent(
    transport: Transport,
    method: str,
    path: str,
    data: bytes | None = None,
    query: dict[str, str] | None = None,
) -> dict[str, Any]:
    headers = {"content-type": "application/json" if method == "POST" else "application/octet-stream"}
    answer = await transport.request(method, path, query=query, body=data, headers=headers)
    if answer.status >= 300:
        raise from_answer(answer.status, answer.body)
    found: dict[str, Any] = json.loads(answer.body)
    return found
