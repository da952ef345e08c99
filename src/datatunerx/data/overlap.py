"""Rows that say the same: repeated ones, and held-out ones that training has seen.

Exact copies are found by hash. Near ones are found by MinHash: held-out rows are put into an index of bands,
and the train rows are held against it one batch at a time, so memory grows with what is held out only.
"""

import hashlib
from array import array
from collections.abc import Iterable, Sequence

import numpy as np
import orjson
from numpy.typing import NDArray
from rensa import RMinHash, RMinHashLSH

from datatunerx.data.formats import Conversation
from datatunerx.resources.material import Overlap

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


def content_hash(value: Conversation) -> int:
    """64 bits of what the row says."""
    parts = (value.messages, value.tools, value.rejected)
    said = orjson.dumps(parts, option=orjson.OPT_SORT_KEYS, default=str)
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "little")


def copies(contents: NDArray[np.uint64], held_out: NDArray[np.bool_]) -> tuple[int, int]:
    """Rows that repeat an earlier one exactly, and held-out rows that are also in train."""
    leaked = np.isin(contents[held_out], np.unique(contents[~held_out]))
    return len(contents) - len(np.unique(contents)), int(leaked.sum())


class HeldOut:
    """Held-out rows, against which train rows are held."""

    def __init__(self) -> None:
        self._index = RMinHashLSH(threshold=NEAR, num_perm=PERMUTATIONS, num_bands=BANDS)
        self._hashes: list[RMinHash] = []
        self._contents = array("Q")
        self._places: list[str] = []
        self._found: dict[int, str] = {}
        self.rows = 0

    def add(self, value: Conversation, place: str) -> None:
        self.rows += 1
        shingles = _shingles(value)
        if len(self._hashes) == MAX_HELD_OUT or not shingles:
            return
        (hashed,) = RMinHash.from_token_sets([shingles], PERMUTATIONS, 42)
        self._index.insert(len(self._hashes), hashed)
        self._hashes.append(hashed)
        self._contents.append(content_hash(value))
        self._places.append(place)

    def compare(self, rows: Sequence[tuple[Conversation, str]]) -> None:
        """Hold train rows against what is held out; exact copies are not near ones."""
        shingled = [(shingles, value, place) for value, place in rows if (shingles := _shingles(value))]
        if not shingled or not self._hashes:
            return
        hashed = RMinHash.from_token_sets([shingles for shingles, _, _ in shingled], PERMUTATIONS, 42)
        met = self._index.query_all(hashed)
        for one, keys, (_, value, place) in zip(hashed, met, shingled, strict=True):
            for key in keys:
                near = key not in self._found and self._hashes[key].jaccard(one) >= NEAR
                if near and self._contents[key] != content_hash(value):
                    self._found[key] = place

    def overlap(self, duplicates: int, leaked: int) -> Overlap:
        where = [f"{self._places[key]} ~ {place}" for key, place in sorted(self._found.items())[:MAX_PLACES]]
        return Overlap(
            duplicates=duplicates, held_out=self.rows, compared=len(self._hashes), leaked=leaked,
            near=len(self._found), where=[text[-256:] for text in where],
        )  # fmt: skip


def _shingles(value: Conversation) -> list[str]:
    """Runs of characters in what was said, but for case and spaces; a common system turn says nothing."""
    texts: Iterable[str] = (str(m["content"]) for m in value.messages if m["role"] != "system")
    text = " ".join(" ".join(texts).casefold().split())[:MAX_COMPARED_CHARACTERS]
    return list({text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1))}) if text else []
