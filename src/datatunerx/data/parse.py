"""Files into raw rows, one at a time: JSONL, JSON, CSV, TSV, Parquet, Arrow. Memory is bounded by one row.

A raw row is an object by column name, or the Problem with it. Rows of JSON arrays and tables count from 1;
rows of JSONL and CSV carry the line they start on. What breaks the whole file raises DataError.
"""

import _csv
import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from datatunerx.data.errors import DataError, Problem, Refused, shown
from datatunerx.data.sources import head_of, open_source

MAX_ROW_BYTES = 16 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024
TABLE_ROWS = 256
SPACE = re.compile(r"[ \t\r\n]*")
KINDS = ".jsonl, .json, .csv, .tsv, .parquet, .arrow"


class RawRow(NamedTuple):
    line: int
    value: Mapping[str, Any] | Problem


def raw_rows(uri: str) -> Iterator[RawRow]:
    """Every row of the file. Raises DataError if the file cannot be read at all."""
    with open_source(uri) as stream:
        head = head_of(stream, uri)
        kind = _kind(uri, head)
        if kind == "json" and _is_lines(stream):
            kind = "jsonl"
        yield from _READERS[kind](stream, uri)


def _kind(uri: str, head: bytes) -> str:
    """What the file is, by its first bytes where they say so, else by its name."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    suffix = PurePosixPath(uri.split("?")[0]).suffix.lower()
    kind = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv"}.get(suffix)
    if kind is None and head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        kind = "json"
    if kind is None:
        what = {".parquet": "Parquet", ".pq": "Parquet", ".arrow": "Arrow"}.get(
            suffix, "any kind of file we read"
        )
        raise DataError(f"is not {what}", uri, fix=f"give one of {KINDS}")
    return kind


def _is_lines(stream: BinaryIO) -> bool:
    """Whether a .json file is one object per line, as many are: its first line is a whole row."""
    first, after = stream.readline(MAX_ROW_BYTES), stream.read(64).lstrip()
    stream.seek(0)
    if not first.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{"):
        return False
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):  # told with its place when it is read as a whole
        return False
    lone = isinstance(value, dict) and not isinstance(value.get("data"), list)
    return lone and after[:1] in (b"", b"{")


# -- JSON


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Refused(Problem("duplicate key", field=twice, found=repr(twice), fix="keep one of the two"))
    return made


def _constant(name: str) -> Any:
    raise Refused(Problem("NaN or Infinity in JSON", found=name, fix="write null or a number"))


_decoder = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


def parse_json(text: str) -> Any | Problem:
    """The value of a whole JSON text, or the Problem with it."""
    try:
        return _decoder.decode(text)
    except Refused as error:
        return error.problem
    except json.JSONDecodeError as error:
        column = f"{error.msg.lower()} at column {error.pos + 1}"
        if error.msg == "Extra data":
            return Problem("bad JSON", found=column, fix="put each object on its own line")
        return Problem("bad JSON", found=column, fix="write the row as one JSON object")
    except RecursionError:
        return Problem("JSON nested too deeply", fix="flatten the row")
    except ValueError as error:  # an integer of thousands of digits
        return Problem("bad JSON", found=str(error), fix="write the number as a string")


def _as_row(value: Any) -> Mapping[str, Any] | Problem:
    if isinstance(value, dict | Problem):
        return value
    return Problem("a row is not an object", found=shown(value), fix='write {"messages": [...]}')


def lines_of(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines without their ends; None for one longer than MAX_ROW_BYTES, which is never held."""
    number, held, skipping = 1, b"", False
    while chunk := stream.read(CHUNK_BYTES):
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            whole = held + line
            yield number, None if skipping or len(whole) > MAX_ROW_BYTES else whole.removesuffix(b"\r")
            number, held, skipping = number + 1, b"", False
        held = b"" if skipping else held + rest
        if len(held) > MAX_ROW_BYTES:
            held, skipping = b"", True
    if held or skipping:
        yield number, None if skipping else held.removesuffix(b"\r")


