"""JSON and JSONL into raw rows. What is whole takes the quick way; what is odd is told by a slower reader."""

import codecs
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import orjson

from datatunerx.data.errors import DataError, Problem, Refused, named, shown
from datatunerx.data.raw import (
    CHUNK_BYTES,
    MAX_COLUMNS,
    MAX_ROW_BYTES,
    Part,
    RawRow,
    not_utf8,
    too_large,
    too_wide,
)

SPACE = re.compile(r"[ \t\r\n]*")
REWRITE = "write the file as a JSON array of objects, or as JSONL"


def jsonl(stream: BinaryIO, uri: str, part: Part | None = None) -> Iterator[RawRow]:
    """One row a line; blank lines are none."""
    for number, line in lines_of(stream, part):
        if line is None:
            yield RawRow(number, too_large())
            continue
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line and not line.isspace():
            yield RawRow(number, row_of(line))


def text_lines(stream: BinaryIO, uri: str, part: Part | None = None) -> Iterator[RawRow]:
    """Plain text: each line that is not blank is a row with the one column `text`."""
    for number, line in lines_of(stream, part):
        if line is None:
            yield RawRow(number, too_large())
            continue
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            yield RawRow(number, not_utf8(error.object[error.start], error.start))
            continue
        if text.strip():
            yield RawRow(number, {"text": text})


def json_array(stream: BinaryIO, uri: str) -> Iterator[RawRow]:
    """A list of objects, or an object with such a list under `data`; one row in memory at a time."""
    text = _Text(stream, uri)
    if text.next() == "{":
        _to_data(text, uri)
    text.skip("[", 1)
    if text.next() == "]":
        return
    row = 1
    while True:
        yield RawRow(row, row_of(text.value(row).encode()))
        row += 1
        if text.next() == "]":
            return
        text.skip(",]", row)


def is_lines(stream: BinaryIO) -> bool:
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


def row_of(line: bytes) -> Mapping[str, Any] | Problem:
    """The object that the bytes of one row write, or the Problem with them."""
    value = _quickly(line)
    if value is None:
        try:
            value = parse_json(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            return not_utf8(error.object[error.start], error.start)
    if isinstance(value, Problem):
        return value
    if not isinstance(value, dict):
        return Problem("a row is not an object", found=shown(value), fix='write {"messages": [...]}')
    return too_wide(len(value)) if len(value) > MAX_COLUMNS else value


def _quickly(line: bytes) -> Any:
    """The value if it is certainly what the bytes say; None if only the slower reader can tell.

    A reader that keeps the last of two equal keys loses the quotes of the first: written again, the value has
    as many quotes as the bytes, or a key was there twice (an escaped quote may hide that).
    """
    try:
        value = orjson.loads(line)
        if b"\\u0022" not in line and orjson.dumps(value).count(b'"') == line.count(b'"'):
            return value
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        pass
    return None


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


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Refused(
            Problem("duplicate key", field=named(twice), found=shown(twice), fix="keep one of the two")
        )
    return made


def _constant(name: str) -> Any:
    raise Refused(Problem("NaN or Infinity in JSON", found=name, fix="write null or a number"))


def _float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _constant(f"{text[:20]}, which no number can hold")


_decoder = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float)
_skimmer = json.JSONDecoder()


def parts_of(stream: BinaryIO, size: int) -> Iterator[Part]:
    """All lines in parts of at least `size` bytes, none of them read into memory as a whole."""
    start = place = 0
    first = line = 1
    while chunk := stream.read(min(size, CHUNK_BYTES)):
        line += chunk.count(b"\n")
        end = place + chunk.rfind(b"\n") + 1
        if end > place and end - start >= size:
            yield Part(start, end - start, first)
            start, first = end, line
        place += len(chunk)
    if place > start:
        yield Part(start, place - start, first)


def lines_of(stream: BinaryIO, part: Part | None = None) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines without their ends; None for one longer than MAX_ROW_BYTES, which is never held."""
    number, held, skipping = 1, b"", False
    left = sys.maxsize
    if part:
        stream.seek(part.start)
        number, left = part.line, part.size
    while chunk := stream.read(min(left, CHUNK_BYTES)):
        left -= len(chunk)
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

    def value(self, row: int) -> str:
        """The text of the JSON value that comes next, taken off; whether it is a good row is not asked."""
        self.next()
        while True:
            try:
                end = _skimmer.raw_decode(self.text, self.at)[1]
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
            taken, self.at = self.text[self.at : end], end
            return taken


def _to_data(text: _Text, uri: str) -> None:
    """Read on to the list under `data`."""
    text.skip("{", 1)
    while text.value(1) != '"data"':
        text.skip(":", 1)
        text.value(1)
        if text.next() != ",":
            raise DataError('the object has no "data" list', uri, field="data", fix=REWRITE)
        text.skip(",", 1)
    text.skip(":", 1)
    if text.next() != "[":
        raise DataError('"data" is not a list', uri, field="data", fix=REWRITE)
