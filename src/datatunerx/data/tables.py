"""CSV, TSV, Parquet and Arrow into raw rows. A file that lies about itself costs bounded memory and time."""

import _csv
import csv
import ctypes
import io
import os
from collections.abc import Callable, Iterator, Mapping, Set
from functools import cache
from typing import Any, BinaryIO

from datatunerx.data.errors import DataError, Problem
from datatunerx.data.raw import (
    MAX_COLUMNS,
    MAX_ROW_BYTES,
    RawRow,
    bounded_memory,
    not_utf8,
    too_large,
    too_wide,
)

HEAD_BYTES = 64 << 10
TABLE_ROWS = 256
FEW_ROWS = 4
"""Read at a time where more do not fit; so many of the longest rows do."""
MAX_FOOTER_BYTES = 8 << 20
MAX_EXPANSION = 500
"""A table may become this many times its file, and FREE_BYTES besides; more is no data but a bomb."""
FREE_BYTES = 256 << 20
M_MMAP_THRESHOLD = -3
"""Of malloc.h."""
EXPORT = "write the file again, or export it as JSONL"


# -- separated by a character


def separated(delimiter: str | None) -> Callable[[BinaryIO, str], Iterator[RawRow]]:
    """A reader of such tables; None finds the character in the header."""

    def read(stream: BinaryIO, uri: str) -> Iterator[RawRow]:
        csv.field_size_limit(MAX_ROW_BYTES)
        found = delimiter or _delimiter(stream)
        # Bad bytes come through as lone surrogates, so that the row that holds them can be named
        with io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="") as text:
            lines = _Lines(text, uri)
            yield from _table(csv.reader(lines, delimiter=found, strict=True), lines, uri)

    return read


def _delimiter(stream: BinaryIO) -> str:
    """The comma, unless the header has none and another usual character: half of Europe's sheets have ;."""
    header = stream.read(HEAD_BYTES).split(b"\n")[0]
    stream.seek(0)
    others = {mark: header.count(mark.encode()) for mark in ";\t|"}
    most = max(others, key=lambda mark: others[mark])
    return most if b"," not in header and others[most] else ","


class _Lines:
    """Lines of a text, no more of them for one row than fit into memory."""

    def __init__(self, text: io.TextIOWrapper, uri: str) -> None:
        self._text, self._uri = text, uri
        self.line, self.held = 1, 0
        """Where the present row begins, and its characters so far."""

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_ROW_BYTES)
        self.held += len(line)
        if self.held >= MAX_ROW_BYTES:
            fix = "shorten the row; if it should have ended before, close the quote that begins a cell"
            problem = too_large()
            raise Problem(problem.reason, self._uri, self.line, found=problem.found, fix=fix).error()
        if not line:
            raise StopIteration
        return line


def _table(rows: "_csv.Reader", lines: _Lines, uri: str) -> Iterator[RawRow]:
    columns: list[str] = []
    while True:
        lines.line, lines.held = rows.line_num + 1, 0
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            said = "a quote that is never closed" if "unexpected end" in str(error) else str(error)
            fix = 'close the quote; write " inside quotes as ""'
            raise DataError(f"bad CSV: {said}", uri, lines.line, fix=fix) from error
        if not columns:
            for cell in cells:
                if problem := _undecoded(cell):
                    raise problem.at(uri, lines.line).error()
            columns = header(cells, uri)
        elif cells:
            yield RawRow(lines.line, _cells(columns, cells))


def header(cells: list[str], uri: str) -> list[str]:
    """The names of a table's columns, each there once."""
    if len(cells) > MAX_COLUMNS:
        raise too_wide(len(cells)).at(uri, 1).error()
    if len(set(cells)) < len(cells):
        twice = next(cell for cell in cells if cells.count(cell) > 1)
        raise DataError("two columns have one name", uri, 1, field=twice, fix="name each column once")
    return cells


