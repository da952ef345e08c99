"""Far files fetched once into a folder of this machine: resumable, whole or not there, named by content.

<store>/<key>/files/, meta.json       a copy; the key is of the URI, its version and what was done to it
<store>/.<key>.part/                  one that is being made; a broken fetch goes on where it stopped
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datatunerx.storage.errors import (
    Changed,
    DiskFull,
    NotResumable,
    Refused,
    StorageError,
    TooLarge,
    Unreachable,
    is_disk_full,
)
from datatunerx.storage.objects import PART, make_folder, publish_dir, sha256_of
from datatunerx.storage.remote import Remote

META, FILES, RAW = "meta.json", "files", "raw"
TRIES = 4
"""Of one file whose bytes break off."""
WAIT_SECONDS = 1.0
SPARE_BYTES = 256 << 20
"""Left free on the disk, for the database and the logs."""
MAX_FILE_BYTES = 1 << 40
PROGRESS_SECONDS = 1.0
MODE_AS_IS = "as it is"

Progress = Callable[[int, int | None, float], None]
"""Called about once a second with bytes here, bytes of the whole if known, and bytes a second."""
Make = Callable[[Path, Path], None]
"""Makes files in a folder (second) of the fetched bytes (first)."""


@dataclass(frozen=True)
class Copy:
    """Files of this machine that one far or packed file became."""

    folder: Path
    names: list[str]
    """Paths in the folder, in order."""


def key_of(uri: str, version: str, mode: str) -> str:
    """Names the copy of this very content, made in this way."""
    return hashlib.sha256(f"{uri}\n{version}\n{mode}".encode()).hexdigest()[:32]


def fetch(
    remote: Remote,
    store: Path,
    *,
    mode: str = MODE_AS_IS,
    make: Make | None = None,
    on_progress: Progress = lambda here, whole, speed: None,
    max_bytes: int = MAX_FILE_BYTES,
) -> Copy:
    """The file's copy in `store`, fetched unless it is there; `make` turns the bytes into files, once.

    Raises `Unreachable`, `Changed`, `TooLarge`, `DiskFull` and what the place and `make` raise. A fetch
    that is killed or breaks off leaves what it has, and the next one goes on from there.
    """
    if remote.size is not None and remote.size > max_bytes:
        raise TooLarge(f"{remote.uri}: holds {remote.size:,} bytes, at most {max_bytes:,} are taken")
    key = key_of(remote.uri, remote.version, mode)
    if remote.version and (there := copy_at(store / key)):
        return there
    with _part(store, key, kept=bool(remote.version)) as part:
        if remote.version and (there := copy_at(store / key)):  # another process was at it before us
            return there
        room_for(store, (remote.size or 0) - _size(part / RAW), remote.uri)
        sha256 = _download(remote, part / RAW, on_progress, max_bytes)
        if not remote.version:
            key = key_of(remote.uri, sha256, mode)
        return _publish(part, store / key, remote.uri, remote.name, make)


def made(source: Path, uri: str, store: Path, mode: str, make: Make) -> Copy:
    """What `make` makes of a file of this machine, made once for its content."""
    version = sha256_of(source)
    key = key_of(uri, version, mode)
    if there := copy_at(store / key):
        return there
    with _part(store, key, kept=False) as part:
        return copy_at(store / key) or _publish(part, store / key, uri, source.name, make, source)


def telling(tell: Callable[[str], None], uri: str) -> Progress:
    """Progress in words."""

    def told(here: int, whole: int | None, speed: float) -> None:
        of = f" of {whole / 1e6:,.1f}" if whole is not None else ""
        tell(f"fetching {uri}: {here / 1e6:,.1f}{of} MB, {speed / 1e6:,.1f} MB a second")

    return told


def copy_at(folder: Path) -> Copy | None:
    """The whole copy in a folder; None if there is none, or its files are not as long as they were."""
    try:
        meta = json.loads((folder / META).read_bytes())
        sizes = {str(name): int(size) for name, size in meta["files"].items()}
        if any((folder / FILES / name).stat().st_size != size for name, size in sizes.items()):
            raise ValueError("not whole")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    os.utime(folder)  # used just now: the oldest go first when the cache is cleaned
    return Copy(folder / FILES, list(sizes))


def room_for(place: Path, num_bytes: int, uri: str) -> None:
    """Raise `TooLarge`, with both numbers, if that much does not fit on the disk."""
    free = max(0, shutil.disk_usage(place).free - SPARE_BYTES)
    if num_bytes > free:
        raise TooLarge(
            f"{uri}: needs {num_bytes:,} bytes on this disk and {free:,} are free for it; free some"
        )


@contextmanager
def _part(store: Path, key: str, *, kept: bool) -> Iterator[Path]:
    """The folder of a copy that is being made, for one process at a time."""
    part = store / f".{key}{PART}"
    make_folder(store)
    while True:
        part.mkdir(exist_ok=True)
        try:
            handle = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if not _is_at(part, handle):  # whoever had it before us has published and removed it
                continue
            if not kept:
                _empty(part)
            try:
                yield part
            finally:
                if not kept:
                    shutil.rmtree(part, ignore_errors=True)
            return
        finally:
            os.close(handle)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_at(folder: Path, handle: int) -> bool:
    try:
        return folder.stat().st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False


def _publish(
    part: Path, folder: Path, uri: str, name: str, make: Make | None, source: Path | None = None
) -> Copy:
    whole = part / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    files = whole / FILES
    files.mkdir(parents=True)
    if make is None:
        (part / RAW).rename(files / name)
    else:
        make(source or part / RAW, files)
    names = sorted(path.relative_to(files).as_posix() for path in files.rglob("*") if path.is_file())
    sizes = {name: (files / name).stat().st_size for name in names}
    meta = {"uri": uri, "files": sizes, "fetched": time.time()}
    (whole / META).write_text(json.dumps(meta), encoding="utf-8")
    if folder.exists():  # there, and not whole
        shutil.rmtree(folder)
    publish_dir(whole, folder)
    shutil.rmtree(part, ignore_errors=True)
    return Copy(folder / FILES, names)


def _download(remote: Remote, raw: Path, on_progress: Progress, max_bytes: int) -> str:
    """Fetch what is missing of the bytes; their SHA-256."""
    for attempt in range(TRIES):
        before = _size(raw)
        try:
            _append(remote, raw, on_progress, max_bytes)
            break
        except NotResumable:
            raw.unlink(missing_ok=True)
        except Changed:
            raw.unlink(missing_ok=True)
            raise
        except Unreachable:
            if not remote.version:  # nothing tells whether the rest would be of the same content
                raw.unlink(missing_ok=True)
            if attempt == TRIES - 1 and _size(raw) <= before:
                raise
            time.sleep(WAIT_SECONDS * 2**attempt)
    else:
        raise Unreachable(f"{remote.uri}: broke off {TRIES} times; what is here is kept, try again")
    if remote.size is not None and _size(raw) != remote.size:
        found = _size(raw)
        raw.unlink()
        raise Changed(
            f"{remote.uri}: gave {found:,} bytes and not the {remote.size:,} it promised; try again"
        )
    sha256 = sha256_of(raw)
    if remote.sha256 and remote.sha256 != sha256:
        raw.unlink()
        raise Changed(f"{remote.uri}: its bytes are not those its place promises (SHA-256); try again")
    return sha256


def _append(remote: Remote, raw: Path, on_progress: Progress, max_bytes: int) -> None:
    start = _size(raw)
    if remote.size is not None and start >= remote.size:
        return
    begun = told = time.monotonic()
    try:
        with raw.open("ab") as file, remote.read(start) as chunks:
            for data in chunks:
                file.write(data)
                here = file.tell()
                if here > max_bytes:
                    raise TooLarge(f"{remote.uri}: gives more than the {max_bytes:,} bytes that are taken")
                now = time.monotonic()
                if now - told >= PROGRESS_SECONDS:
                    told = now
                    on_progress(here, remote.size, (here - start) / (now - begun))
            if remote.size is not None and file.tell() < remote.size:
                raise Unreachable(f"{remote.uri}: broke off at byte {file.tell():,} of {remote.size:,}")
    except OSError as error:
        if isinstance(error, StorageError) or not is_disk_full(error):
            raise
        raise DiskFull(
            errno.ENOSPC, "no space left on the disk; free some and try again", remote.uri
        ) from error
    on_progress(_size(raw), remote.size, (_size(raw) - start) / max(time.monotonic() - begun, 1e-9))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def inside(folder: Path, name: str) -> Path:
    """Where a member of an archive goes. Raises `Refused` for a name that would leave the folder."""
    parts = name.replace("\\", "/").split("/")
    if not name or name.startswith(("/", "\\")) or ".." in parts or "\0" in name or ":" in parts[0]:
        raise Refused(f"{name!r}: a name in the archive leads out of it; pack it again with plain names")
    return folder.joinpath(*(part for part in parts if part not in ("", ".")))
