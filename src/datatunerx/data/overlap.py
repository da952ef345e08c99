"""Rows that say the same: repeated ones, and held-out ones that training has seen.

Exact copies are found by hash. Near ones are found by MinHash: held-out rows are put into an index of bands,
and the train rows are held against it piece by piece, so memory grows with what is held out only. The runs of
characters that rows are compared by are hashed here, all of many rows at once: as a list of strings they take
five times as long as everything else.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from rensa import RMinHash

from datatunerx.data.formats import Conversation

NEAR = 0.8
"""Share of common shingles (Jaccard) from which on two rows are near copies."""
PERMUTATIONS, BANDS = 128, 16
"""Rows that share 0.8 meet in one of 16 bands of 8 in 95 of 100 cases, those that share 0.5 in 6."""
SHINGLE = 5
"""Characters: words would not do for Chinese."""
MAX_COMPARED_CHARACTERS = 20_000
"""Of each row."""
MAX_HELD_OUT = 50_000
"""Held-out rows that are compared; less than 1 KB of memory each."""
MAX_PLACES = 20
SIGNED_AT_ONCE = 64
SEED = 42
ODD = np.uint64(0x9E3779B97F4A7C15)
"""Any odd number whose bits look random."""


def content_hash(value: Conversation) -> int:
    """64 bits of what the row says."""
    parts = (value.messages, value.tools, value.rejected)
    said = orjson.dumps(parts, option=orjson.OPT_SORT_KEYS, default=str)
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "little")


def copies(contents: NDArray[np.uint64], held_out: NDArray[np.bool_]) -> tuple[int, int]:
    """Rows that repeat an earlier one exactly, and held-out rows that are also in train."""
    train = contents[~held_out]
    train.sort()
    places = np.searchsorted(train, held := contents[held_out])
    leaked = int((train[np.minimum(places, len(train) - 1)] == held).sum()) if len(train) else 0
    del train
    ordered = np.sort(contents)
    return int((ordered[1:] == ordered[:-1]).sum()), leaked


class Signed(NamedTuple):
    """A few rows as they are compared."""

    minima: NDArray[np.uint32]
    """[rows, PERMUTATIONS]"""
    contents: NDArray[np.uint64]
    places: list[str]


def signed(rows: Iterable[tuple[Conversation, str]]) -> Iterator[Signed]:
    """Rows with their places, but for those that say nothing; a few at a time."""
    rows = iter(rows)
    while few := list(islice(rows, SIGNED_AT_ONCE)):
        said = [(text, value, place) for value, place in few if (text := _said(value))]
        if said:
            contents = np.array([content_hash(value) for _, value, _ in said], np.uint64)
            yield Signed(_minima([text for text, _, _ in said]), contents, [place for _, _, place in said])


class HeldOut:
    """Held-out rows, against which train rows are held once all of them are added."""

    def __init__(self) -> None:
        self._blocks: list[Signed] = []
        self._places: list[str] = []
        self._index: _Index | None = None

    @property
    def is_full(self) -> bool:
        return len(self) == MAX_HELD_OUT

    def __len__(self) -> int:
        return len(self._places)

    def add(self, blocks: Iterable[Signed]) -> int:
        """How many of the rows there was room for."""
        before = len(self)
        for minima, contents, places in blocks:
            room = MAX_HELD_OUT - len(self)
            self._blocks.append(Signed(minima[:room], contents[:room], []))
            self._places += places[:room]
        return len(self) - before

    def lay(self) -> None:
        """Put them into bands. Done before it goes to other processes, they share the memory."""
        self._index = _Index(self._blocks)
        self._blocks = []

    def near(self, blocks: Iterable[Signed]) -> dict[int, str]:
        """The held-out rows that train rows come near to, by number, each with the place of the first that
        does; exact copies are not near ones. Later rows are no longer held against these."""
        if self._index is None:
            self.lay()
        assert self._index
        return {
            key: block.places[row] for block in blocks for row, keys in self._index.met(block) for key in keys
        }

    def where(self, found: dict[int, str]) -> list[str]:
        """What `near` found, to be read."""
        told = [f"{self._places[key]} ~ {place}" for key, place in sorted(found.items())[:MAX_PLACES]]
        return [text[-256:] for text in told]


class _Index:
    """Signatures by band. Rows that say the same stand in it once, and what was met is taken out."""

    def __init__(self, blocks: Sequence[Signed]) -> None:
        none = Signed(np.empty((0, PERMUTATIONS), np.uint32), np.empty(0, np.uint64), [])
        contents = np.concatenate([block.contents for block in (none, *blocks)])
        minima = np.concatenate([block.minima for block in (none, *blocks)])
        self._contents, first, group = np.unique(contents, return_index=True, return_inverse=True)
        self._minima = minima[first]
        # The numbers of the rows that say the same, group by group.
        self._members, self._ends = np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))
        self._is_open = np.ones(len(first), bool)
        self._lay()

    def _lay(self) -> None:
        self._laid = np.flatnonzero(self._is_open)
        self._num_open = len(self._laid)
        codes = _codes(self._minima[self._laid])
        self._order = np.argsort(codes, axis=1)
        self._codes = np.take_along_axis(codes, self._order, 1)

    def met(self, block: Signed) -> Iterator[tuple[int, list[int]]]:
        """Of these rows each that comes near to some in the index, with their numbers."""
        codes = _codes(block.minima)
        low, high = self._ranges(codes)
        for row in np.flatnonzero((high > low).any(axis=0)).tolist():
            if 2 * self._num_open < len(self._laid):  # else rows that are all alike meet those that are out
                self._lay()
                low, high = self._ranges(codes)
            bounds = zip(self._order, low[:, row].tolist(), high[:, row].tolist(), strict=True)
            groups = self._laid[np.unique(np.concatenate([order[start:end] for order, start, end in bounds]))]
            groups = groups[self._is_open[groups] & (self._contents[groups] != block.contents[row])]
            groups = groups[(self._minima[groups] == block.minima[row]).mean(axis=1) >= NEAR]
            self._is_open[groups] = False
            self._num_open -= len(groups)
            if len(groups):
                yield row, [key for group in groups.tolist() for key in self._rows_of(group)]

    def _ranges(self, codes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of each band and row from where to where those stand that share it, [BANDS, rows] twice."""
        pairs = [*zip(self._codes, codes, strict=True)]
        low = np.stack([np.searchsorted(mine, theirs, "left") for mine, theirs in pairs])
        return low, np.stack([np.searchsorted(mine, theirs, "right") for mine, theirs in pairs])

    def _rows_of(self, group: int) -> list[int]:
        start = int(self._ends[group - 1]) if group else 0
        rows: list[int] = self._members[start : int(self._ends[group])].tolist()
        return rows


