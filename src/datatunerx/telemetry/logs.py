"""Reading growing log files by byte offset: nothing is read twice, and a big file opens at once."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

BLOCK = 64 << 10
CHUNK = 256 << 10
POLL_SECONDS = 0.1


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