def _cells(columns: list[str], cells: list[str]) -> Mapping[str, Any] | Problem:
    for name, cell in zip(columns, cells, strict=False):
        if not cell.isascii() and (problem := _undecoded(cell)):
            return Problem(problem.reason, field=name, found=problem.found, fix=problem.fix)
    if len(cells) != len(columns):
        counted = f"{len(cells)} cells for {len(columns)} columns"
        return Problem("wrong number of cells", found=counted, fix="quote cells that hold the separator")
    return dict(zip(columns, cells, strict=True))


def _undecoded(cell: str) -> Problem | None:
    try:
        cell.encode()
    except UnicodeEncodeError as error:
        return not_utf8(ord(cell[error.start]) - 0xDC00)
    return None


# -- Parquet and Arrow


@cache
def _pyarrow() -> tuple[Any, Any]:
    """pyarrow and its parquet module, which text files need not wait for, ready to run within a limit.

    Its own pool takes a gigabyte ahead, which would be held against the limit; its thread starts with the
    first table that is read.
    """
    # Once megabytes were freed, glibc takes the next from its heap, where the holes add up: map them always.
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(M_MMAP_THRESHOLD, 1 << 20)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pa.set_memory_pool(pa.system_memory_pool())
    first = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), first)
    list(pq.ParquetFile(first).iter_batches(use_threads=False))
    return pa, pq


def parquet(stream: BinaryIO, uri: str, wanted: Set[str]) -> Iterator[RawRow]:
    """Only the columns `wanted` are read; the others are there by name, with nothing in them."""
    _refuse_footer(stream, uri)
    count, size = 0, TABLE_ROWS
    while True:
        try:
            for row in _parquet_rows(stream, uri, wanted, size, count):
                count += 1
                yield RawRow(count, row)
            return
        except MemoryError as error:
            if size == FEW_ROWS:
                raise _too_big(uri, count + 1) from error
            size = FEW_ROWS


def _refuse_footer(stream: BinaryIO, uri: str) -> None:
    """Believing a footer's own size would cost its memory many times over."""
    whole = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, whole - 8))
    end = stream.read(8)
    footer = int.from_bytes(end[:4], "little")
    if end[4:] != b"PAR1" or footer > whole - 12:
        raise DataError("broken Parquet file: it does not end in its footer", uri, fix=EXPORT)
    if footer > MAX_FOOTER_BYTES:
        fix = "write it with fewer columns, or in larger row groups"
        raise DataError(f"its footer has {footer >> 20} MiB, more than any table needs", uri, fix=fix)


def _parquet_rows(
    stream: BinaryIO, uri: str, wanted: Set[str], size: int, skipped: int
) -> Iterator[Mapping[str, Any] | Problem]:
    """The rows after the first `skipped`, `size` of them read at a time."""
    pa, pq = _pyarrow()
    stream.seek(0)
    try:
        with bounded_memory():
            file = pq.ParquetFile(stream, buffer_size=1 << 20)
            columns = _chosen(file.schema_arrow.names, wanted, uri)
            batches = file.iter_batches(batch_size=size, columns=columns.read, use_threads=False)
        grown, count = _Growth(stream, uri), 0
        while True:
            with bounded_memory():
                batch = next(batches, None)
            if batch is None:
                break
            count += batch.num_rows
            batch = _plain(batch)
            grown.add(batch.nbytes)
            yield from _rows(batch.slice(max(0, skipped - count + batch.num_rows)), columns)
        if count != file.metadata.num_rows:
            said = f"its footer promises {file.metadata.num_rows} rows, it has {count}"
            raise DataError(said, uri, fix=EXPORT)
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"broken Parquet file: {_first_line(error)}", uri, fix=EXPORT) from error


def arrow(stream: BinaryIO, uri: str, wanted: Set[str]) -> Iterator[RawRow]:
    """An IPC file or stream, as `parquet`."""
    pa, _ = _pyarrow()
    count = 0
    try:
        whole = stream.read(6) == b"ARROW1"
        stream.seek(0)
        with bounded_memory():
            # A file on disk is mapped: one batch may be as large as the file
            source = pa.memory_map(stream.name) if _is_plain_file(stream) else stream
            opened = pa.ipc.open_file(source) if whole else pa.ipc.open_stream(source)
            columns = _chosen(opened.schema.names, wanted, uri)
        grown = _Growth(stream, uri)
        number = 0
        while True:
            with bounded_memory():
                batch = _next_batch(opened, number, whole)
            if batch is None:
                return
            number += 1
            batch = batch.select(columns.read)
            batch.validate(full=True)  # what it says of offsets is believed from here on
            for start in range(0, batch.num_rows, TABLE_ROWS):
                few = _plain(batch.slice(start, TABLE_ROWS))
                grown.add(few.nbytes)
                for row in _rows(few, columns):
                    count += 1
                    yield RawRow(count, row)
    except MemoryError as error:
        raise _too_big(uri, count + 1) from error
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"broken Arrow file: {_first_line(error)}", uri, fix=EXPORT) from error


