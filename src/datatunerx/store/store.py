"""The store: versioned objects, compare-and-set, durable before it is answered, watched from memory.

Reads come from memory and see only what is committed. Writes are compared with what is staged, on the event
loop; the writer thread makes them durable; then, on the loop again and in order of version, they are
published to readers and watchers and only then acknowledged. One version counter serves all resources.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from datatunerx.store import database
from datatunerx.store.errors import Broken, Conflict, Expired, StoreError
from datatunerx.store.history import History
from datatunerx.store.lock import DirectoryLock
from datatunerx.store.model import Entry, Event, EventType, Json, Key, Seals, encode
from datatunerx.store.watch import Watch
from datatunerx.store.writer import Staged, Writer

HISTORY_BYTES = 32 << 20
COMPACT_EVERY = 1000

Listener = Callable[[Event], None]


class Store:
    """Open one with `Store.open`; every method belongs to one event loop."""

    def __init__(
        self, directory: Path, *, seals: Seals | None = None, history_bytes: int = HISTORY_BYTES
    ) -> None:
        self.locked: dict[str, str] = {}
        """Resources that cannot be unsealed, and why: they stay on disk as they are, the others work."""
        self._lock = DirectoryLock(directory / "lock")
        path = directory / "objects.db"
        path.touch(mode=0o600)  # SQLite gives its other files the same mode
        try:
            floor = self._load(path, seals or {}, history_bytes)
        except (sqlite3.Error, ValueError, StoreError) as error:
            self._lock.release()
            raise Broken(f"{path} cannot be opened: {error}") from error
        self._staged_version = self._version
        self._compacted = floor
        self._staged: dict[Key, tuple[Entry | None, int]] = {}
        self._pending: dict[int, asyncio.Future[Entry]] = {}
        self._outbox: list[Staged] = []
        self._epoch = 0
        self._watches: dict[str, list[Watch]] = {}
        self._listeners: list[Listener] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._writer = Writer(path, seals or {}, self._done)

    def _load(self, path: Path, seals: Seals, history_bytes: int) -> int:
        """Fill memory from the file; the newest version that the file's log has forgotten."""
        with contextlib.closing(database.connect(path)) as db:
            database.prepare(db)
            database.bind(db, seals)
            self._version, floor = database.counters(db)
            self._live: dict[str, dict[tuple[str, str], Entry]] = {}
            for entry in database.read_current(db, seals, self.locked):
                self._live.setdefault(entry.key.resource, {})[entry.key[1:]] = entry
            self._history = History(history_bytes, floor)
            self._history.refill(database.read_log(db, seals, self.locked))
        for resource, seal in seals.items():
            if resource not in self.locked:
                try:
                    seal.seal(b"", b"")
                except ValueError as error:
                    self.locked[resource] = str(error)
        for resource in self.locked:
            self._live.pop(resource, None)
        return floor

    @classmethod
    def open(
        cls, directory: Path, *, seals: Seals | None = None, history_bytes: int = HISTORY_BYTES
    ) -> "Store":
        """Open or make the database in `directory`; Locked when another server has it, Broken
        when the file is damaged or from a newer release.

        `seals` names the resources that must not be readable on disk. `history_bytes` bounds how far back
        a watch may resume.
        """
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(directory, seals=seals, history_bytes=history_bytes)

    # Reading

    @property
    def version(self) -> int:
        """The newest committed version over all resources."""
        return self._version

    @property
    def floor(self) -> int:
        """The oldest version a watch may start from."""
        return self._history.floor

    def get(self, key: Key) -> Entry | None:
        """The committed object."""
        return self._live.get(key.resource, {}).get(key[1:])

    def latest(self, key: Key) -> Entry | None:
        """The object as staged: what the next write will be compared with. It may yet fail to be durable."""
        staged = self._staged.get(key)
        return staged[0] if staged else self.get(key)

    def count(self, resource: str) -> int:
        """How many objects of the resource there are."""
        return len(self._live.get(resource, ()))

    def entries(self, resource: str, namespace: str | None = None, at: int | None = None) -> list[Entry]:
        """Objects in order of namespace and name, now or as they were at version `at` (Expired: too old)."""
        self._check_unsealed(resource)
        found = self._live.get(resource, {})
        if at is not None and at != self._version:
            found = self._rewound(resource, found, at)
        chosen = [entry for entry in found.values() if namespace in (None, entry.key.namespace)]
        return sorted(chosen, key=_by_name)

    def _check_unsealed(self, resource: str) -> None:
        if resource in self.locked:
            raise StoreError(self.locked[resource])

    def _rewound(
        self, resource: str, entries: dict[tuple[str, str], Entry], at: int
    ) -> dict[tuple[str, str], Entry]:
        entries = dict(entries)
        for event in self._history.backwards_to(at):
            if event.key.resource != resource:
                continue
            if event.prev is None:
                entries.pop(event.key[1:], None)
            else:
                # The version inside the bytes is the right one; this field only orders compare-and-set.
                entries[event.key[1:]] = Entry(event.key, at, event.prev)
        return entries

    def watch(self, resource: str, namespace: str | None = None, since: int | None = None) -> Watch:
        """Changes from now on, or after version `since`; Expired when that is forgotten or in the future."""
        if since is not None and since > self._version:
            raise Expired(f"version {since} is not from this database, which is at {self._version}")
        missed = self._history.since(since) if since is not None else []
        watch = Watch(namespace, lambda closed: self._watches[resource].remove(closed))
        self._watches.setdefault(resource, []).append(watch)
        for event in missed:
            if event.key.resource == resource:
                watch.feed(event)
        return watch

    def listen(self, listener: Listener) -> None:
        """Call `listener` with every event of every resource, before its writer hears. Must be quick."""
        self._listeners.append(listener)

    # Writing

    async def write(self, key: Key, obj: Json, expected: int) -> Entry:
        """Make `obj` the newest version if the staged one is `expected` (0: it must not exist).

        Returns when it is durable and visible. Raises Conflict at once, DiskFull or Broken from the commit.
        """
        return await self.stage(key, obj, expected)

    async def delete(self, key: Key, last: Json, expected: int) -> Entry:
        """Remove the object if the staged version is `expected`; `last` is what watchers see of it."""
        return await self.stage(key, last, expected, delete=True)

    def stage(self, key: Key, obj: Json, expected: int, *, delete: bool = False) -> asyncio.Future[Entry]:
        """As `write` and `delete`, with the comparison made before returning; await the future."""
        if self._closed:
            raise StoreError("the server is stopping; try again in a moment")
        self._check_unsealed(key.resource)
        current = self.latest(key)
        if (current.version if current else 0) != expected:
            raise Conflict(f"{key.name} is at version {current.version if current else 0}, not {expected}")
        self._loop = self._loop or asyncio.get_running_loop()
        self._staged_version += 1
        version = self._staged_version
        type_: EventType = "DELETED" if delete else "MODIFIED" if current else "ADDED"
        event = Event(
            version, type_, key, encode(obj, version), current.data if current else None, time.time()
        )
        self._staged[key] = (None if delete else Entry(key, version, event.data), version)
        future: asyncio.Future[Entry] = self._loop.create_future()
        self._pending[version] = future
        if not self._outbox:  # whatever else this turn of the loop stages shares the commit
            self._loop.call_soon(self._hand_over)
        self._outbox.append(Staged(event, self._epoch))
        return future

    def _hand_over(self) -> None:
        if self._outbox:
            self._writer.put(self._outbox)
            self._outbox = []

    def _done(self, batch: list[Staged], error: StoreError | None) -> None:
        """On the writer's thread: carry the news to the loop."""
        assert self._loop is not None
        if error:
            self._loop.call_soon_threadsafe(self._fail, batch, error)
        else:
            self._loop.call_soon_threadsafe(self._publish, batch)

    def _publish(self, batch: list[Staged]) -> None:
        for event, _epoch in batch:
            entry = Entry(event.key, event.version, event.data)
            live = self._live.setdefault(event.key.resource, {})
            if event.type == "DELETED":
                live.pop(event.key[1:], None)
            else:
                live[event.key[1:]] = entry
            self._version = event.version
            self._history.append(event)
            self._unstage(event)
            for watch in list(self._watches.get(event.key.resource, ())):
                watch.feed(event)
            for listener in self._listeners:
                listener(event)
            future = self._pending.pop(event.version)
            if not future.done():
                future.set_result(entry)
        if self._history.floor - self._compacted >= COMPACT_EVERY:
            self._compacted = self._history.floor
            self._writer.compact(self._compacted)

    def _fail(self, batch: list[Staged], error: StoreError) -> None:
        # Everything staged so far will be refused by the writer, which has moved past this epoch; what is
        # staged from here on stands on committed state again.
        if batch[-1].epoch >= self._epoch:
            self._epoch += 1
            self._staged.clear()
        for event, _epoch in batch:
            future = self._pending.pop(event.version)
            if not future.done():
                future.set_exception(error)
                future.exception()  # an author who left is not owed a warning

    def _unstage(self, event: Event) -> None:
        staged = self._staged.get(event.key)
        if staged and staged[1] == event.version:
            del self._staged[event.key]

    async def close(self) -> None:
        """Finish what is staged, end all watches, write the log back, let go of the directory."""
        if self._closed:
            return
        self._closed = True
        self._hand_over()
        for watches in list(self._watches.values()):
            for watch in list(watches):
                watch.close()
        await asyncio.get_running_loop().run_in_executor(None, self._writer.close)
        await asyncio.sleep(0)  # let the last commits be published
        self._lock.release()

    def pragma(self, name: str) -> object:
        """What the write connection is set to, for tests and the doctor."""
        return self._writer.pragma(name)


def _by_name(entry: Entry) -> tuple[str, str]:
    return entry.key[1:]
