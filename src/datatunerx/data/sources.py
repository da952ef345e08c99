"""Where bytes come from: local paths, file://, pkg://module/file, and whatever else fsspec reaches.

A file is refused here, before a row is read, when it is not what a dataset can be: a folder, a device, a
link, an archive, UTF-16.
"""

import importlib.util
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from datatunerx.data.errors import DataError

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
        with _opened(uri) as stream:
            yield stream
    except (OSError, ImportError) as error:
        raise DataError(f"cannot be read: {_plainly(error)}", uri, fix=_hint(error, uri)) from error


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
        return Path(unquote(urlsplit(uri).path))
    return _packaged(uri) if scheme[1].lower() == "pkg" else None


def _packaged(uri: str) -> Path:
    module, _, inside = uri.removeprefix("pkg://").partition("/")
    parts = PurePosixPath(inside).parts
    if not re.fullmatch(r"\w+(\.\w+)*", module) or not parts or ".." in parts or inside.startswith("/"):
        raise DataError(
            "is not pkg://module/file", uri, fix="write pkg://, a package's name, /, a file in it"
        )
    top, *folders = module.split(".")  # find_spec of a dotted name would import the parents
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"no package {top!r} is installed", uri, fix=f"pip install the package that has {top}"
        )
    return Path(spec.submodule_search_locations[0], *folders, *parts)


@contextmanager
def _opened(uri: str) -> Iterator[BinaryIO]:
    path = local_path(uri)
    if path is not None:
        _refuse_unlike_a_file(path, uri)
        with path.open("rb") as stream:
            yield stream
        return
    import fsspec  # 30 ms that local files need not pay

    try:
        system, place = fsspec.url_to_fs(uri)
    except ValueError as error:
        fix = "use a local path, file://, pkg://, https:// or s3://"
        raise DataError(f"cannot be reached: {error}", uri, fix=fix) from error
    with tempfile.TemporaryDirectory() as folder:  # not every place lets us seek
        copy = Path(folder, "copy")
        system.get_file(place, str(copy))
        with copy.open("rb") as stream:
            yield stream


def _refuse_unlike_a_file(path: Path, uri: str) -> None:
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
