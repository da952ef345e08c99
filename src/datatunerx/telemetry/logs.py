"""Reading growing log files by byte offset: nothing is read twice, and a big file opens at once."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

BLOCK = 64 << 10
CHUNK = 256 << 10
POLL_SECONDS = 0.1
LONGEST_LINE = 16 << 10
"""Bytes after which an unfinished line is taken as one, so that a reader never stands still."""
LEVELS = ("error", "warning")
_ERROR = re.compile(rb"\b(?i:error|fatal|critical|traceback|failed)\b|[a-z]Error\b")
_WARNING = re.compile(rb"\b(?i:warn|warnings?)\b|[a-z]Warning\b")


def size(path: Path) -> int:
    """Bytes in the file now; 0 when there is none yet."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def read(path: Path, offset: int, limit: int) -> bytes:
    """At most `limit` bytes from `offset`; empty at the end. Raises FileNotFoundError."""
    with path.open("rb") as file:
        return os.pread(file.fileno(), limit, offset)


def tail_offset(path: Path, lines: int) -> int:
    """Where the last `lines` lines begin, found from the end in blocks; an unfinished line counts."""
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        if lines <= 0 or end == 0:
            return end
        # The newline that ends the last line ends no earlier one.
        place = end - 1 if os.pread(file.fileno(), 1, end - 1) == b"\n" else end
        wanted = lines
        while place > 0:
            start = max(0, place - BLOCK)
            block = os.pread(file.fileno(), place - start, start)
            found = block.count(b"\n")
            if found >= wanted:
                at = len(block)
                for _ in range(wanted):
                    at = block.rfind(b"\n", 0, at)
                return start + at + 1
            wanted -= found
            place = start
    return 0


def whole_lines(data: bytes) -> bytes:
    """Without the unfinished last line. One that is very long is cut, before a \\r if it can be."""
    end = data.rfind(b"\n") + 1
    if len(data) - end < LONGEST_LINE:
        return data[:end]
    cut = data.rfind(b"\r")
    if cut > end:
        return data[:cut]
    while len(data) > 1 and data[-1] & 0xC0 == 0x80:  # no letter is cut in two
        data = data[:-1]
    return data[:-1] if data[-1] & 0xC0 == 0xC0 else data


def lines_before(path: Path, end: int | None, lines: int, limit: int) -> tuple[int, bytes]:
    """(start, at most `limit` bytes) of the last `lines` whole lines before `end`, or of the file.

    What follows them, an unfinished line, is there too.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        place = min(size if end is None else end, size)
        start = max(0, place - limit)
        data = os.pread(file.fileno(), place - start, start)
    if start and b"\n" in data[:-1]:
        cut = data.find(b"\n") + 1
        start, data = start + cut, data[cut:]
    at = data.rfind(b"\n") + 1
    for _ in range(lines + 1):
        at = data.rfind(b"\n", 0, at)
        if at < 0:
            return start, data
    return start + at + 1, data[at + 1 :]


def level(line: bytes) -> str:
    """error, warning or nothing, by the words of the line."""
    return "error" if _ERROR.search(line) else "warning" if _WARNING.search(line) else ""


def search(
    path: Path, before: int | None, words: str, wanted: str, count: int, seconds: float
) -> tuple[list[tuple[int, bytes]], int]:
    """The last `count` lines before an offset that have all the words, of that level or a worse one.

    Lines are (offset, text), in the file's order. Reads backwards for about `seconds`; the second value is
    where to go on, 0 when all of the file was looked through.
    """
    until = time.monotonic() + seconds
    asked = [word.encode() for word in words.casefold().split()]
    levels = LEVELS[: LEVELS.index(wanted) + 1] if wanted else ()
    found: list[tuple[int, bytes]] = []
    place = size(path) if before is None else min(before, size(path))
    with path.open("rb") as file:
        while place > 0 and len(found) < count and time.monotonic() < until:
            start = max(0, place - (1 << 20))
            data = os.pread(file.fileno(), place - start, start)
            if start and (cut := data.find(b"\n") + 1) and cut < len(data):
                start, data = start + cut, data[cut:]
            lower, matched = data.lower(), list[tuple[int, bytes]]()
            if all(word in lower for word in asked):
                matched = [
                    (start + at, data[at:end])
                    for at, end in _spans(data)
                    if all(word in lower[at:end] for word in asked)
                    and (not levels or level(data[at:end]) in levels)
                ]
            if len(found) + len(matched) > count:
                matched = matched[len(found) - count :]
                start = matched[0][0]
            found, place = matched + found, start
    return found, place


def _spans(data: bytes) -> list[tuple[int, int]]:
    """(start, end) of each line, without its break."""
    spans, at = [], 0
    for line in data.split(b"\n"):
        if line:
            spans.append((at, at + len(line)))
        at += len(line) + 1
    return spans


async def follow(path: Path, offset: int, *, stop: Callable[[], bool]) -> AsyncIterator[bytes]:
    """What is in the file from `offset`, then what is added, until `stop` says so and all is read.

    A file that does not exist yet is waited for. One that became shorter was begun anew: reading goes on
    from its start.
    """
    while True:
        ending = stop()  # asked before reading, so that what came before the end is still read
        there = size(path)
        if there < offset:
            offset = 0
        if there > offset:
            data = await asyncio.to_thread(read, path, offset, CHUNK)
            offset += len(data)
            if data:
                yield data
                continue
        if ending:
            return
        await asyncio.sleep(POLL_SECONDS)