def _codes(minima: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """One number for each band of each row, [BANDS, rows]."""
    bands = minima.reshape(len(minima), BANDS, PERMUTATIONS // BANDS).astype(np.uint64)
    codes = np.zeros(bands.shape[:2], np.uint64)
    for place in range(bands.shape[2]):
        codes = codes * ODD + bands[:, :, place]
    return np.ascontiguousarray(codes.T)


def _said(value: Conversation) -> str:
    """What is compared: what was said, but for case and spaces; a common system turn says nothing."""
    texts: Iterable[str] = (str(m["content"]) for m in value.messages if m["role"] != "system")
    return " ".join(" ".join(texts).casefold().split())[:MAX_COMPARED_CHARACTERS]


def _minima(texts: Sequence[str]) -> NDArray[np.uint32]:
    """MinHash of each text's runs of SHINGLE characters; what is shorter is one run."""
    padded = [text.ljust(SHINGLE, "\0") for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    hashes = np.zeros(len(codes) - SHINGLE + 1, np.uint64)
    for place in range(SHINGLE):
        hashes = hashes * ODD + codes[place : place + len(hashes)]
    hashes = (hashes ^ hashes >> np.uint64(32)) * ODD
    hashes ^= hashes >> np.uint64(29)
    # Where one text goes over into the next there is no run.
    ends = np.cumsum([len(text) for text in padded])
    between = (ends[:-1, None] - np.arange(1, SHINGLE)).ravel()
    offsets = np.concatenate([[0], ends - (SHINGLE - 1) * np.arange(1, len(ends) + 1)]).astype(np.uint64)
    kept = np.delete(hashes, between)
    rows = RMinHash.digest_matrix_from_flat_token_hashes(kept, offsets, PERMUTATIONS, SEED).to_rows()
    return np.array(rows, np.uint32)
