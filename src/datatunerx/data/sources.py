"""Where bytes are read: local paths, file:// and pkg://module/file. What lies elsewhere is gathered first.

A file is refused here, before a row is read, when it is not what a dataset can be: a folder, a device, a
link, an archive, UTF-16.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from datatunerx.data.errors import DataError
from datatunerx.runs.files import path_of
from datatunerx.storage.errors import Refused, StorageError
from datatunerx.storage.paths import packaged

SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")
HEAD_BYTES = 4096
PACKED = {
    b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7z", b"Rar!": "rar",
}  # fmt: skip
WIDE = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


@contextmanager
def open_source(uri: str) -> Iterator[BinaryIO]:
    """The file's bytes, seekable where its place allows. Raises DataError for what cannot be a dataset."""
    try:
        path = local_path(uri)
        if path is None:
            fix = "have the Dataset inspected, which fetches it, or copy it here"
            raise DataError("is not on this machine", uri, fix=fix)
        refuse_unlike_a_file(path, uri)
        with path.open("rb") as stream:
            yield stream
    except (OSError, ImportError) as error:
        raise unreadable(error, uri) from error


def unreadable(error: Exception, uri: str) -> DataError:
    """What the system says of a file, as a DataError."""
    return DataError(f"cannot be read: {_plainly(error)}", uri, fix=_hint(error, uri))


def head_of(stream: BinaryIO, uri: str) -> bytes:
    """The first bytes, with the stream back at its start. Refuses archives and wide encodings."""
    head = stream.read(HEAD_BYTES)
    stream.seek(0)
    if not head:
        raise DataError("is empty", uri, fix="remove it from the splits or write rows into it")
    for magic, name in PACKED.items():
        if head.startswith(magic):
            raise DataError(f"is compressed ({name})", uri, fix="unpack it and name the file inside")
    for mark, name in WIDE.items():
        if head.startswith(mark):
            raise DataError(f"is {name}, not UTF-8", uri, fix="save it as UTF-8")
    if head[:64].count(0) > len(head[:64]) // 4 and head[:4] not in (b"PAR1", b"ARRO") and head[0] != 0xFF:
        raise DataError("looks like UTF-16 or a binary file, not UTF-8 text", uri, fix="save it as UTF-8")
    return head


def local_path(uri: str) -> Path | None:
    """The path behind a local URI; None if the file is elsewhere. A package is found, never imported."""
    scheme = SCHEME.match(uri)
    if scheme is None:
        return Path(uri).expanduser()
    if scheme[1].lower() == "file":
        return path_of(uri)
    if scheme[1].lower() != "pkg":
        return None
    try:
        return packaged(uri)
    except Refused as error:
        raise said(error, uri) from error


def said(error: StorageError, uri: str) -> DataError:
    """The same as a DataError: what storage says begins with a URI and ends with the fix."""
    place, sep, text = str(error).partition(": ")
    message, _, fix = (text if sep else place).rpartition("; ")
    return DataError(message or fix, place if sep else uri, fix=fix if message else "")


def refuse_unlike_a_file(path: Path, uri: str) -> None:
    """Raise DataError for a folder, a link, a device."""
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        raise DataError("is a symbolic link", uri, fix=f"name the file it points to: {os.readlink(path)}")
    if stat.S_ISDIR(found.st_mode):
        raise DataError("is a folder", uri, fix="name the files in it")
    if not stat.S_ISREG(found.st_mode):
        raise DataError("is a device, pipe or socket, not a file", uri, fix="copy what it gives into a file")


def _plainly(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _hint(error: Exception, uri: str) -> str:
    if isinstance(error, ImportError):
        return f"pip install {error.name or 'the package that reads ' + uri.partition('://')[0]}"
    if SCHEME.match(uri) and not uri.lower().startswith("file:"):
        return "check the address, and that this machine may reach it"
    if isinstance(error, FileNotFoundError):
        return "check the path; relative paths start where the worker runs"
    if isinstance(error, PermissionError):
        return "let this user read the file"
    return "check the disk"
