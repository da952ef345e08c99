"""Rows that say the same: repeated ones, and held-out ones that training has seen.

Exact copies are found by hash. Near ones are found by MinHash: held-out rows are put into an index of bands,
and the train rows are held against it piece by piece, so memory grows with what is held out only.
"""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from rensa import RMinHash, RMinHashLSH

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
"""Held-out rows that are compared; about 1.5 KB of memory each."""
MAX_PLACES = 20
SIGNED_AT_ONCE = 64


def content_hash(value: Conversation) -> int:
    """64 bits of what the row says."""
    parts = (value.messages, value.tools, value.rejected)
    said = orjson.dumps(parts, option=orjson.OPT_SORT_KEYS, default=str)
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "little")


def copies(contents: NDArray[np.uint64], held_out: NDArray[np.bool_]) -> tuple[int, int]:
    """Rows that repeat an earlier one exactly, and held-out rows that are also in train."""
    leaked = np.isin(contents[held_out], np.unique(contents[~held_out]))
    return len(contents) - len(np.unique(contents)), int(leaked.sum())


class Signed(NamedTuple):
    """A row as it is compared."""

    hashed: RMinHash
    content: int
    place: str


def signed(rows: Iterable[tuple[Conversation, str]]) -> Iterator[Signed]:
    """Rows with their places, but for those that say nothing; a few at a time, since shingles are large."""
    rows = iter(rows)
    while few := list(islice(rows, SIGNED_AT_ONCE)):
        shingled = [(shingles, value, place) for value, place in few if (shingles := _shingles(value))]
        hashed = RMinHash.from_token_sets([shingles for shingles, _, _ in shingled], PERMUTATIONS, 42)
        for one, (_, value, place) in zip(hashed, shingled, strict=True):
            yield Signed(one, content_hash(value), place)


class HeldOut:
    """Held-out rows, against which train rows are held."""

    def __init__(self) -> None:
        self._index = RMinHashLSH(threshold=NEAR, num_perm=PERMUTATIONS, num_bands=BANDS)
        self._rows: list[Signed] = []

    @property
    def is_full(self) -> bool:
        return len(self._rows) == MAX_HELD_OUT

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, rows: Iterable[Signed]) -> None:
        for row in rows:
            if not self.is_full:
                self._index.insert(len(self._rows), row.hashed)
                self._rows.append(row)

    def near(self, rows: Iterable[Signed]) -> dict[int, str]:
        """The held-out rows that train rows come near to, by number, each with the place of the first that
        does; exact copies are not near ones. Later rows are no longer held against these."""
        rows, found = iter(rows), dict[int, str]()
        while few := list(islice(rows, SIGNED_AT_ONCE)):
            met = self._index.query_all([row.hashed for row in few])
            for row, keys in zip(few, met, strict=True):
                for key in keys:
                    known = self._rows[key]
                    near = key not in found and known.content != row.content
                    if near and known.hashed.jaccard(row.hashed) >= NEAR:
                        found[key] = row.place
                        self._index.remove(key)
        return found

    def where(self, found: dict[int, str]) -> list[str]:
        """What `near` found, to be read."""
        told = [f"{self._rows[key].place} ~ {place}" for key, place in sorted(found.items())[:MAX_PLACES]]
        return [text[-256:] for text in told]


def _shingles(value: Conversation) -> list[str]:
    """Runs of characters in what was said, but for case and spaces; a common system turn says nothing."""
    texts: Iterable[str] = (str(m["content"]) for m in value.messages if m["role"] != "system")
    text = " ".join(" ".join(texts).casefold().split())[:MAX_COMPARED_CHARACTERS]
    # What stands there twice has the same hash, of which the least counts.
    return [text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1))] if text else []