def _next_batch(opened: Any, number: int, whole: bool) -> Any:
    """The batch of a file by its number, or the next one of a stream; None at the end."""
    if whole:
        return opened.get_batch(number) if number < opened.num_record_batches else None
    try:
        return opened.read_next_batch()
    except StopIteration:
        return None


def _is_plain_file(stream: BinaryIO) -> bool:
    return isinstance(stream, io.BufferedReader) and isinstance(getattr(stream.raw, "name", None), str)


def _plain(batch: Any) -> Any:
    """The batch without the encodings in which a few bytes stand for many, so that its size can be seen."""
    pa, _ = _pyarrow()
    schema = pa.schema([field.with_type(_plain_type(field.type)) for field in batch.schema])
    if schema == batch.schema:
        return batch
    with bounded_memory():
        return batch.cast(schema)


def _plain_type(kind: Any) -> Any:
    pa, _ = _pyarrow()
    is_a = pa.types
    if is_a.is_dictionary(kind) or is_a.is_run_end_encoded(kind):
        return _plain_type(kind.value_type)
    if is_a.is_string_view(kind) or is_a.is_binary_view(kind):
        return pa.large_string() if is_a.is_string_view(kind) else pa.large_binary()
    if is_a.is_struct(kind):
        return pa.struct([field.with_type(_plain_type(field.type)) for field in kind])
    is_view = is_a.is_list_view(kind) or is_a.is_large_list_view(kind)
    if is_view or is_a.is_list(kind) or is_a.is_large_list(kind):
        inner = _plain_type(kind.value_type)
        return pa.large_list(inner) if is_view or inner != kind.value_type else kind
    return kind


class _Columns:
    def __init__(self, read: list[str], named: dict[str, None]) -> None:
        self.read, self.named = read, named


def _chosen(names: list[str], wanted: Set[str], uri: str) -> _Columns:
    header(names, uri)
    return _Columns([name for name in names if name in wanted], dict.fromkeys(names))


class _Growth:
    """Adds up what a table has become, and refuses a bomb."""

    def __init__(self, stream: BinaryIO, uri: str) -> None:
        at = stream.tell()
        self._file, self._uri, self._grown = stream.seek(0, os.SEEK_END), uri, 0
        stream.seek(at)

    def add(self, count: int) -> None:
        self._grown += count
        if self._grown > FREE_BYTES + MAX_EXPANSION * self._file:
            said = f"{self._file:,} bytes become more than {self._grown >> 20:,} MiB"
            fix = "export as JSONL what of it is data"
            raise DataError(f"expands without end ({said})", self._uri, fix=fix)


def _rows(batch: Any, columns: _Columns) -> Iterator[Mapping[str, Any] | Problem]:
    """Rows of one batch as Python objects, none of which is larger than a row may be."""
    small = batch.nbytes <= MAX_ROW_BYTES
    whole = len(columns.read) == len(columns.named)
    if small and batch.num_columns:
        for row in batch.to_pylist():
            yield row if whole else columns.named | row
        return
    for number in range(batch.num_rows):
        one = batch.slice(number, 1)
        if one.nbytes > MAX_ROW_BYTES:
            yield too_large()
        else:
            yield columns.named | one.to_pylist()[0] if batch.num_columns else dict(columns.named)


def _too_big(uri: str, row: int) -> DataError:
    fix = "write it in smaller pages or batches, or export it as JSONL"
    return DataError("needs more memory than its rows can be worth", uri, row, fix=fix)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