def _jsonl(stream: BinaryIO, uri: str) -> Iterator[RawRow]:
    for number, line in lines_of(stream):
        if line is None:
            yield RawRow(number, too_large())
            continue
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            yield RawRow(number, not_utf8(error.object[error.start], error.start))
            continue
        if text.strip():
            yield RawRow(number, _as_row(parse_json(text)))


def too_large() -> Problem:
    size = f"more than {MAX_ROW_BYTES // 2**20} MiB"
    return Problem("row too large", found=size, fix="shorten the row, or put a line break between rows")


def not_utf8(byte: int, offset: int | None = None) -> Problem:
    at = "" if offset is None else f" at byte {offset + 1} of the line"
    return Problem("not UTF-8", found=f"byte 0x{byte:02x}{at}", fix="save the file as UTF-8")


class _Text:
    """A text read piece by piece, with one JSON value at a time taken from its front."""

    def __init__(self, stream: BinaryIO, uri: str) -> None:
        self.stream, self.uri = stream, uri
        self.decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self.text, self.at, self.ended = "", 0, False

    def more(self) -> bool:
        chunk = self.stream.read(max(CHUNK_BYTES, len(self.text) - self.at))  # doubling keeps retries linear
        try:
            added = self.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise not_utf8(error.object[error.start]).at(self.uri, 0).error() from error
        self.text, self.at, self.ended = self.text[self.at :] + added, 0, not chunk
        return bool(chunk)

    def next(self) -> str:
        """The next character that is not space; empty at the end."""
        while True:
            self.at = SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def skip(self, expected: str, row: int) -> None:
        found = self.next()
        if found not in expected or not found:
            what = repr(found) if found else "the end of the file"
            raise DataError(
                f"bad JSON: {what} where {' or '.join(expected)} must be", self.uri, row, fix=REWRITE
            )
        self.at += 1

    def value(self, row: int) -> Any:
        """The JSON value that comes next. A row that is refused is still read past."""
        self.next()
        while True:
            try:
                value, end = _decoder.raw_decode(self.text, self.at)
            except Refused as error:
                value, end = error.problem, self._past(row)
            except json.JSONDecodeError as error:
                if len(self.text) - self.at > MAX_ROW_BYTES:
                    raise too_large().at(self.uri, row).error() from error
                if self.more():
                    continue
                raise DataError(f"bad JSON: {error.msg.lower()}", self.uri, row, fix=REWRITE) from error
            except (RecursionError, ValueError) as error:
                raise DataError("JSON that cannot be read", self.uri, row, fix="flatten the row") from error
            if end == len(self.text) and self.more():
                continue
            self.at = end
            return value

    def _past(self, row: int) -> int:
        """Where the refused value ends, by a reader that takes it; reads on until it is whole."""
        while True:
            try:
                return json.JSONDecoder().raw_decode(self.text, self.at)[1]
            except (ValueError, RecursionError) as error:
                if len(self.text) - self.at > MAX_ROW_BYTES or not self.more():
                    raise DataError("bad JSON", self.uri, row, fix=REWRITE) from error


REWRITE = "write the file as a JSON array of objects, or as JSONL"


def _json(stream: BinaryIO, uri: str) -> Iterator[RawRow]:
    text = _Text(stream, uri)
    if text.next() == "{":
        text.skip("{", 1)
        while (name := text.value(1)) != "data":
            text.skip(":", 1)
            text.value(1)
            if text.next() != ",":
                raise DataError('the object has no "data" list', uri, field="data", fix=REWRITE)
            text.skip(",", 1)
        text.skip(":", 1)
        if name and text.next() != "[":
            raise DataError('"data" is not a list', uri, field="data", fix=REWRITE)
    text.skip("[", 1)
    if text.next() == "]":
        return
    row = 1
    while True:
        yield RawRow(row, _as_row(text.value(row)))
        row += 1
        if text.next() == "]":
            return
        text.skip(",]", row)


