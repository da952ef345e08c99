"""Rows of a dataset, in file order, each in exactly one split: as conversations or as the Problem with it.

A split without files of its own gets its share of the train rows: rows are ordered by a keyed hash of
their content, and the first ones are taken, so the same rows fall to it whatever file or order they are in,
and rows that say the same never fall on two sides.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from datatunerx.data.errors import DataError, Problem, where
from datatunerx.data.formats import COLUMNS, Conversation, Layout, conversation, layout_of, unknown
from datatunerx.data.parse import raw_rows
from datatunerx.data.raw import RawRow
from datatunerx.data.sources import open_source
from datatunerx.data.turns import Message
from datatunerx.resources.enums import DataFormat, Split
from datatunerx.runs.plan import DataFiles

FIRST_ROWS = 20
BATCH_ROWS = 512
BATCH_BYTES = 2 << 20
MIN_ROWS_TO_SPLIT = 3
DIGEST_CHUNK = 1024 * 1024
Places = NDArray[np.uint64]


class Row(NamedTuple):
    file: str
    line: int
    """Line of text files, row (from 1) of JSON arrays and tables."""
    value: Conversation | Problem

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
        yield from read_file(uri, files.format, files.features)


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
        found.append(Question(messages[:last], messages[last]["content"], row.where))
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
    return None


def unchanged_digest(files: DataFiles) -> str:
    """The files' `content_digest`. Raises DataError if they are not those that were inspected."""
    digest = content_digest(files)
    if files.digest and files.digest != digest:
        raise DataError(
            f"the files of dataset {files.name} changed since they were inspected ({files.digest[:12]} then, "
            f"{digest[:12]} now)",
            fix="apply the Dataset again so that it is inspected anew",
        )
    return digest


def content_digest(files: DataFiles) -> str:
    """SHA-256 over the bytes of all files in the order of splits and files, in hex.

    Each file enters as its own digest with the name of its split, so that moving bytes is a change too.
    """
    whole = hashlib.sha256()
    for split in Split:
        for uri in files.splits.get(split, []):
            one = hashlib.sha256()
            with open_source(uri) as stream:
                while chunk := stream.read(DIGEST_CHUNK):
                    one.update(chunk)
            whole.update(f"{split} {one.hexdigest()}\n".encode())
    return whole.hexdigest()


def read_file(uri: str, format: DataFormat, features: dict[str, str]) -> Iterator[Row]:
    """The rows of one file, their format recognised from the first rows if it is not given."""
    layout: Layout | None = None
    held: list[RawRow] = []
    count = 0
    for row in raw_rows(uri, COLUMNS | set(features.values())):
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
        yield Row(uri, row.line, _value(row, layout, uri))
    if not count:
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
    found = ", ".join(list(row.value)[:20])
    return Problem("other columns than the file's format", found=found, fix="write all rows of a file alike")


def _value(row: RawRow, layout: Layout, uri: str) -> Conversation | Problem:
    made = row.value if isinstance(row.value, Problem) else conversation(row.value, layout)
    return made.at(uri, row.line) if isinstance(made, Problem) else made


def recognised(files: DataFiles) -> str:
    """The formats of the train files, as the report names them."""
    if files.format is not DataFormat.AUTO:
        return files.format.value
    found: list[str] = []
    for uri in files.splits.get(Split.TRAIN, []):
        rows = raw_rows(uri, COLUMNS | set(files.features.values()))
        good = (row.value for row in islice(rows, FIRST_ROWS) if not isinstance(row.value, Problem))
        layouts = (layout_of(value, files.format, files.features) for value in good)
        layout = next((layout for layout in layouts if layout), None)
        if layout and layout.format.value not in found:
            found.append(layout.format.value)
    return ", ".join(found)


def made_shares(files: DataFiles) -> dict[Split, float]:
    """The splits that are made from the train rows, with their shares."""
    asked = {Split.TEST: files.auto_split.test, Split.VALIDATE: files.auto_split.validate_}
    return {split: share for split, share in asked.items() if share > 0 and not files.splits.get(split)}


def place_of(value: Conversation, seed: int) -> int:
    """Where a row stands among all rows: a hash of its content, 64 bits."""
    text = json.dumps(value.messages, sort_keys=True, ensure_ascii=False)
    key = seed.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=key).digest(), "little")


def divide(places: Places, shares: dict[Split, float]) -> Callable[[int], Split]:
    """Which split a place belongs to, given all places: as near to the shares as whole rows allow."""
    distinct, counts = np.unique(places, return_counts=True)
    bounds: list[tuple[Split, int]] = []
    if len(distinct) >= MIN_ROWS_TO_SPLIT:
        upto, taken, total = np.cumsum(counts), 0, 0.0
        for after, (split, share) in enumerate(shares.items(), 1):
            total += share
            wanted = int(np.searchsorted(upto, round(total * len(places)), side="right"))
            left = len(shares) - after + 1  # one row each for the splits to come, and one to train on
            taken = min(max(wanted, taken + 1), len(distinct) - left)
            bounds.append((split, int(distinct[taken])))
    return lambda place: next((split for split, below in bounds if place < below), Split.TRAIN)


def _assignment(files: DataFiles) -> Callable[[Row], Split] | None:
    """Which split a train row belongs to; None if no split is made from the train rows."""
    shares, seed = made_shares(files), files.auto_split.seed
    if not shares:
        return None
    rows = (row.value for row in read_files(files, Split.TRAIN))
    places = (place_of(value, seed) for value in rows if isinstance(value, Conversation))
    split_of = divide(np.fromiter(places, dtype=np.uint64), shares)
    return lambda row: Split.TRAIN if isinstance(row.value, Problem) else split_of(place_of(row.value, seed))
