"""Read, publish and delete objects by URI: local files directly, everything else through fsspec.

What is written appears whole or not at all, and stays after a power cut once the call has returned.
"""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datatunerx.storage.errors import DiskFull, Missing, Refused, StorageError, TooLarge, is_disk_full
from datatunerx.storage.paths import below, check, is_local, local_path, scheme_of

PART = ".part"
"""Ending of a file that is being written."""


def read_bytes(uri: str, limit: int | None = None) -> bytes:
    """The whole object. Raises `Missing`, and `TooLarge` if it holds more than `limit` bytes."""
    with _named(uri):
        if is_local(uri):
            with local_path(uri).open("rb") as file:
                data = file.read() if limit is None else file.read(limit + 1)
        else:
            fs, path = _remote(uri)
            data = fs.cat_file(path) if limit is None else fs.cat_file(path, start=0, end=limit + 1)
    if limit is not None and len(data) > limit:
        raise TooLarge(f"{uri}: larger than the {limit} bytes expected of it")
    return bytes(data)


def sha256_of(path: Path) -> str:
    """Of a local file's bytes, in hex, in little memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tail(uri: str, num_bytes: int) -> bytes:
    """The last bytes of the object, at most `num_bytes`. Raises `Missing`."""
    with _named(uri):
        if is_local(uri):
            with local_path(uri).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - num_bytes))
                return file.read(num_bytes)
        fs, path = _remote(uri)
        return bytes(fs.tail(path, num_bytes))


def write_atomic(uri: str, data: bytes) -> None:
    """Put `data` there, replacing what was. Folders on the way are made. Raises `DiskFull`."""
    with _named(uri):
        if is_local(uri):
            _write_local(local_path(uri), data)
        else:
            fs, path = _remote(uri)
            fs.pipe_file(path, data)  # object stores show an object only once it is whole


def exists(uri: str) -> bool:
    """Whether an object or a folder is there."""
    if is_local(uri):
        return local_path(uri).exists()
    fs, path = _remote(uri)
    return bool(fs.exists(path))


def list_dir(uri: str) -> list[str]:
    """Names in a folder, sorted; none if there is no folder. Files that are being written are left out."""
    if is_local(uri):
        try:
            names = os.listdir(local_path(uri))
        except (FileNotFoundError, NotADirectoryError):
            return []
    else:
        fs, path = _remote(uri)
        try:
            names = [entry.rstrip("/").rsplit("/", 1)[-1] for entry in fs.ls(path, detail=False)]
        except FileNotFoundError:
            return []
    return sorted(name for name in names if not name.endswith(PART))


def delete_tree(uri: str, *, under: str) -> None:
    """Delete a file or a folder with all in it; nothing there is fine. Links are removed, never followed.

    Raises `Refused` unless `uri` lies strictly below `under`, whatever links lie on the way to it.
    """
    if is_local(uri):
        path, root = local_path(uri), local_path(under)
        if not below(path, root):
            raise Refused(f"{uri}: not below {under}; nothing was deleted")
        _delete_local(path)
    else:
        (fs, place), (_, top) = _remote(uri), _remote(under)
        if scheme_of(uri) != scheme_of(under) or not place.rstrip("/").startswith(top.rstrip("/") + "/"):
            raise Refused(f"{uri}: not below {under}; nothing was deleted")
        if fs.exists(place):
            fs.rm(place, recursive=True)


def publish_dir(tmp: Path, final: Path) -> bool:
    """Make a finished folder appear under its name, whole and durable.

    False if somebody published it first; `tmp` is then removed. Both must be on one file system.
    """
    with _named(str(final)):
        sync_tree(tmp)
        make_folder(final.parent)
        try:
            os.rename(tmp, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            shutil.rmtree(tmp)
            return False
        sync_folder(final.parent)
        return True


def free_bytes(uri: str) -> int:
    """Bytes that can still be written where a local URI points to, or will, once its folders exist."""
    path = local_path(uri)
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def make_folder(path: Path) -> None:
    """Make a folder and those on the way to it, each durable in its parent."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make names in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(path: Path) -> None:
    """Make a folder durable with every file and folder in it."""
    for folder, _, files in os.walk(path):
        for name in files:
            handle = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_folder(Path(folder))


def _write_local(path: Path, data: bytes) -> None:
    make_folder(path.parent)
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}{PART}")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)  # the rename itself is durable only with its folder


def _delete_local(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    elif path.exists():
        shutil.rmtree(path)
    if path.parent.exists():
        sync_folder(path.parent)


def _remote(uri: str) -> tuple[Any, str]:
    """The fsspec file system and the path in it. Imported here: local use must not pay for it."""
    import fsspec

    check(uri)
    try:
        fs, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise Refused(f"{uri}: cannot be opened ({error})") from error
    return fs, str(path)


@contextmanager
def _named(uri: str) -> Iterator[None]:
    """System errors become storage errors that name the URI."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise Missing(errno.ENOENT, "nothing is there", uri) from error
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull(errno.ENOSPC, "no space left on the disk; free some and try again", uri) from error
        raise
