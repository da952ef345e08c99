"""What the caches under a data root hold, how large each part is, and removing one with all its bytes."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datatunerx.storage.errors import Refused
from datatunerx.storage.paths import below

CACHES = ("cache/tokens", "fetched", "models", "models/hub", "uploads")
"""Folders, below the data root, whose entries can be made again, or fetched or uploaded again."""
KEPT = ("sets", "marks", "hub", ".parts")
"""Names in them that are no entries."""
YOUNG_SECONDS = 3600.0
"""Half-made entries younger than this belong to somebody who is at work."""


@dataclass(frozen=True)
class Entry:
    """One thing that can be removed alone."""

    kind: str
    """tokens, fetched, model, download, upload, or unfinished."""
    path: Path
    bytes: int
    """That its removal gives back: blocks on disk, of files that no other entry holds too."""
    used: float
    """When it was last used or made, in seconds since 1970."""

    @property
    def name(self) -> str:
        return self.path.name


def entries(root: Path) -> Iterator[Entry]:
    """Everything in the caches, folder by folder."""
    kinds = {"cache/tokens": "tokens", "fetched": "fetched", "models": "model", "models/hub": "download"}
    for folder, kind in kinds.items():
        for path in _listed(root / folder):
            yield entry(path, "unfinished" if path.name.startswith(".") else kind)
    for namespace in _listed(root / "uploads"):
        for path in _listed(namespace):
            yield entry(path, "upload")
    for path in (root / "uploads" / ".parts").glob("*/*"):
        yield entry(path, "unfinished")


def entry(path: Path, kind: str) -> Entry:
    return Entry(kind, path, disk_bytes(path), _last_used(path))


def remove(found: Entry, root: Path) -> int:
    """Remove the entry; bytes given back, 0 if somebody holds it. Raises `Refused` outside the data root.

    A folder that a worker has locked is left alone. It is renamed first, so nobody finds half of it; who has
    mapped its files goes on reading them.
    """
    if not below(found.path, root):
        raise Refused(f"{found.path}: not below {root}; nothing was removed")
    if found.path.is_symlink() or found.path.is_file():
        found.path.unlink(missing_ok=True)
        return found.bytes
    try:
        handle = os.open(found.path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        aside = found.path.with_name(f".{secrets.token_hex(6)}.removed")
        found.path.rename(aside)
        shutil.rmtree(aside)
    except (BlockingIOError, FileNotFoundError):
        return 0
    finally:
        os.close(handle)
    return found.bytes


def disk_bytes(path: Path) -> int:
    """Bytes on disk, as `du` counts them; a file with a second name elsewhere is not counted."""
    total = _blocks(path)
    for folder, names, files in os.walk(path):
        for name in (*names, *files):
            total += _blocks(Path(folder, name))
    return total


def _blocks(path: Path) -> int:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0
    return 0 if path.is_file() and found.st_nlink > 1 else found.st_blocks * 512


def _last_used(path: Path) -> float:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0.0
    return max(found.st_mtime, found.st_atime if path.is_file() else 0.0)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name not in KEPT and path.name != ".lock")
    except (FileNotFoundError, NotADirectoryError):
        return []
