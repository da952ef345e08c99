"""SIGTERM as a wish: it interrupts where nothing would be lost, and waits where something would."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """The worker was asked to leave. Not an Exception: no handler of failures may take it for one."""


class Stopping:
    """Whether the worker was asked to leave."""

    def __init__(self) -> None:
        self.asked = False
        self._deferred = False

    def listen(self) -> None:
        """Take SIGTERM from now on; only from the main thread."""
        signal.signal(signal.SIGTERM, self._on_signal)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, a wish only sets `asked`: who is here looks at it and leaves in good order."""
        if self.asked:
            raise Interrupted
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def ignore(self) -> None:
        """The work is done, and only its result is still to be written: nothing may come between."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        first, self.asked = not self.asked, True
        if first and not self._deferred:
            raise Interrupted
