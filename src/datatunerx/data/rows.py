"""Rows of a dataset, in file order, each in exactly one split: as conversations or as the Problem with it.

A split without files of its own gets its share of the train rows (`splits`).
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from datatunerx.data.digests import file_digest
from datatunerx.data.errors import DataError, Problem, names_of, shown, where
from datatunerx.data.formats import COLUMNS, Conversation, Layout, conversation, layout_of, unknown
from datatunerx.data.parse import raw_rows
from datatunerx.data.raw import Part, RawRow
from datatunerx.data.splits import Division, made_shares, main_split
from datatunerx.data.turns import Message
from datatunerx.resources.enums import DataFormat, Split
from datatunerx.resources.material import AutoSplit
from datatunerx.runs.plan import DataFiles

FIRST_ROWS = 20
BATCH_ROWS = 512
BATCH_BYTES = 2 << 20


class Row(NamedTuple):
    file: str
    line: int
    """Line of text files, row (from 1) of JSON arrays and tables."""
    value: Conversation | Problem
    group: str | None = None
    """What split.groupBy finds in the row: rows of one group go to one split."""
    stratum: str | None = None
    """What split.stratifyBy finds in it."""

    @property
    def where(self) -> str:
        return where(self.file, self.line)


class Question(NamedTuple):
    """What a model is asked when it is scored, and the answer it is held against."""

    messages: list[Message]
    """Everything before the last assistant turn."""
    reference: str
    row: str
    """file:line."""
    tools: Sequence[Any] = ()
    """Definitions of the tools that it may call."""


def read_rows(files: DataFiles, split: Split) -> Iterator[Row]:
    """Every row of the split, one in memory at a time. Raises DataError for a file that cannot be read.

    Rows that are not conversations come as Problems, in the split that names their file.
    """
    if files.splits.get(split):
        belongs = _assignment(files) if split is Split.TRAIN else None
        for row in read_files(files, split):
            if belongs is None or belongs(row) is split:
                yield row
    elif split is not Split.TRAIN and (belongs := _assignment(files)) is not None:
        yield from (row for row in read_files(files, Split.TRAIN) if belongs(row) is split)


def read_files(files: DataFiles, split: Split) -> Iterator[Row]:
    """Every row of the files that are named for the split, before some go to a split that is made."""
    for uri in files.splits.get(split, []):
        yield from read_named(files, uri)


def read_named(
    files: DataFiles, uri: str, part: Part | None = None, layout: Layout | None = None
) -> Iterator[Row]:
    """The rows of one of the dataset's files under its own name, wherever it lies."""
    place = files.copies.get(uri, uri)
    rows = read_file(place, files.format, files.features, files.auto_split, part, layout)
    yield from rows if place == uri else _named(rows, place, uri)


def layout_at_once(files: DataFiles, uri: str) -> Layout | None:
    """What the file's first row tells; None if it tells nothing."""
    rows = raw_rows(files.copies.get(uri, uri), wanted_columns(files.features))
    first = next(rows, None)
    if first is None or isinstance(first.value, Problem):
        return None
    return layout_of(first.value, files.format, files.features)


def _named(rows: Iterator[Row], place: str, uri: str) -> Iterator[Row]:
    """Rows and errors of a copy under the name that the user knows."""
    with under_its_name(place, uri):
        for row in rows:
            value = row.value.at(uri, row.line) if isinstance(row.value, Problem) else row.value
            yield row._replace(file=uri, value=value)


@contextmanager
def under_its_name(place: str, uri: str) -> Iterator[None]:
    """Errors of the file at `place` name it as the user does."""
    try:
        yield
    except DataError as error:
        error.file = uri if error.file == place else error.file
        raise


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows in lists of at most BATCH_ROWS, and of fewer where they are long: memory is bounded."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        if not isinstance(row.value, Problem):
            size += len(orjson.dumps((row.value.messages, row.value.tools, row.value.rejected)))
        if len(batch) == BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def questions(
    files: DataFiles,
    split: Split,
    limit: int | None = None,
    on_bad: Callable[[Problem], None] = lambda problem: None,
) -> list[Question]:
    """The first `limit` rows of the split as questions with their references; bad rows go to `on_bad`.

    Raises DataError if the files are not those that were inspected, or if the split has rows and none is a
    conversation.
    """
    unchanged_digest(files)
    found: list[Question] = []
    problem: Problem | None = None
    for row in read_rows(files, split):
        if limit is not None and len(found) >= limit:
            break
        bad = row.value if isinstance(row.value, Problem) else _unaskable(row.value, row)
        if bad is not None:
            problem = problem or bad
            on_bad(bad)
            continue
        assert isinstance(row.value, Conversation)
        messages = row.value.messages
        last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
        found.append(Question(messages[:last], messages[last]["content"], row.where, row.value.tools))
    if not found and problem is not None:
        raise problem.error()
    return found


def _unaskable(value: Conversation, row: Row) -> Problem | None:
    """Why a good row cannot be held against a model's answer."""
    if value.is_text:
        return Problem("plain text asks nothing", row.file, row.line, fix="score on rows with an answer")
    if value.label is False:
        fix = "score on answers that are wanted"
        return Problem("the answer is not wanted", row.file, row.line, "label", "false", fix)
    answers = [message for message in value.messages if message["role"] == "assistant"]
    if not answers[-1]["content"].strip():
        fix = "score on rows that end in a text"
        return Problem("the last answer calls a tool and says nothing", row.file, row.line, fix=fix)
    return None


