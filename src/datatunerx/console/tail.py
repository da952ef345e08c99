"""Lines of a log as a page shows them. Pure."""

from collections.abc import Sequence

from datatunerx.telemetry.logs import LONGEST_LINE, level

Row = tuple[int, str, str, int]
"""(offset, text, level, again): the last is 1 when the line takes the place of the one before it, as a
progress bar does that is drawn anew."""


def line_rows(start: int, data: bytes) -> list[Row]:
    """The lines in whole lines of a log that begin at an offset."""
    rows = []
    at = start
    for line in data.removesuffix(b"\n").split(b"\n") if data else ():
        rows.append(_row(at, line))
        at += len(line) + 1
    return rows


def rows_of(lines: Sequence[tuple[int, str]]) -> list[Row]:
    """Lines that a search has found."""
    return [_row(offset, text.encode()) for offset, text in lines]


def open_row(offset: int, data: bytes) -> Row | None:
    """The beginning of a line that is still written."""
    return _row(offset, data) if data.strip() else None


def _row(offset: int, line: bytes) -> Row:
    again = int(line.startswith(b"\r") and bool(line.strip()))
    shown = next((part for part in reversed(line.split(b"\r")) if part.strip()), b"")
    more = len(shown) - LONGEST_LINE
    text = shown[:LONGEST_LINE].decode(errors="replace")
    return offset, f"{text} … {more:,} bytes more" if more > 0 else text, level(shown), again
