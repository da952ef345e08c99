"""An export from the server to this machine: what broke off is gone on with, by this call or the next."""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from datatunerx.client.api import Api, path_of
from datatunerx.client.errors import ApiError, Unreachable, from_answer
from datatunerx.client.transport import Response
from datatunerx.resources import LLMCheckpoint
from datatunerx.storage import sha256_of

PART_BYTES = 8 << 20
PART = ".part"
PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.5

Progress = Callable[[str, int, int], None]
"""Called with a file's path, the bytes of it that are here, and those of the whole."""


class File(NamedTuple):
    """One file of an export."""

    path: str
    size: int
    sha256: str = ""
    """Empty where nothing says it."""


class Export(NamedTuple):
    checkpoint: str
    name: str
    namespace: str


async def files(api: Api, export: Export) -> list[File]:
    """Which files it has. Raises ApiError."""
    answer = await _asked(api, export, {})
    return [
        File(each["path"], each["size"], each.get("sha256", "")) for each in json.loads(answer.body)["files"]
    ]


async def fetch(
    api: Api,
    export: Export,
    wanted: File,
    folder: Path,
    *,
    on_progress: Progress = lambda path, here, whole: None,
) -> None:
    """Put one file of it into the folder, whole or not at all; what is there already is not fetched again.

    Raises ApiError, also for bytes that are not those of its record, and OSError.
    """
    inside = PurePosixPath(wanted.path)
    if inside.is_absolute() or ".." in inside.parts or not inside.parts:
        raise ApiError(0, "BadPath", f"the server names a file {wanted.path!r} outside of the export")
    target = folder / inside
    if target.exists():
        if await asyncio.to_thread(_is, target, wanted):
            return
        raise ApiError(
            0, "Exists", f"{target}: is another file; choose another folder, nothing is overwritten"
        )
    part = target.with_name(target.name + PART)
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as file:
        if file.tell() > wanted.size:
            file.truncate(0)
        while (here := file.tell()) < wanted.size:
            on_progress(wanted.path, here, wanted.size)
            last = min(here + PART_BYTES, wanted.size) - 1
            answer = await _asked(api, export, {"path": wanted.path}, {"range": f"bytes={here}-{last}"})
            if len(answer.body) != last + 1 - here:
                raise ApiError(0, "FileChanged", f"{wanted.path}: is another one than before; fetch it again")
            await asyncio.to_thread(file.write, answer.body)
    on_progress(wanted.path, wanted.size, wanted.size)
    if wanted.sha256 and await asyncio.to_thread(sha256_of, part) != wanted.sha256:
        part.unlink()
        raise ApiError(0, "Damaged", f"{wanted.path}: its SHA-256 is not {wanted.sha256}; fetch it again")
    part.replace(target)


def _is(path: Path, wanted: File) -> bool:
    same = path.is_file() and path.stat().st_size == wanted.size
    return same and (not wanted.sha256 or sha256_of(path) == wanted.sha256)


async def _asked(
    api: Api, export: Export, query: Mapping[str, str], headers: Mapping[str, str] | None = None
) -> Response:
    """The answer, asked for again while the server is away: it may be restarting."""
    where = path_of(LLMCheckpoint, export.namespace, export.checkpoint, "files")
    end = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while True:
        try:
            answer = await api.transport.request(
                "GET", where, query={"export": export.name, **query}, headers=headers
            )
        except Unreachable:
            if asyncio.get_running_loop().time() > end:
                raise
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        if answer.status >= 300:
            raise from_answer(answer.status, answer.body)
        return answer
