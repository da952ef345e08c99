"""A dataset's rows in pieces, which several processes read and work on; what comes of them is in order.

A file of lines is cut at line breaks, and each process reads its pieces itself. Of other files the rows are
read here, and handed on.
"""

import os
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from datatunerx.data.crew import SOLO, CrewError, in_order, num_processes
from datatunerx.data.errors import DataError, Problem
from datatunerx.data.formats import Layout
from datatunerx.data.meter import Meter, Progress
from datatunerx.data.parse import parts
from datatunerx.data.raw import Part
from datatunerx.data.rows import Row, batches, layout_at_once, read_named, under_its_name
from datatunerx.data.sources import local_path
from datatunerx.data.splits import Division, made_shares
from datatunerx.resources.enums import Split
from datatunerx.runs.plan import DataFiles

PIECE_BYTES = 1 << 20
BYTES_PER_PROCESS = 4 << 20
"""Less is done sooner than another process has started."""
B = TypeVar("B")


class ProcessEnded(DataError):
    """A process was killed while it worked on rows, most often for want of memory."""


class Piece(NamedTuple):
    """Rows of one file that stand together: a part of a file of lines, or the rows themselves."""

    uri: str
    part: Part | None = None
    layout: Layout | None = None
    rows: Sequence[Row] = ()
    chosen: bytes | None = None
    """For each conversation in it 1 if it is in the split, else 0; None if all rows are."""
    has_problems: bool = True
    """Whether the rows that are none are in the split."""

    @property
    def line(self) -> int:
        return self.part.line if self.part else self.rows[0].line


def of_split(
    files: DataFiles, split: Split, processes: int, on_progress: Progress | None = None
) -> Iterator[Piece]:
    """All rows of the split, as `read_rows` has them; `on_progress` hears of the pass over the train rows
    that says which are in it, if there is one. Raises DataError for a file that cannot be read."""
    shares = made_shares(files)
    if split is not Split.TRAIN and split not in shares:
        yield from of_files(files, split)
    elif not shares:
        yield from of_files(files, Split.TRAIN)
    else:
        owners, counts = _divided(files, processes, on_progress)
        yield from chosen(files, split, owners == [Split.TRAIN, *shares].index(split), counts)


def of_files(files: DataFiles, split: Split) -> Iterator[Piece]:
    """All rows of the files that are named for the split."""
    for uri in files.splits.get(split, []):
        place = files.copies.get(uri, uri)
        with under_its_name(place, uri):
            layout = layout_at_once(files, uri)
            piece: Piece | None = None
            for part in parts(place, PIECE_BYTES) if layout else ():
                piece = Piece(uri, part, layout)
                yield piece
        if piece is None:
            for batch in batches(read_named(files, uri)):
                yield Piece(uri, rows=batch)


def rows_of(piece: Piece, files: DataFiles) -> Iterator[Row]:
    """The rows of the piece that are in the split."""
    rows = iter(piece.rows)
    if piece.part:
        rows = read_named(files, piece.uri, piece.part, piece.layout)
    if piece.chosen is None:
        yield from rows
        return
    chosen = iter(piece.chosen)
    for row in rows:
        if isinstance(row.value, Problem):
            if piece.has_problems:
                yield row
        elif (is_mine := next(chosen, None)) is None:
            raise _changed(files)
        elif is_mine:
            yield row
    if next(chosen, None) is not None:
        raise _changed(files)


def worked(work: Callable[[Piece], B], pieces: Iterable[Piece], processes: int) -> Generator[B, None, None]:
    """What `work` makes of each piece, in order. Raises DataError and MemoryError as `work` does, and
    ProcessEnded."""
    with closing(in_order(work, pieces, processes)) as answers:
        try:
            yield from answers
        except CrewError as error:
            said = f"the process that worked on the rows from here on {error}"
            raise ProcessEnded(said, error.thing.uri, error.thing.line, fix=SOLO) from error


def processes_for(files: DataFiles, split: Split) -> int:
    """As many as there are cores for; one for little data."""
    own = split if files.splits.get(split) else Split.TRAIN
    return max(1, min(num_processes(), num_bytes(files, own) // BYTES_PER_PROCESS))


def num_bytes(files: DataFiles, split: Split) -> int:
    """Of the files that are named for the split, as far as they are here and can be read."""
    size = 0
    for uri in files.splits.get(split, []):
        place = local_path(files.copies.get(uri, uri))
        with suppress(OSError):  # told by who reads it
            size += os.path.getsize(place) if place else 0
    return size


@dataclass(frozen=True)
class _Placing:
    files: DataFiles

    def __call__(self, piece: Piece) -> tuple[int, Division]:
        """Bytes of the piece, or 0 if that cannot be told; and where its rows stand."""
        division = Division(made_shares(self.files), self.files.auto_split.seed)
        for row in rows_of(piece, self.files):
            if not isinstance(row.value, Problem):
                division.add(row)
        return piece.part.size if piece.part else 0, division


def _divided(
    files: DataFiles, processes: int, on_progress: Progress | None
) -> tuple[NDArray[np.int8], "array[int]"]:
    """Of each conversation of the train files the number of its split; and how many each piece has."""
    division, counts = Division(made_shares(files), files.auto_split.seed), array("I")
    meter = Meter(on_progress, "dividing the rows of", num_bytes=num_bytes(files, Split.TRAIN))
    for size, part in worked(_Placing(files), of_files(files, Split.TRAIN), processes):
        division.extend(part)
        counts.append(len(part))
        meter.add(len(part), size)
    return division.numbers(division.decided()), counts


def chosen(
    files: DataFiles, split: Split, is_mine: NDArray[np.bool_], counts: "array[int]"
) -> Iterator[Piece]:
    """Of the train files' conversations those that are in the split; `counts` are those of each piece."""
    place, left = 0, iter(counts)
    for piece in of_files(files, Split.TRAIN):
        count = next(left, 0)
        mine = is_mine[place : place + count]
        place += count
        if split is Split.TRAIN or mine.any():
            yield piece._replace(chosen=mine.tobytes(), has_problems=split is Split.TRAIN)
    if next(left, None) is not None:
        raise _changed(files)


def _changed(files: DataFiles) -> DataError:
    fix = "leave the files alone while they are read"
    return DataError(f"the files of dataset {files.name} changed while they were read", fix=fix)
