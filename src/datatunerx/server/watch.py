"""Watch: changes as they are committed, one JSON line each, in the form that was asked for."""

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from functools import lru_cache

import orjson

from datatunerx.server import negotiate, reads
from datatunerx.server.errors import Json, bad_request
from datatunerx.server.errors import expired as expired_error
from datatunerx.server.http import JSON, Request
from datatunerx.server.kinds import Kind
from datatunerx.server.selectors import Matches
from datatunerx.server.table import partial, table
from datatunerx.server.tokens import User
from datatunerx.store import Event, Expired, Store, Watch

BOOKMARK_SECONDS = 60.0
CHUNK_BYTES = 256 << 10


class Watches:
    """All open watches, so that a stopping server can end them first, and all of whom is let in no longer.

    `admitted` says whether a user would still be let in, with the same rights.
    """

    def __init__(self, admitted: Callable[[User], bool]) -> None:
        self._open: dict[Watch, User] = {}
        self._admitted = admitted
        self.stopping = False

    def add(self, watch: Watch, user: User) -> None:
        self._open[watch] = user
        if self.over(user):
            watch.close()

    def discard(self, watch: Watch) -> None:
        self._open.pop(watch, None)
        watch.close()

    def over(self, user: User) -> bool:
        """Whether what this user follows must end now."""
        return self.stopping or not self._admitted(user)

    def end_all(self) -> None:
        """Close every stream; clients come back with the last version they saw."""
        self.stopping = True
        self.end_refused()

    def end_refused(self) -> None:
        """Close the streams of those who would not be let in now."""
        for watch, user in list(self._open.items()):
            if self.over(user):
                watch.close()

    def __len__(self) -> int:
        return len(self._open)


@lru_cache(maxsize=16)
def _judged(kind: Kind, data: bytes) -> Json:
    """An object for selectors to look at, decoded once for all who watch it; not to be changed."""
    return reads.shown(kind, data)


class Encoder:
    """Turns events into lines of the form a client wants; drops what its selectors do not choose."""

    def __init__(self, request: Request, kind: Kind) -> None:
        self._kind = kind
        self._matches: Matches | None = reads.matcher(request, kind)
        self._form = negotiate.form(request.header("accept"))
        self._include = request.query.get("includeObject", "Metadata")
        self._heads = True

    def event(self, event: Event) -> bytes | None:
        """The line for a change; None when it does not concern this watch."""
        if self._matches is None:
            return self.line(event.type, event.data)
        now = event.type != "DELETED" and self._matches(_judged(self._kind, event.data))
        before = event.prev is not None and self._matches(_judged(self._kind, event.prev))
        if now:
            return self.line("MODIFIED" if before else "ADDED", event.data)
        if before and event.prev is not None:
            # It left the selection: to this client that is a deletion, of what it last saw, at this version.
            last: Json = orjson.loads(event.prev)
            last["metadata"]["resourceVersion"] = str(event.version)
            return self.line("DELETED", orjson.dumps(last))
        return None

    def line(self, type_: str, data: bytes) -> bytes:
        if self._form == "object":
            body = reads.listed_bytes(self._kind, data)
        elif self._form == "partial":
            body = orjson.dumps(partial(reads.listed(self._kind, data)))
        else:
            obj = reads.listed(self._kind, data)
            metadata = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            body = orjson.dumps(table(self._kind, [obj], self._include, metadata, heads=self._heads))
            self._heads = False
        return b'{"type":"%s","object":%s}\n' % (type_.encode(), body)

    def bookmark(self, version: int, *, initial: bool = False) -> bytes:
        """A line that only moves the client's version forward."""
        metadata: Json = {"resourceVersion": str(version), "creationTimestamp": None}
        if initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        obj: Json = {"kind": self._kind.name, "apiVersion": self._kind.api_version, "metadata": metadata}
        if self._form == "partial":
            obj = partial(obj)
        if self._form == "table":
            row = {"cells": [], "object": partial(obj)}
            names = {"kind": "Table", "apiVersion": "meta.k8s.io/v1"}
            version_only = {"resourceVersion": str(version)}
            obj = names | {"metadata": version_only, "columnDefinitions": [], "rows": [row]}
        return orjson.dumps({"type": "BOOKMARK", "object": obj}) + b"\n"


async def serve(store: Store, watches: Watches, kind: Kind, namespace: str | None, request: Request) -> None:
    """Answer a watch until its time is over, the client leaves, falls behind, or the server stops."""
    encoder = Encoder(request, kind)
    seconds = request.number("timeoutSeconds") or random.uniform(1800, 3600)
    seconds = min(seconds, request.user.seconds_left())
    since = request.number("resourceVersion")
    initial = request.flag("sendInitialEvents")
    if initial and request.query.get("resourceVersionMatch") != "NotOlderThan":
        raise bad_request("sendInitialEvents needs resourceVersionMatch=NotOlderThan")
    from_start = initial or ("sendInitialEvents" not in request.query and not since)
    try:
        watch = store.watch(kind.stored_as, namespace, None if from_start else since or None)
    except Expired as error:
        return await _expired(request, str(error))
    # Nothing may be awaited between opening the watch and listing: the list is where the watch begins.
    first = reads.entries(store, kind, namespace, request) if from_start else []
    version = store.version
    watches.add(watch, request.user)
    left = asyncio.create_task(_close_when_gone(request, watch))
    try:
        await request.start(200, JSON)
        await _send(request, (encoder.line("ADDED", entry.data) for entry in first))
        if initial:
            await request.chunk(encoder.bookmark(version, initial=True))
        bookmarks = request.flag("allowWatchBookmarks")
        await _stream(store, watch, encoder.event, request, seconds, encoder.bookmark if bookmarks else None)
        await request.chunk(b"", more=False)
    finally:
        left.cancel()
        watches.discard(watch)


async def _stream(
    store: Store,
    watch: Watch,
    encode: Callable[[Event], bytes | None],
    request: Request,
    seconds: float,
    bookmark: Callable[[int], bytes] | None,
) -> None:
    end = time.monotonic() + seconds
    next_bookmark = time.monotonic() + BOOKMARK_SECONDS
    while not watch.overflowed:
        now = time.monotonic()
        if now >= end:
            break
        events = await watch.take(min(end, next_bookmark) - now if bookmark else end - now)
        if events:
            await _send(request, (line for event in events if (line := encode(event))))
        elif watch.closed:
            return
        elif bookmark and time.monotonic() >= next_bookmark:
            await request.chunk(bookmark(store.version))
            next_bookmark = time.monotonic() + BOOKMARK_SECONDS
    if bookmark and not watch.overflowed:
        # Whatever came while the last lines were sent is told first, so that the version is true.
        while rest := await watch.take(0):
            await _send(request, (line for event in rest if (line := encode(event))))
        if not watch.closed:
            await request.chunk(bookmark(store.version))


async def _send(request: Request, lines: Iterable[bytes]) -> None:
    waiting: list[bytes] = []
    size = 0
    for line in lines:
        waiting.append(line)
        size += len(line)
        if size > CHUNK_BYTES:
            await request.chunk(b"".join(waiting))
            waiting, size = [], 0
    if waiting:
        await request.chunk(b"".join(waiting))


async def _close_when_gone(request: Request, watch: Watch) -> None:
    await request.gone()
    watch.close()


async def _expired(request: Request, why: str) -> None:
    # As an event inside a good answer: some clients understand "too old" only in this form.
    await request.start(200, JSON)
    line = orjson.dumps({"type": "ERROR", "object": expired_error(why).status()}) + b"\n"
    await request.chunk(line, more=False)
