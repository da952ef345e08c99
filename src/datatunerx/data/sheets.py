"""XLSX spreadsheets into raw rows: the values that are stored in them; no formula or link is followed."""

import datetime
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO
from xml.etree.ElementTree import ParseError

from datatunerx.data.errors import DataError, Problem
from datatunerx.data.raw import MAX_COLUMNS, RawRow, bounded_memory, too_wide
from datatunerx.data.tables import header

MAX_SHEET_BYTES = 512 << 20
MAX_TEXTS_BYTES = 48 << 20
"""The table of texts must be held whole; as Python objects it is about twice as large."""
ROWS_AT_ONCE = 64
MAX_RATIO = 200
FREE_BYTES = 8 << 20
MAX_ROWS = 1_048_576
"""What a spreadsheet program can write."""
SAVE = "save it again in a spreadsheet program, or as CSV"
BROKEN = (
    zipfile.BadZipFile, zlib.error, ParseError, KeyError, ValueError, TypeError, IndexError, AttributeError,
    EOFError, OSError, NotImplementedError, RuntimeError,
)  # fmt: skip
"""What openpyxl lets through when a workbook is not what it should be."""


def xlsx(stream: BinaryIO, uri: str) -> Iterator[RawRow]:
    """The only sheet that holds anything; its first row names the columns. Numbers and dates become text."""
    try:
        with bounded_memory(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of features that are not read
            _refuse_bomb(stream, uri)
            sheet = _only_sheet(_opened(stream), uri)
            rows = sheet.iter_rows()
            columns = _header(next(rows, ()), uri)
            rows = sheet.iter_rows(min_row=2, max_col=len(columns) + 1)
        line = 1
        while cells_of := _next(rows):
            for cells in cells_of:
                line += 1
                if any(cell.value is not None for cell in cells):
                    yield RawRow(line, _row(columns, cells))
            if line > MAX_ROWS:
                raise DataError(f"has a row beyond {MAX_ROWS:,}", uri, line, fix=SAVE)
    except MemoryError as error:
        raise DataError("needs more memory than its rows can be worth", uri, fix=SAVE) from error
    except BROKEN as error:
        said = str(error) or type(error).__name__
        raise DataError(f"broken XLSX file: {said.splitlines()[0]}", uri, fix=SAVE) from error


def _next(rows: Iterator[Any]) -> list[Any]:
    with bounded_memory(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(islice(rows, ROWS_AT_ONCE))


def _opened(stream: BinaryIO) -> Any:
    import openpyxl  # 0.2 s that other files need not pay

    return openpyxl.load_workbook(stream, read_only=True, data_only=True, keep_links=False)


def _refuse_bomb(stream: BinaryIO, uri: str) -> None:
    """A zip's reader stops at the size that its directory states, so the sizes stated are those to judge."""
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
    stream.seek(0)
    packed, whole = sum(m.compress_size for m in members), sum(m.file_size for m in members)
    texts = sum(m.file_size for m in members if "sharedstrings" in m.filename.lower())
    if whole > MAX_SHEET_BYTES or texts > MAX_TEXTS_BYTES or whole > FREE_BYTES + MAX_RATIO * packed:
        said = f"is a spreadsheet of {whole >> 20:,} MiB in {packed >> 10:,} KiB"
        raise DataError(said, uri, fix="save it as CSV, which is read row by row")
    if any(m.filename.lower().endswith("vbaproject.bin") for m in members):
        raise DataError("holds macros", uri, fix="save it as a plain .xlsx or as CSV")


def _only_sheet(book: Any, uri: str) -> Any:
    filled = []
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # stated by the file, and believed by the reader
        if any(cell.value is not None for cell in next(sheet.iter_rows(max_row=1), ())):
            filled.append(sheet)
    if len(filled) > 1:
        names = ", ".join(repr(sheet.title) for sheet in filled[:5])
        fix = "keep the one sheet with the rows, or save each as a file of its own"
        raise DataError(f"has {len(filled)} sheets with data ({names})", uri, fix=fix)
    if not filled:
        fix = "write the columns' names into the first row, and rows under it"
        raise DataError("no sheet has anything in its first row", uri, 1, fix=fix)
    return filled[0]


def _header(cells: Any, uri: str) -> list[str]:
    while cells and cells[-1].value is None:
        cells = cells[:-1]
    if len(cells) > MAX_COLUMNS:
        raise too_wide(len(cells)).at(uri, 1).error()
    return header([_text(cell) or f"column {place}" for place, cell in enumerate(cells, 1)], uri)


def _row(columns: list[str], cells: Any) -> dict[str, Any] | Problem:
    if len(cells) > len(columns) and cells[-1].value is not None:
        found = f"more than {len(columns)} cells"
        return Problem("wrong number of cells", found=found, fix="name the column in the first row")
    for name, cell in zip(columns, cells, strict=False):
        if cell.data_type == "e":
            fix = "mend the formula in the spreadsheet, or write the value"
            return Problem("a spreadsheet's error", field=name, found=str(cell.value), fix=fix)
    texts = [_text(cell) for cell in cells[: len(columns)]]
    return dict(zip(columns, texts + [None] * (len(columns) - len(texts)), strict=True))


def _text(cell: Any) -> str | None:
    """As a spreadsheet shows it, more or less: 3 for the number 3.0, 2026-01-31 for that day."""
    value = cell.value
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat(*([" "] if isinstance(value, datetime.datetime) else []))
    return str(value)
