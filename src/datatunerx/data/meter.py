"""How far a pass over the rows is: how many so far, how many a second, and about how many there are."""

import time
from collections.abc import Callable

Progress = Callable[[int, float, int, str], None]
"""Called with the rows of a pass so far, rows per second, about how many they all are (0 if that cannot be
told), and what is done - such as `reading`, to stand before the name of what - which tells passes apart."""


class Meter:
    """Tells of one pass; of nothing if nobody listens."""

    def __init__(
        self, on_progress: Progress | None, doing: str, *, num_bytes: int = 0, num_rows: int = 0
    ) -> None:
        """`num_rows` is how many rows there are; if that is not known, `num_bytes` of what they take."""
        self._on_progress, self._doing = on_progress, doing
        self._num_bytes, self._num_rows = num_bytes, num_rows
        self._rows = self._bytes = 0
        self._begun = time.monotonic()

    def add(self, rows: int, size: int = 0) -> None:
        """These rows are done, too; they take `size` bytes, or 0 if that cannot be told."""
        self._rows += rows
        self._bytes += size
        if self._on_progress is None:
            return
        total = self._num_rows or (self._rows * self._num_bytes // self._bytes if self._bytes else 0)
        speed = self._rows / max(time.monotonic() - self._begun, 1e-9)
        self._on_progress(self._rows, speed, total, self._doing)
