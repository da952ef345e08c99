"""Which rows go to a split that has no files of its own: a share of the train rows, the same ones each time.

Rows are ordered by a keyed hash of their group, or of their content where there are no groups, and the first
ones are taken. So the same rows fall to a split whatever file or order they are in, and neither rows that say
the same nor rows of one group ever fall on two sides. With strata, each gives the same share.
"""

import hashlib
import json
from array import array
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from datatunerx.data.errors import Problem
from datatunerx.data.formats import Conversation
from datatunerx.resources.enums import Split
from datatunerx.runs.plan import DataFiles

MIN_ROWS_TO_SPLIT = 3


class Placed(Protocol):
    """What is needed of a row."""

    @property
    def value(self) -> Conversation | Problem: ...
    @property
    def group(self) -> str | None: ...
    @property
    def stratum(self) -> str | None: ...


def main_split(files: DataFiles) -> Split:
    """The split that must have rows: train, unless the dataset is there to score by only."""
    return next((split for split in Split if files.splits.get(split)), Split.TRAIN)


def made_shares(files: DataFiles) -> dict[Split, float]:
    """The splits that are made from the train rows, with their shares; none without train files."""
    if not files.splits.get(Split.TRAIN):
        return {}
    asked = {Split.TEST: files.auto_split.test, Split.VALIDATE: files.auto_split.validate_}
    return {split: share for split, share in asked.items() if share > 0 and not files.splits.get(split)}


@dataclass(frozen=True)
class Decided:
    """The split of every place."""

    places: NDArray[np.uint64]
    """Each once, in order."""
    owners: NDArray[np.int8]
    """Of each place, the number of its split in `splits`; train is 0."""
    splits: tuple[Split, ...]

    def __call__(self, place: int) -> Split:
        return self.splits[int(self.owners[np.searchsorted(self.places, np.uint64(place))])]

    def numbers(self, places: NDArray[np.uint64]) -> NDArray[np.int8]:
        """Of many places at once."""
        return self.owners[np.searchsorted(self.places, places)]


class Division:
    """All rows are added first; then it can say where each belongs. 12 bytes of memory a row."""

    def __init__(self, shares: dict[Split, float], seed: int) -> None:
        self.shares, self.seed = shares, seed
        self._places, self._strata = array("Q"), array("I")
        self._numbers: dict[str, int] = {}

    def add(self, row: Placed) -> int:
        """Where the row stands among all rows."""
        place = self.place_of(row)
        self._places.append(place)
        self._strata.append(self._numbers.setdefault(row.stratum or "", len(self._numbers)))
        return place

    def extend(self, other: "Division") -> None:
        """Add the rows of another one of the same shares and seed."""
        self._places.extend(other._places)
        numbers = [self._numbers.setdefault(name, len(self._numbers)) for name in other._numbers]
        self._strata.extend(numbers[stratum] for stratum in other._strata)

    def __len__(self) -> int:
        return len(self._places)

    def forget(self) -> None:
        """Give the memory of the rows back: all is decided."""
        self._places, self._strata = array("Q"), array("I")

    def numbers(self, decided: "Decided") -> NDArray[np.int8]:
        """Of each row the number of its split: train is 0, then those that are made, in order."""
        return decided.numbers(np.frombuffer(self._places, dtype=np.uint64))

    def place_of(self, row: Placed) -> int:
        """A hash of the row's group, or else of its content, 64 bits."""
        assert isinstance(row.value, Conversation)
        text = (
            f"group {row.group}"
            if row.group is not None
            else json.dumps(row.value.messages, sort_keys=True, ensure_ascii=False)
        )
        key = self.seed.to_bytes(8, "little")
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=key).digest(), "little")

    def decided(self) -> "Decided":
        """The split of each place: as near to the shares as whole groups allow."""
        places = np.frombuffer(self._places, dtype=np.uint64)
        # Of one stratum only nothing is said, which saves memory.
        strata = np.frombuffer(self._strata, dtype=np.uint32) if len(self._numbers) > 1 else None
        names = sorted(self._numbers, key=lambda name: hashlib.blake2b(name.encode()).digest())
        return divide(places, self.shares, strata, [self._numbers[name] for name in names])


def divide(
    places: NDArray[np.uint64],
    shares: dict[Split, float],
    strata: NDArray[np.uint32] | None = None,
    order: list[int] | None = None,
) -> Decided:
    """Which split a place belongs to, given those of all rows, the stratum of each, and the strata in order.

    Two rows or more may have one place. Its stratum is that of most of them.
    """
    if strata is None:
        distinct, upto = _counted(places)
        of = None
    else:
        distinct, where, counts = np.unique(places, return_inverse=True, return_counts=True)
        of = _majority(where, strata)
    owner = np.zeros(len(distinct), dtype=np.int8)  # 0 trains, then the splits in order
    if len(distinct) >= MIN_ROWS_TO_SPLIT and shares:
        bounds = np.cumsum(list(shares.values()))
        seen, given = 0, np.zeros(len(shares), dtype=np.int64)
        for stratum in order or [0]:
            members: NDArray[np.int64] | slice = slice(None)
            if of is not None:
                members = np.flatnonzero(of == stratum)
                upto = np.cumsum(counts[members])
            if not len(upto):
                continue
            seen += int(upto[-1])
            # What rounding kept from the strata before is given here, so that the shares hold for the whole.
            ends = np.searchsorted(upto, np.rint(bounds * seen).astype(np.int64) - given, side="right")
            ends = np.maximum.accumulate(ends)
            given += np.where(ends > 0, upto[ends - 1], 0)
            mine = owner[members]
            for number in range(len(shares), 0, -1):
                mine[: ends[number - 1]] = number
            owner[members] = mine
        _give_each_one(owner, len(shares))
    return Decided(distinct, owner, (Split.TRAIN, *shares))


def _counted(places: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Each place once, in order, and how many rows there are up to it and with it; in no more memory than
    three times that of the places."""
    ordered = np.sort(places)
    firsts = (
        np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(ordered) else np.empty(0, int)
    )
    distinct = ordered[firsts]
    upto = firsts  # where the next one begins
    upto[:-1] = firsts[1:]
    upto[-1:] = len(ordered)
    return distinct, upto


def _majority(where: NDArray[np.int64], strata: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The stratum of each place: that of most of its rows."""
    pairs, counts = np.unique(where.astype(np.uint64) << 32 | strata, return_counts=True)
    order = np.lexsort((counts, pairs >> 32))
    last = np.append(np.diff(pairs[order] >> 32) > 0, True)
    strata_of: NDArray[np.int64] = (pairs[order][last] & 0xFFFFFFFF).astype(np.int64)
    return strata_of


def _give_each_one(owner: NDArray[np.int8], splits: int) -> None:
    """No split stays empty, and there is something to train on: the largest gives what is missing."""
    for number in range(splits, -1, -1):
        sizes = np.bincount(owner, minlength=splits + 1)
        if not sizes[number]:
            owner[np.flatnonzero(owner == sizes.argmax())[0 if number else -1]] = number