def unchanged_digest(files: DataFiles, memory: Path | None = None) -> str:
    """The files' `content_digest`, perhaps as remembered in the folder `memory`. Raises DataError if they are
    not those that were inspected."""
    digest = content_digest(files, memory)
    if files.digest and files.digest != digest:
        raise DataError(
            f"the files of dataset {files.name} changed since they were inspected ({files.digest[:12]} then, "
            f"{digest[:12]} now)",
            fix="apply the Dataset again so that it is inspected anew",
        )
    return digest


def content_digest(files: DataFiles, memory: Path | None = None) -> str:
    """SHA-256 over the bytes of all files in the order of splits and files, in hex.

    Each file enters as its own digest with the name of its split, so that moving bytes is a change too.
    """
    whole = hashlib.sha256()
    for split in Split:
        for uri in files.splits.get(split, []):
            whole.update(f"{split} {file_digest(files.copies.get(uri, uri), memory)}\n".encode())
    return whole.hexdigest()


def wanted_columns(features: Mapping[str, str], keys: Iterable[str | None] = ()) -> Set[str]:
    return COLUMNS | set(features.values()) | {key.partition(".")[0] for key in keys if key}


def read_file(
    uri: str,
    format: DataFormat,
    features: dict[str, str],
    split: AutoSplit | None = None,
    part: Part | None = None,
    layout: Layout | None = None,
) -> Iterator[Row]:
    """The rows of one file, or of a part of it; their format recognised from the first rows if `layout` is
    not known.

    What groups and strata rows have is read as `split` says.
    """
    keys = (split.group_by, split.stratify_by) if split else (None, None)
    held: list[RawRow] = []
    count = 0
    for row in raw_rows(uri, wanted_columns(features, keys), part):
        count += 1
        if layout is None:
            if isinstance(row.value, Problem):
                held.append(row)
            elif (layout := layout_of(row.value, format, features)) is None:
                held.append(RawRow(row.line, dict.fromkeys(row.value)))  # its columns: the row may be large
            if layout is None and len(held) < FIRST_ROWS:
                continue
            yield from _held(held, layout, format, features, uri)
            held.clear()
            if layout is None:
                continue
        yield _row(row, layout, uri, keys)
    if not count and part is None:
        raise DataError("has no rows", uri, fix="remove it from the splits or write rows into it")
    yield from _held(held, layout, format, features, uri)


def _held(
    held: Sequence[RawRow], layout: Layout | None, format: DataFormat, features: dict[str, str], uri: str
) -> Iterator[Row]:
    """The rows that came before one told the format. Raises DataError if none of many has."""
    if layout is None:
        columns = {str(name) for row in held if not isinstance(row.value, Problem) for name in row.value}
        if columns:
            raise unknown(sorted(columns), format, features, uri)
    for row in held:
        value = _unheld(row, layout)
        yield Row(uri, row.line, value.at(uri, row.line))


def _unheld(row: RawRow, layout: Layout | None) -> Problem:
    """What is wrong with a row that told no format."""
    if isinstance(row.value, Problem):
        return row.value
    made = conversation(row.value, layout) if layout else None
    if isinstance(made, Problem):
        return made
    found = names_of(row.value)
    return Problem("other columns than the file's format", found=found, fix="write all rows of a file alike")


def _row(row: RawRow, layout: Layout, uri: str, keys: tuple[str | None, str | None]) -> Row:
    made = row.value if isinstance(row.value, Problem) else conversation(row.value, layout)
    found: list[str | None] = []
    for key in keys:
        if key is None or isinstance(made, Problem):
            found.append(None)
            continue
        value = _inside(row.value, key)
        if value is None:
            made = Problem(
                "no value to split by", field=key, found=shown(value), fix=f"write {key} in each row"
            )
        found.append(None if value is None else str(value))
    value = made.at(uri, row.line) if isinstance(made, Problem) else made
    return Row(uri, row.line, value, *found)


def _inside(value: Any, key: str) -> Any:
    """What stands under a key with dots in it; None if nothing does."""
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def recognised(files: DataFiles) -> str:
    """The formats of the main split's files, as the report names them."""
    if files.format is not DataFormat.AUTO:
        return files.format.value
    found: list[str] = []
    for uri in files.splits.get(main_split(files), []):
        rows = raw_rows(files.copies.get(uri, uri), wanted_columns(files.features))
        good = (row.value for row in islice(rows, FIRST_ROWS) if not isinstance(row.value, Problem))
        layouts = (layout_of(value, files.format, files.features) for value in good)
        layout = next((layout for layout in layouts if layout), None)
        if layout and layout.format.value not in found:
            found.append(layout.format.value)
    return ", ".join(found)


def _assignment(files: DataFiles) -> Callable[[Row], Split] | None:
    """Which split a train row belongs to; None if no split is made from the train rows."""
    division = Division(made_shares(files), files.auto_split.seed)
    if not division.shares:
        return None
    for row in read_files(files, Split.TRAIN):
        if isinstance(row.value, Conversation):
            division.add(row)
    split_of = division.decided()
    return lambda row: Split.TRAIN if isinstance(row.value, Problem) else split_of(division.place_of(row))
