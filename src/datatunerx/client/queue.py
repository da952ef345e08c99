"""A queue of names: each waits at most once, and no name is ever with two workers.

A name added while a worker has it comes again when that worker is done. Failures wait longer each time.
"""

import asyncio
import heapq
import itertools
import random
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

FIRST_SECONDS = 0.005
LONGEST_SECONDS = 60.0

K = TypeVar("K", bound=Hashable)


def backoff_seconds(failures: int, first: float = FIRST_SECONDS, longest: float = LONGEST_SECONDS) -> float:
    """How long to wait after so many failures in a row, doubling from the first."""
    return float(min(longest, first * 2 ** min(failures - 1, 60)))


def jittered(seconds: float) -> float:
    """Between half and all of it, so that many clients do not come back at once."""
    return seconds * random.uniform(0.5, 1.0)


class Queue(Generic[K]):
    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._ready: OrderedDict[K, None] = OrderedDict()
        self._busy: set[K] = set()
        self._again: set[K] = set()
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._order = itertools.count()
        self._changed = asyncio.Event()
        self._closed = False

    def add(self, key: K) -> None:
        """As soon as a worker is free. Adding a waiting name again does nothing."""
        self._due.pop(key, None)
        if key in self._busy:
            self._again.add(key)
        elif key not in self._ready:
            self._ready[key] = None
            self._changed.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Not before so many seconds; the earliest of several wishes holds."""
        at = self._clock() + seconds
        if key in self._ready or self._due.get(key, float("inf")) <= at:
            return
        self._due[key] = at
        heapq.heappush(self._later, (at, next(self._order), key))
        self._changed.set()

    def failed(self, key: K) -> float:
        """Come again after a back-off, which is returned in seconds."""
        self._failures[key] = self._failures.get(key, 0) + 1
        seconds = backoff_seconds(self._failures[key])
        self.add_after(key, seconds)
        return seconds

    def succeeded(self, key: K) -> None:
        """Forget its failures."""
        self._failures.pop(key, None)

    async def get(self) -> K | None:
        """The next name, now the caller's until `done`; None once the queue is closed."""
        while not self._closed:
            self._move_due()
            if self._ready:
                key, _ = self._ready.popitem(last=False)
                self._busy.add(key)
                return key
            self._changed.clear()
            wait = self._later[0][0] - self._clock() if self._later else None
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return None

    def done(self, key: K) -> None:
        """The worker has finished with the name."""
        self._busy.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Every waiting `get` returns None."""
        self._closed = True
        self._changed.set()

    def _move_due(self) -> None:
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            at, _, key = heapq.heappop(self._later)
            if self._due.get(key) == at:  # else it was added meanwhile, or an earlier wish holds
                self.add(key)
