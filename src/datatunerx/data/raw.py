"""A raw row: what every reader of files gives, and the limits that keep it within memory."""

import os
import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from datatunerx.data.errors import Problem

MAX_ROW_BYTES = 4 << 20
"""A million tokens or so: no model takes a longer row, and as Python objects it can be 27 times as large."""
MAX_COLUMNS = 10_000
CHUNK_BYTES = 1 << 20
LIBRARY_BYTES = 96 << 20
"""What a library that opens a file may take for it beyond what the process has."""


class RawRow(NamedTuple):
    line: int
    """Line of text files, row (from 1) of JSON arrays and tables, the sheet's own number in spreadsheets."""
    value: Mapping[str, Any] | Problem


class Part(NamedTuple):
    """Whole lines of a file of lines."""

    start: int
    size: int
    """Bytes."""
    line: int
    """The number of the first one."""


def too_large() -> Problem:
    size = f"more than {MAX_ROW_BYTES >> 20} MiB"
    return Problem("row too large", found=size, fix="shorten the row, or put a line break between rows")


def too_wide(count: int) -> Problem:
    fix = f"keep the columns to train on, at most {MAX_COLUMNS:,}"
    return Problem("too many columns", found=f"{count:,}", fix=fix)


def not_utf8(byte: int, offset: int | None = None) -> Problem:
    at = "" if offset is None else f" at byte {offset + 1} of the line"
    return Problem("not UTF-8", found=f"byte 0x{byte:02x}{at}", fix="save the file as UTF-8")


@contextmanager
def bounded_memory(more: int = LIBRARY_BYTES) -> Iterator[None]:
    """Within it, an allocation that would take the process `more` bytes further raises MemoryError.

    For libraries that believe what a file says of its own size. Where the system cannot tell or limit (it is
    Linux that can), nothing is limited.
    """
    used = _data_bytes()
    if not used:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [limit for limit in (used + more, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """Private writable memory mapped so far, which is what the kernel holds against the limit."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
