"""How far the reading of data is, told now and then."""

import time
from collections.abc import Callable

from datatunerx.runs import Event, EventType
from datatunerx.worker.journal import Journal

TELL_SECONDS = 1.0


def telling(journal: Journal, doing: str, total: int = 0) -> Callable[..., None]:
    """Tells rows and rows a second now and then, and of about `total` rows when the last will be done."""
    last = time.monotonic()

    def tell(rows: int, speed: float, total: int = total) -> None:
        nonlocal last
        if time.monotonic() - last < TELL_SECONDS:
            return
        last = time.monotonic()
        of = f" of about {total:,}" if total else ""
        rest = f", {max(0, total - rows) / speed:,.0f} s to go" if total and speed else ""
        text = f"{doing}: {rows:,}{of} rows, {speed:,.0f} a second{rest}"
        journal.write(Event(type=EventType.ACTIVITY, activity=text))

    return tell
