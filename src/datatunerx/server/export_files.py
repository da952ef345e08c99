"""GET llmcheckpoints/NAME/files: an export of a checkpoint, for who wants it on another machine.

?export=NAME                  which files it has: {"files": [{"path", "size", "sha256"}]}
?export=NAME&path=model.gguf  one of them
?export=NAME&archive=tar      all of them as one tar, not compressed

Files and tars are sent piece by piece, whatever their size, and by Range from where a broken one stopped.
"""

import asyncio
import hashlib
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

from datatunerx.server import local_files, reads
from datatunerx.server.errors import ApiError, Json, bad_request
from datatunerx.server.http import Request
from datatunerx.server.run_files import export_folder
from datatunerx.server.writes import Target
from datatunerx.store import Store

PART = 1 << 20
MAX_FILES = 10_000
RECORD = "export.json"
OCTETS, TAR = "application/octet-stream", "application/x-tar"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")


class Piece(NamedTuple):
    """Some bytes of an answer: these, or all of a file."""

    size: int
    source: bytes | Path


async def serve(store: Store, target: Target, request: Request, root: Path | None) -> None:
    """Answer; 404 for an export or file that is not there, 403 and 501 as `export_folder`."""
    checkpoint = reads.find(store, target.kind, target.namespace, target.name).decode()
    export = _export(checkpoint, request.query.get("export", ""))
    folder = export_folder(
        checkpoint, export, root, lambda uri: local_files.may_read(uri, request.user, request.allowed_paths)
    )
    files = await asyncio.to_thread(_files, folder)
    if request.query.get("archive"):
        if request.query["archive"] != "tar":
            raise bad_request("archive: must be tar")
        pieces = await asyncio.to_thread(_tar, folder, files, f"{target.name}-{export['name']}")
        return await _send(pieces, TAR, request)
    if path := request.query.get("path"):
        if path not in files:
            raise ApiError(404, "NotFound", f"export {export['name']} of {target.name} has no file {path!r}")
        whole = await asyncio.to_thread(_whole, folder / path)
        return await _send([whole], OCTETS, request)
    told = await asyncio.to_thread(_listed, folder, files)
    await request.json(200, {"export": export["name"], "to": export["to"], "files": told})


def _export(checkpoint: Json, name: str) -> Json:
    """The entry of the spec, if it has become something."""
    known = checkpoint["metadata"]["name"]
    asked: Json | None = next((e for e in checkpoint["spec"].get("exports") or () if e["name"] == name), None)
    if asked is None:
        names = ", ".join(each["name"] for each in checkpoint["spec"].get("exports") or ()) or "none"
        raise ApiError(404, "NotFound", f"checkpoint {known} has no export {name!r}; it has {names}")
    said = (checkpoint.get("status") or {}).get("exports") or ()
    phase = next((each.get("phase") for each in said if each["name"] == name), "Pending")
    if phase != "Succeeded":
        raise ApiError(404, "NotFound", f"export {name} of {known} is {phase}; there are no files of it")
    return asked


def _files(folder: Path) -> list[str]:
    """Its files by their paths below it; links are none."""
    found: list[str] = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if path.is_file() and not path.is_symlink():
                found.append(path.relative_to(folder).as_posix())
        if len(found) > MAX_FILES:
            raise ApiError(
                501, "NotImplemented", f"{folder} has more than {MAX_FILES:,} files; copy it there"
            )
    if not found:
        raise ApiError(404, "NotFound", f"{folder}: its files are gone; export it again")
    return sorted(found)


def _listed(folder: Path, files: Sequence[str]) -> list[Json]:
    """Path, size, and the SHA-256 that the export's own record says; none of the record itself.

    Raises ApiError if the record is damaged: without it nobody could tell whether the rest is whole.
    """
    try:
        noted = orjson.loads((folder / RECORD).read_bytes())["files"]
        known = {str(path): str(each["sha256"]) for path, each in noted.items()}
    except FileNotFoundError:
        known = {}  # an image layout: its blobs are called by their digests
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ApiError(
            500, "InternalError", f"{folder / RECORD} is damaged; remove the export and make it again"
        ) from None
    told: list[Json] = []
    for path in files:
        blob = _BLOB.fullmatch(path)
        digest = blob[1] if blob else known.get(path)
        told.append(
            {"path": path, "size": (folder / path).stat().st_size} | ({"sha256": digest} if digest else {})
        )
    return told


def _whole(path: Path) -> Piece:
    return Piece(path.stat().st_size, path)


def _tar(folder: Path, files: Sequence[str], inside: str) -> list[Piece]:
    """The files as a tar, in a folder called `inside`; the same again while they are the same."""
    pieces: list[Piece] = []
    for path in files:
        about = (folder / path).stat()
        head = tarfile.TarInfo(f"{inside}/{path}")
        head.size, head.mtime, head.mode = about.st_size, int(about.st_mtime), 0o644
        data = head.tobuf(tarfile.PAX_FORMAT)
        pieces += [Piece(len(data), data), Piece(about.st_size, folder / path)]
        padding = -about.st_size % tarfile.BLOCKSIZE
        pieces.append(Piece(padding, bytes(padding)))
    end = 2 * tarfile.BLOCKSIZE
    return [*pieces, Piece(end, bytes(end))]


async def _send(pieces: Sequence[Piece], kind: str, request: Request) -> None:
    """The bytes, or those that a Range names."""
    size = sum(piece.size for piece in pieces)
    tag = f'"{hashlib.sha256(repr([_mark(piece) for piece in pieces]).encode()).hexdigest()[:32]}"'
    about = {"accept-ranges": "bytes", "etag": tag}
    code, start, end = 200, 0, size
    asked = _RANGE.fullmatch(request.header("range"))
    if asked and any(asked.groups()) and request.header("if-range") in ("", tag):
        code, (start, end) = 206, _between(asked, size)
        about["content-range"] = f"bytes {start}-{end - 1}/{size}"
    await request.start(code, kind, about | {"content-length": str(end - start)})
    if request.method != "HEAD":
        await _pieces(pieces, start, end, request)
    await request.chunk(b"", more=False)


def _mark(piece: Piece) -> object:
    """What differs when its bytes do."""
    if isinstance(piece.source, bytes):
        return piece.source
    about = piece.source.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns


def _between(asked: re.Match[str], size: int) -> tuple[int, int]:
    """First byte and the one behind the last. 416 where there are none."""
    first, last = asked.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= end:
        raise ApiError(416, "RangeNotSatisfiable", f"it has {size:,} bytes; none of them are {asked[0]}")
    return start, end


async def _pieces(pieces: Sequence[Piece], start: int, end: int, request: Request) -> None:
    left = asyncio.create_task(request.gone())
    try:
        for piece, low, high in _cut(pieces, start, end):
            if isinstance(piece.source, bytes):
                await request.chunk(piece.source[low:high])
                continue
            # A link that took the file's place meanwhile is not followed.
            file = await asyncio.to_thread(os.open, piece.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                while low < high and not left.done():
                    data = await asyncio.to_thread(os.pread, file, min(PART, high - low), low)
                    if not data:
                        raise OSError(f"{piece.source} became shorter while it was sent")
                    low += len(data)
                    await request.chunk(data)
            finally:
                os.close(file)
            if left.done():
                return
    finally:
        left.cancel()


def _cut(pieces: Sequence[Piece], start: int, end: int) -> Iterator[tuple[Piece, int, int]]:
    """Of each piece what lies between two places of the whole."""
    at = 0
    for piece in pieces:
        low, high = max(start - at, 0), min(end - at, piece.size)
        if low < high:
            yield piece, low, high
        at += piece.size
