"""Events in a file: one JSON line each, appended by a worker, tailed by offset by the others."""

import errno
import json
import logging
import math
import os
import threading
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from datatunerx.runs.events import Event, EventType
from datatunerx.runs.files import path_of

log = logging.getLogger(__name__)

PAGE_BYTES = 4 << 20
"""How much of a file one look reads, at most."""
NO_SPACE = "no space was left on the disk"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class EventWriter:
    """Appends events, each in one write, from any thread.

    A disk that takes nothing stops nobody: events are then lost, counted, and the count is told once it
    takes something again.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = _local(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._torn = not self._ends_in_line_break()
        self._lost = 0
        self._why = ""

    @property
    def lost(self) -> int:
        """Events that could not be written and have not been told of yet."""
        return self._lost

    def write(self, event: Event) -> None:
        """Append one event. Values that are not finite numbers are left out."""
        line = encode(event)
        with self._lock:
            if self._lost and self._append(encode(_loss(self._lost, self._why))):
                self._lost = 0
            if self._lost or not self._append(line):
                self._lost += 1

    def close(self) -> None:
        with self._lock:
            os.close(self._file)

    def _append(self, line: bytes) -> bool:
        # A line break first ends what a torn write, ours or a dead worker's, has left behind.
        data = b"\n" + line if self._torn else line
        try:
            written = os.write(self._file, data)
        except OSError as error:
            # also when it is no full disk: without events, and the heartbeat among them, work goes on
            self._note(NO_SPACE if error.errno in _NO_SPACE else str(error))
            return False
        self._torn = written < len(data)
        if self._torn:
            self._note(NO_SPACE)
        return not self._torn

    def _note(self, why: str) -> None:
        if not self._lost:
            log.error("events are being lost", extra={"path": str(self._path), "error": why})
        self._why = why

    def _ends_in_line_break(self) -> bool:
        size = os.fstat(self._file).st_size
        return size == 0 or os.pread(self._file, 1, size - 1) == b"\n"


class EventPage(NamedTuple):
    events: list[Event]
    offset: int
    """Where to look next, in bytes."""
    skipped: int
    """Lines that are no events."""


def read_events(path: Path | str, offset: int = 0) -> tuple[list[Event], int]:
    """Events from `offset` on and the next offset; see `read_page`. Skipped lines are logged."""
    page = read_page(path, offset)
    if page.skipped:
        log.warning("lines that are no events", extra={"path": str(path), "lines": page.skipped})
    return page.events, page.offset


def read_page(path: Path | str, offset: int = 0, limit: int = PAGE_BYTES) -> EventPage:
    """At most `limit` bytes of events from `offset` on; call again until the offset stands still.

    A last line without its line break is left for the next look. Never raises for what is in the file;
    no file is no events. A file shorter than `offset` was replaced and is read from its start.
    """
    try:
        with _local(path).open("rb") as file:
            if offset > file.seek(0, os.SEEK_END):
                offset = 0
            file.seek(offset)
            data = file.read(limit)
    except FileNotFoundError:
        return EventPage([], offset, 0)
    whole, line_break, _ = data.rpartition(b"\n")
    if not line_break:
        # A line longer than the page is no event; its rest is skipped by the looks that follow.
        return EventPage([], offset + len(data), 1) if len(data) == limit else EventPage([], offset, 0)
    lines = [line for line in whole.split(b"\n") if line.strip()]
    events = [event for line in lines if (event := _decode(line)) is not None]
    return EventPage(events, offset + len(whole) + 1, len(lines) - len(events))


def encode(event: Event) -> bytes:
    """One line of UTF-8 JSON."""
    document = _finite(event.dump())
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _local(place: Path | str) -> Path:
    """Of a path or a file:// URI. Appending and tailing need a local file."""
    return place if isinstance(place, Path) else path_of(place)


def _decode(line: bytes) -> Event | None:
    try:
        return Event.model_validate_json(line)
    except (ValidationError, ValueError):
        return None


def _finite(value: Any) -> Any:
    """The document without numbers that are not finite: missing is missing, never null or 0."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items() if not _is_odd(item)}
    if isinstance(value, list):
        return [_finite(item) for item in value if not _is_odd(item)]
    return value


def _is_odd(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _loss(count: int, why: str) -> Event:
    return Event(type=EventType.WARNING, message=f"{count} events were lost: {why}")
