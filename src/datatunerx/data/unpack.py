"""Packed files into plain ones: .gz and .zst as streams, archives only when asked for, both within limits.

What is packed says little of what comes out: every limit is on what comes out, as it comes.
"""

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from datatunerx.data.errors import DataError
from datatunerx.storage.errors import Refused
from datatunerx.storage.fetch import inside, room_for

STREAMS = {".gz": "gzip", ".zst": "zstd"}
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
READ = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".pq", ".arrow", ".xlsx", ".txt", ".md")
"""Files of an archive that are taken; others, such as a licence, are named and left out."""
MAX_OUT_BYTES = 256 << 30
FREE_BYTES = 64 << 20
MAX_RATIO = 200
"""Bytes out for each byte in, beyond the first FREE_BYTES: text packs ten times, a bomb a thousand times."""
MAX_MEMBERS = 10_000
CHUNK_BYTES = 1 << 20


def packing(name: str) -> str:
    """`archive`, `gzip`, `zstd`, or empty for a plain file; told by the name alone."""
    lower = name.lower().split("?")[0]
    if lower.endswith(ARCHIVES):
        return "archive"
    return next((how for suffix, how in STREAMS.items() if lower.endswith(suffix)), "")


def plain_name(name: str) -> str:
    """The name without .gz or .zst."""
    return name[: name.rfind(".")] if packing(name) in STREAMS.values() else name


def expand(uri: str, name: str, source: Path, folder: Path) -> None:
    """Write what a .gz or .zst file holds. Raises DataError for a broken one and for a bomb."""
    how = packing(name)
    with _plain_errors(uri, f"broken {how} file"), _stream(source, how) as stream:
        if not _copy(stream, folder / plain_name(name), _Budget(uri, source)):
            raise DataError("is empty inside", uri, fix="remove it from the splits or write rows into it")


def unpack(uri: str, name: str, source: Path, folder: Path) -> None:
    """Write the data files of an archive, in its own folders. Raises DataError for what must not be."""
    budget, taken = _Budget(uri, source), 0
    with _plain_errors(uri, "broken archive"):
        count = 0
        for member, passed, stream in _members(uri, name, source):
            if _is_clutter(member):
                budget.take(passed)
                continue
            count += 1
            if count > MAX_MEMBERS:
                raise DataError(f"holds more than {MAX_MEMBERS:,} files", uri, fix="pack fewer, larger files")
            if packing(member):
                raise DataError("holds another packed file", uri, field=member, fix="unpack that one first")
            if PurePosixPath(member).suffix.lower() not in READ:
                budget.take(passed)
                continue
            place = inside(folder, member)
            if place.exists():
                raise DataError("holds two files of one name", uri, field=member, fix="pack it again")
            place.parent.mkdir(parents=True, exist_ok=True)
            _copy(stream, place, budget)
            taken += 1
    if not taken:
        raise DataError("holds no data file", uri, fix=f"pack files of these kinds: {', '.join(READ)}")


def _members(uri: str, name: str, source: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name and bytes of each file, and how many bytes are unpacked to pass it over."""
    if name.lower().endswith(".zip"):
        with zipfile.ZipFile(source) as archive:
            for info in archive.infolist():
                if info.is_dir():
                    continue
                if info.flag_bits & 1:
                    raise DataError("is locked with a password", uri, fix="pack it without one")
                if (info.external_attr >> 16) & 0o170000 not in (0, 0o100000):
                    raise DataError(
                        "holds a link or a device", uri, field=info.filename, fix="pack plain files"
                    )
                with archive.open(info) as stream:
                    yield info.filename, 0, stream
        return
    how = "zstd" if name.lower().endswith(".zst") else ""
    with _stream(source, how) as packed, tarfile.open(fileobj=packed, mode="r|" if how else "r|*") as archive:
        for member in archive:
            if member.isdir():
                continue
            if not member.isreg():
                raise DataError("holds a link or a device", uri, field=member.name, fix="pack plain files")
            inner = archive.extractfile(member)
            assert inner is not None
            yield member.name, member.size, inner


def _is_clutter(name: str) -> bool:
    """What an operating system adds by itself."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or bool(parts and parts[-1].startswith("._")) or parts[-1:] == (".DS_Store",)


class _Budget:
    """How much may still come out."""

    def __init__(self, uri: str, source: Path) -> None:
        self.uri, self.source, self.out = uri, source, 0
        self.limit = min(MAX_OUT_BYTES, FREE_BYTES + MAX_RATIO * source.stat().st_size)

    def take(self, num_bytes: int) -> None:
        before, self.out = self.out, self.out + num_bytes
        if self.out > self.limit:
            packed = self.source.stat().st_size
            raise DataError(
                f"unpacks to over {self.limit:,} bytes from {packed:,}: a bomb, or too much of the same",
                self.uri, fix="give the file unpacked",
            )  # fmt: skip
        if before // FREE_BYTES != self.out // FREE_BYTES:
            room_for(self.source.parent, FREE_BYTES, self.uri)


def _copy(stream: Any, place: Path, budget: _Budget) -> int:
    written = 0
    with place.open("xb") as file:
        while data := stream.read(CHUNK_BYTES):
            budget.take(len(data))
            file.write(data)
            written += len(data)
    return written


@contextmanager
def _stream(source: Path, how: str) -> Iterator[Any]:
    if how == "gzip":
        with gzip.open(source, "rb") as stream:
            yield stream
    elif how == "zstd":
        import pyarrow as pa  # 0.2 s that other files need not pay

        with pa.CompressedInputStream(pa.OSFile(str(source)), "zstd") as stream:
            yield stream
    else:
        with source.open("rb") as stream:
            yield stream


@contextmanager
def _plain_errors(uri: str, what: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{what}: {error}", uri, fix="pack it again, or give it unpacked") from error
    except (NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, Refused):
            raise DataError(str(error), uri, fix="pack it again with plain names") from error
        raise DataError(f"{what}: {error}", uri, fix="pack it again, or give it unpacked") from error
    except OSError as error:
        if error.errno is not None:  # of the disk, not of the file's content
            raise
        raise DataError(f"{what}: {error}", uri, fix="pack it again, or give it unpacked") from error
