"""The digest of a file, remembered for as long as the file is the same: 10 GB take many seconds to read."""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from datatunerx.data.sources import open_source
from datatunerx.storage.errors import StorageError
from datatunerx.storage.objects import write_atomic

CHUNK = 1024 * 1024
SETTLED_SECONDS = 2.0
"""A file that changed this recently may change again without its times telling so."""


def file_digest(uri: str, memory: Path | None = None) -> str:
    """SHA-256 of the file's bytes, in hex; as remembered in the folder `memory` if neither the file's size
    nor its times (of which nobody can set the last one) nor its place have changed since.

    Raises DataError for what cannot be read.
    """
    with open_source(uri) as stream:
        if memory is None:
            return _read(stream)
        now = _marks(stream)
        place = memory / f"{hashlib.sha256(uri.encode()).hexdigest()[:32]}.json"
        with suppress(OSError, ValueError, KeyError):
            known = json.loads(place.read_bytes())
            if known["marks"] == now:
                return str(known["digest"])
        digest = _read(stream)
        if _marks(stream) == now and time.time() - max(now[3:]) / 1e9 > SETTLED_SECONDS:
            with suppress(OSError, StorageError):  # without room for it, it is read again next time
                write_atomic(str(place), json.dumps({"marks": now, "digest": digest}).encode())
        return digest


def _read(stream: BinaryIO) -> str:
    found = hashlib.sha256()
    while chunk := stream.read(CHUNK):
        found.update(chunk)
    return found.hexdigest()


def _marks(stream: BinaryIO) -> list[int]:
    found = os.fstat(stream.fileno())
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
