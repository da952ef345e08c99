"""How far the reading of data is, told now and then."""

import time

from datatunerx.data.meter import Progress
from datatunerx.runs import Event, EventType
from datatunerx.worker.journal import Journal

TELL_SECONDS = 1.0


def telling(journal: Journal, of_what: str) -> Progress:
    """Tells now and then what is done, such as reading `of_what`: rows, rows a second, and of about how many
    what share is done and when the last will be. What is begun is told at once."""
    last, before = time.monotonic(), ""

    def tell(rows: int, speed: float, total: int, doing: str) -> None:
        nonlocal last, before
        if doing == before and time.monotonic() - last < TELL_SECONDS:
            return
        last, before = time.monotonic(), doing
        rest = ""
        if total and speed:
            share = min(100, 100 * rows // total)
            rest = f", {share} %, {max(0, total - rows) / speed:,.0f} s to go"
        of = f" of about {total:,}" if total else ""
        text = f"{doing} {of_what}: {rows:,}{of} rows, {speed:,.0f} a second{rest}"
        journal.write(Event(type=EventType.ACTIVITY, activity=text))

    return tell
