"""The one thread that writes: it alone owns the write connection and its checkpoints.

Changes that wait together are committed together (group commit), so many clients share one fsync.
"""

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from datatunerx.store import database
from datatunerx.store.errors import Broken, Busy, DiskFull, StoreError
from datatunerx.store.model import Event, Seals

log = logging.getLogger(__name__)

BATCH = 512
COMPACT_BATCH = 1000


class Staged(NamedTuple):
    """A change on its way to the disk. `epoch` says which failed commits its author had heard of."""

    event: Event
    epoch: int


class _Compact(NamedTuple):
    floor: int


Done = Callable[[list[Staged], StoreError | None], None]


class Writer:
    """Takes changes in order and reports, in order, what happened to each (on its own thread)."""

    def __init__(self, path: Path, seals: Seals, done: Done) -> None:
        self._db = database.connect(path)
        database.follow(self._db)
        self._seals = seals
        self._done = done
        self._queue: queue.SimpleQueue[list[Staged] | _Compact | None] = queue.SimpleQueue()
        self._failed_epoch = -1
        self._broken: StoreError | None = None
        self._last_error: StoreError | None = None
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def put(self, staged: list[Staged]) -> None:
        """Hand over changes, to be committed together (as far as BATCH allows); never blocks."""
        self._queue.put(staged)

    def compact(self, floor: int) -> None:
        """Ask for history up to version `floor` to be forgotten, when there is time."""
        self._queue.put(_Compact(floor))

    def close(self) -> None:
        """Commit what is queued, write the log back into the database file, close."""
        self._queue.put(None)
        self._thread.join()

    def pragma(self, name: str) -> object:
        """What the write connection itself is set to."""
        return self._db.execute(f"PRAGMA {name}").fetchone()[0]

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            changes: list[Staged] = []
            while isinstance(item, list):
                changes += item
                if self._queue.empty() or len(changes) >= BATCH:
                    break
                item = self._queue.get()
            for start in range(0, len(changes), BATCH):
                self._commit(changes[start : start + BATCH])
            if item is None:
                return self._finish()
            if isinstance(item, _Compact):
                self._compact(item.floor)

    def _commit(self, batch: list[Staged]) -> None:
        # A change built on one that failed must fail too: its author could not yet know.
        doomed = [staged for staged in batch if staged.epoch <= self._failed_epoch]
        sound = [staged for staged in batch if staged.epoch > self._failed_epoch]
        if doomed:
            self._done(doomed, self._broken or self._last_error)
        if not sound:
            return
        error = self._broken or self._try(sound)
        if error:
            self._last_error = error
            self._failed_epoch = max(staged.epoch for staged in sound)
        self._done(sound, error)

    def _try(self, batch: list[Staged]) -> StoreError | None:
        try:
            database.apply(self._db, [staged.event for staged in batch], self._seals)
        except sqlite3.Error as failure:
            return self._explain(failure)
        return None

    def _explain(self, failure: sqlite3.Error) -> StoreError:
        """Roll back and say what to do. After an I/O error of unknown outcome nothing more is written."""
        code = getattr(failure, "sqlite_errorcode", None)
        rolled_back = self._roll_back()
        if code == sqlite3.SQLITE_FULL and rolled_back:
            log.error("disk full", extra={"error": str(failure)})
            return DiskFull("no space left on the disk that holds the database; free some and try again")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and rolled_back:
            log.error("database locked", extra={"error": str(failure)})
            return Busy("another program holds the database file; close it and try again")
        log.error("commit failed", extra={"error": str(failure)})
        self._broken = Broken(f"the database could not be written ({failure}); restart the server")
        return self._broken

    def _roll_back(self) -> bool:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            return False
        return True

    def _compact(self, floor: int) -> None:
        try:
            while database.compact(self._db, floor, COMPACT_BATCH) and self._queue.empty():
                pass
        except sqlite3.Error as failure:
            self._roll_back()
            log.warning("compaction put off", extra={"error": str(failure)})

    def _finish(self) -> None:
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as failure:
            log.warning("checkpoint put off", extra={"error": str(failure)})
        self._db.close()
