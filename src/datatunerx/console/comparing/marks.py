"""What differs between two texts, word by word. Pure."""

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import NamedTuple

_WORDS = re.compile(r"\s+|[\u3040-\u9fff]|\w+|[^\w\s]")
"""A run of blanks, a word, one sign; of Chinese and Japanese one character each."""
MAX_WORDS = 3000


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
    for how, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if how == "equal":
            yield Piece("same", "".join(after[c:d]))
            continue
        if b > a:
            yield Piece("gone", "".join(before[a:b]))
        if d > c:
            yield Piece("new", "".join(after[c:d]))
