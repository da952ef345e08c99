"""One reader of changes: a bounded queue that closes rather than grow without limit."""

import asyncio
from collections import deque
from collections.abc import Callable

from datatunerx.store.model import Event

LIMIT_BYTES = 8 << 20
LIMIT_EVENTS = 20_000


class Watch:
    """Events of one resource (and namespace), in order, from the moment it was opened.

    A reader too slow to keep up finds `overflowed` set: it must open a new watch from the last version it
    saw. Close it when done, or it is fed for ever.
    """

    def __init__(self, namespace: str | None, close: Callable[["Watch"], None]) -> None:
        self.namespace = namespace
        self.overflowed = False
        self.closed = False
        self._queue: deque[Event] = deque()
        self._bytes = 0
        self._waiting: asyncio.Future[None] | None = None
        self._close = close

    def feed(self, event: Event) -> None:
        """Add an event if it concerns this reader; called by the store only."""
        if self.closed or (self.namespace is not None and event.key.namespace != self.namespace):
            return
        if self._queue and (self._bytes + event.size > LIMIT_BYTES or len(self._queue) >= LIMIT_EVENTS):
            self.overflowed = True
            self.close()
            return
        self._queue.append(event)
        self._bytes += event.size
        self._wake()

    async def take(self, timeout: float | None = None) -> list[Event]:
        """Everything waiting; empty when `timeout` seconds passed without news or the watch was closed."""
        if not self._queue and not self.closed:
            # A bare future and timer: with hundreds of readers an Event inside a timeout costs as much as
            # the sending.
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            timer = loop.call_later(timeout, self._wake) if timeout is not None else None
            try:
                await self._waiting
            finally:
                self._waiting = None
                if timer:
                    timer.cancel()
        if self.overflowed:
            return []
        events = list(self._queue)
        self._queue.clear()
        self._bytes = 0
        return events

    def close(self) -> None:
        """Stop being fed and wake the reader."""
        if not self.closed:
            self.closed = True
            self._close(self)
            self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
