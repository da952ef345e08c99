"""What differs between two texts, word by word. Pure."""

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import NamedTuple

_WORDS = re.compile(r"\s+|[\u3040-\u9fff]|\w+|[^\w\s]")
"""A run of blanks, a word, one sign; of Chinese and Japanese one character each."""
MAX_WORDS = 3000
ALIKE = 0.4
"""Share of words in both below which what is gone is left out: it would be the whole old text in bits."""


class Piece(NamedTuple):
    """Text that is in both, only in the new one, or only in the old one."""

    how: str
    """same, new or gone."""
    text: str


def pieces(old: str, new: str) -> list[Piece]:
    """`new` against `old`; texts of more than `MAX_WORDS` words are not held against each other."""
    before, after = _WORDS.findall(old), _WORDS.findall(new)
    if max(len(before), len(after)) > MAX_WORDS:
        return [Piece("same", new)]
    return list(_joined(before, after))


def _joined(before: list[str], after: list[str]) -> Iterator[Piece]:
    found = SequenceMatcher(None, before, after, autojunk=False)
    alike = found.ratio() >= ALIKE
    for how, a, b, c, d in found.get_opcodes():
        if how == "equal":
            yield Piece("same", "".join(after[c:d]))
            continue
        if b > a and alike:
            yield Piece("gone", "".join(before[a:b]))
        if d > c:
            yield Piece("new", "".join(after[c:d]))
