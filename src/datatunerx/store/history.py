"""The recent past, in memory and bounded in bytes: watches resume from it, old lists are rebuilt from it."""

from collections import deque
from collections.abc import Iterable, Iterator

from datatunerx.store.errors import Expired
from datatunerx.store.model import Event


class History:
    """Events in order of version. `floor` is the newest version whose event is forgotten."""

    def __init__(self, limit: int, floor: int) -> None:
        self.limit = limit
        self.floor = floor
        self._events: deque[Event] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    def refill(self, newest_first: Iterable[Event]) -> None:
        """Take as much of the stored log as fits."""
        for event in newest_first:
            if self._bytes + event.size > self.limit:
                self.floor = event.version
                break
            self._events.appendleft(event)
            self._bytes += event.size

    def append(self, event: Event) -> None:
        """Add the newest event; forget the oldest ones beyond the limit (never the newest one itself)."""
        self._events.append(event)
        self._bytes += event.size
        while self._bytes > self.limit and len(self._events) > 1:
            gone = self._events.popleft()
            self._bytes -= gone.size
            self.floor = gone.version

    def since(self, version: int) -> list[Event]:
        """Every event after `version`, oldest first; Expired when some are forgotten."""
        if version < self.floor:
            raise Expired(f"too old resource version: {version} ({self.floor + 1})")
        newer: list[Event] = []
        for event in reversed(self._events):
            if event.version <= version:
                break
            newer.append(event)
        newer.reverse()
        return newer

    def backwards_to(self, version: int) -> Iterator[Event]:
        """Every event after `version`, newest first; Expired when some are forgotten."""
        return reversed(self.since(version))
