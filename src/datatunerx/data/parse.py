"""Files into raw rows, one at a time: JSONL, JSON, CSV, TSV, Parquet, Arrow, XLSX, plain text.

A raw row is an object by column name, or the Problem with it. Rows of JSON arrays and tables count from 1;
rows of JSONL, CSV and text carry the line they start on. What breaks the whole file raises DataError.
"""

from collections.abc import Iterator, Set
from pathlib import PurePosixPath
from typing import BinaryIO

from datatunerx.data import json_rows, sheets, tables
from datatunerx.data.errors import DataError
from datatunerx.data.raw import Part, RawRow
from datatunerx.data.sources import head_of, open_source


class _AllColumns(Set[str]):
    """Holds every name, and lists none."""

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


ALL_COLUMNS: Set[str] = _AllColumns()
"""For `raw_rows`, where no column is left unread."""
KINDS = ".jsonl, .json, .csv, .tsv, .parquet, .arrow, .xlsx, .txt"
SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv",
    ".txt": "text", ".text": "text",
}  # fmt: skip
NAMED = {
    ".parquet": "Parquet", ".pq": "Parquet", ".arrow": "Arrow", ".feather": "Arrow", ".ipc": "Arrow",
    ".xlsx": "XLSX",
}  # fmt: skip
OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
PROGRAMS = (".py", ".sh", ".ipynb", ".js", ".exe", ".pkl", ".pickle", ".pt", ".bin")


def raw_rows(uri: str, wanted: Set[str], part: Part | None = None) -> Iterator[RawRow]:
    """Every row of the file, or of the part. Of large tables only the columns `wanted` are read, the others
    are only named.

    Raises DataError if the file cannot be read at all.
    """
    with open_source(uri) as stream:
        match kind := _kind_of(stream, uri):
            case "xlsx":
                yield from sheets.xlsx(stream, uri)
            case "parquet":
                yield from tables.parquet(stream, uri, wanted)
            case "arrow":
                yield from tables.arrow(stream, uri, wanted)
            case "jsonl" | "text":
                yield from _LINES[kind](stream, uri, part)
            case _:
                yield from _TEXTS[kind](stream, uri)


def parts(uri: str, size: int) -> Iterator[Part]:
    """A file of lines in parts of at least `size` bytes, for `raw_rows`; none of any other file."""
    with open_source(uri) as stream:
        if _kind_of(stream, uri) in _LINES:
            yield from json_rows.parts_of(stream, size)


_LINES = {"jsonl": json_rows.jsonl, "text": json_rows.text_lines}
_TEXTS = {"json": json_rows.json_array, "csv": tables.separated(None), "tsv": tables.separated("\t")}


def _kind_of(stream: BinaryIO, uri: str) -> str:
    if _is_workbook(stream, uri):
        return "xlsx"
    kind = _kind(uri, head_of(stream, uri))
    return "jsonl" if kind == "json" and json_rows.is_lines(stream) else kind


def _suffix(uri: str) -> str:
    return PurePosixPath(uri.split("?")[0]).suffix.lower()


def _is_workbook(stream: BinaryIO, uri: str) -> bool:
    head = stream.read(8)
    stream.seek(0)
    if head == OLD_OFFICE:
        fix = "save it as .xlsx without a password"
        raise DataError("is an old or an encrypted Office file", uri, fix=fix)
    return head.startswith(b"PK\x03\x04") and _suffix(uri) == ".xlsx"


def _kind(uri: str, head: bytes) -> str:
    """What the file is, by its first bytes where they say so, else by its name."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    suffix = _suffix(uri)
    if suffix in PROGRAMS:
        fix = f"give its data as {KINDS}"
        raise DataError("is a program or a pickle, and none is ever run", uri, fix=fix)
    kind = SUFFIXES.get(suffix)
    if kind in (None, "text") and head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        kind = "json"
    if kind is None:
        what = NAMED.get(suffix, "any kind of file we read")
        raise DataError(f"is not {what}", uri, fix=f"give one of {KINDS}")
    return kind