# -- Tables


def _separated(delimiter: str) -> Callable[[BinaryIO, str], Iterator[RawRow]]:
    def read(stream: BinaryIO, uri: str) -> Iterator[RawRow]:
        csv.field_size_limit(MAX_ROW_BYTES)
        # Bad bytes come through as lone surrogates, so that the row that holds them can be named
        with io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="") as text:
            yield from _table(csv.reader(_short_lines(text, uri), delimiter=delimiter, strict=True), uri)

    return read


def _table(rows: "_csv.Reader", uri: str) -> Iterator[RawRow]:
    columns: list[str] = []
    while True:
        line = rows.line_num + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            said = "a quote that is never closed" if "unexpected end" in str(error) else str(error)
            fix = 'close the quote; write " inside quotes as ""'
            raise DataError(f"bad CSV: {said}", uri, line, fix=fix) from error
        if not columns:
            columns = _header(cells, uri)
        elif cells:
            yield RawRow(line, _cells(columns, cells))


def _short_lines(text: io.TextIOWrapper, uri: str) -> Iterator[str]:
    while line := text.readline(MAX_ROW_BYTES):
        if len(line) >= MAX_ROW_BYTES:
            raise too_large().at(uri, 0).error()
        yield line


def _header(cells: list[str], uri: str) -> list[str]:
    twice = next((cell for cell in cells if cells.count(cell) > 1), None)
    if twice is not None:
        raise DataError("two columns have one name", uri, 1, field=twice, fix="name each column once")
    return cells


def _cells(columns: list[str], cells: list[str]) -> Mapping[str, Any] | Problem:
    for name, cell in zip(columns, cells, strict=False):
        if not cell.isascii() and (bad := re.search("[\udc80-\udcff]", cell)):
            problem = not_utf8(ord(bad[0]) - 0xDC00)
            return Problem(problem.reason, field=name, found=problem.found, fix=problem.fix)
    if len(cells) != len(columns):
        counted = f"{len(cells)} cells for {len(columns)} columns"
        return Problem("wrong number of cells", found=counted, fix="quote cells that hold the separator")
    return dict(zip(columns, cells, strict=True))


def _parquet(stream: BinaryIO, uri: str) -> Iterator[RawRow]:
    import pyarrow as pa  # 0.2 s that text files need not pay
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(stream)
        count = 0
        for batch in file.iter_batches(batch_size=TABLE_ROWS):
            for row in batch.to_pylist():
                count += 1
                yield RawRow(count, row)
        if count != file.metadata.num_rows:
            raise DataError(
                f"its footer promises {file.metadata.num_rows} rows, it has {count}", uri, fix=EXPORT
            )
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError) as error:
        raise DataError(f"broken Parquet file: {str(error).splitlines()[0]}", uri, fix=EXPORT) from error


def _arrow(stream: BinaryIO, uri: str) -> Iterator[RawRow]:
    import pyarrow as pa

    try:
        whole = stream.read(6) == b"ARROW1"
        stream.seek(0)
        if whole:
            file = pa.ipc.open_file(stream)
            batches = (file.get_batch(i) for i in range(file.num_record_batches))
        else:
            batches = iter(pa.ipc.open_stream(stream))
        count = 0
        for batch in batches:
            for start in range(0, batch.num_rows, TABLE_ROWS):
                for row in batch.slice(start, TABLE_ROWS).to_pylist():
                    count += 1
                    yield RawRow(count, row)
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError) as error:
        raise DataError(f"broken Arrow file: {str(error).splitlines()[0]}", uri, fix=EXPORT) from error


EXPORT = "write the file again, or export it as JSONL"

_READERS: dict[str, Callable[[BinaryIO, str], Iterator[RawRow]]] = {
    "jsonl": _jsonl, "json": _json, "csv": _separated(","), "tsv": _separated("\t"),
    "parquet": _parquet, "arrow": _arrow,
}  # fmt: skip
