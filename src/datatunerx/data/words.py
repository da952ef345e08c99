"""Token ids word by word, from a memory of words: of tokenizers that never join what a space parts.

A byte-level BPE splits text before it merges anything, and in all the splits in use a single space between
two other characters begins a new piece. Such a text's tokens are those of its words, one after the other, and
most words have been seen before. Whether a tokenizer is one of these is read from its tokenizer.json and
then tried; of others nothing is done here.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import compress, count, repeat
from operator import not_
from typing import Any, NamedTuple

import numpy as np
import orjson
from tokenizers import Tokenizer

MAX_WORDS = 100_000
"""Words that are remembered, about 25 MB of them; then all are forgotten."""
MAX_LENGTH = 64
"""Characters of a word that is worth remembering."""
GAP = re.compile(r"(?<=\S) (?=\S)")
PROBES = (
    "Hello world, it's 3 o'clock -- isn't it?\n\nYes 12345 times, A1 b2 (c) [d] {e} ...",
    "über naïve 東京 は 日本 の 首都 です 。 Привет мир! \U0001f600 \U0001f469\u200d\U0001f4bb x\u0301 e",
    "def f(x):\n    return x + 1\t# tabs\tand  runs   of    spaces \n \r\n \u00a0 end 1.5e-3 == 0x1F ;;",
    "a\u0085b \u2028 c\u3000d \x1c e ' s 't 'll  ' ll $9.99 50% #tag @you http://a.b/c?d=e&f=g C++ <br/> --",
)


class Cut(NamedTuple):
    """A text as words."""

    head: str
    words: list[str]
    """Those after the first, each without the single space that stands before it."""
    ids: list[bytes]
    """Of each of these, as far as they are known."""
    new: list[int]
    """Which of them are not."""


class Words:
    """Ids of texts between control tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._first: dict[str, bytes] = {}
        self._after: dict[str, bytes] = {}
        """Ids of words after a space."""

    def ids(self, texts: Sequence[str]) -> list[bytes] | None:
        """Ids of each text, int32; None if their words repeat so little that the whole texts are quicker
        done."""
        cuts = [self._cut(text) for text in texts]
        heads = {cut.head for cut in cuts}.difference(self._first)
        new = {cut.words[place] for cut in cuts for place in cut.new}
        if len(new) > 1000 and 2 * len(new) > sum(len(cut.words) for cut in cuts):
            return None
        first, after = self._made(heads, ""), self._made(new, " ")
        for _, words, ids, places in cuts:
            for place in places:
                ids[place] = after[words[place]]
        found = [
            (first[cut.head] if cut.head in first else self._first[cut.head]) + b"".join(cut.ids)
            for cut in cuts
        ]
        self._remember(first, after)
        return found

    def _cut(self, text: str) -> Cut:
        """Cutting at all spaces is quick, and right where no space has another beside it."""
        head, space, rest = text.partition(" ")
        cut = self._looked_up(head, rest.split(" ") if space else [])
        if (space and not _is_bare(head[-1:])) or not all(_is_bare(cut.words[place]) for place in cut.new):
            head, *words = GAP.split(text)
            return self._looked_up(head, words)
        return cut

    def _looked_up(self, head: str, words: list[str]) -> Cut:
        ids = list(map(self._after.get, words, repeat(b"")))
        new = [] if all(ids) else list(compress(count(), map(not_, ids)))
        return Cut(head, words, ids, new)

    def _made(self, words: Iterable[str], before: str) -> dict[str, bytes]:
        asked = list(words)
        made = self._tokenizer.encode_batch_fast([before + word for word in asked], add_special_tokens=False)
        return {word: np.array(one.ids, np.int32).tobytes() for word, one in zip(asked, made, strict=True)}

    def _remember(self, first: dict[str, bytes], after: dict[str, bytes]) -> None:
        if len(self._first) + len(self._after) + len(first) + len(after) > MAX_WORDS:
            self._first.clear()
            self._after.clear()
        self._first.update((head, ids) for head, ids in first.items() if len(head) <= MAX_LENGTH)
        self._after.update(
            (word, ids) for word, ids in after.items() if len(word) <= MAX_LENGTH and _is_bare(word)
        )


def _is_bare(word: str) -> bool:
    """Whether it has no space at its ends; one that has may be a word only at the end of a text."""
    return word != "" and word == word.strip()


def words_of(tokenizer: Tokenizer, source: str) -> Words | None:
    """For a tokenizer without post-processor, and the text of its tokenizer.json; None if it may join what a
    space parts."""
    if not _is_byte_level(orjson.loads(source)):
        return None
    words = Words(tokenizer)
    texts = [*PROBES, " ".join(PROBES)]
    made = tokenizer.encode_batch(texts, add_special_tokens=False)
    whole = [np.array(one.ids, np.int32).tobytes() for one in made]
    return words if words.ids(texts) == whole and _breaks_at_lines(tokenizer) else None


def _breaks_at_lines(tokenizer: Tokenizer) -> bool:
    """Whether an answer after a line break, if it begins with no space, is what it is alone - unless what
    stands before it is not: such an answer is tokenised alone anyway."""
    for before in ("assistant\n", "### Response:\n", "x\n\n", "\n\n", "\n", "1\n"):
        for after in ("Hello there", "1. One", "- a", "'s", "東京", "(", "_x", "\U0001f600", '"q"', "\u0301"):
            lead, rest = (tokenizer.encode(part, add_special_tokens=False).ids for part in (before, after))
            whole = tokenizer.encode(before + after, add_special_tokens=False).ids
            if whole[: len(lead)] == lead and whole != lead + rest:
                return False
    return True


def _is_byte_level(document: dict[str, Any]) -> bool:
    """Whether it is a byte-level BPE that changes nothing before it splits, with control tokens that stand
    for themselves alone."""
    model, normalizer = document["model"], document.get("normalizer")
    if model.get("type") != "BPE" or model.get("dropout") or normalizer not in (None, {"type": "NFC"}):
        return False
    for token in document["added_tokens"]:
        if token["lstrip"] or token["rstrip"] or token["single_word"] or re.search(r"\s", token["content"]):
            return False
    steps = _steps(document.get("pre_tokenizer"))
    kinds = {step["type"] for step in steps}
    prefixed = any(step.get("add_prefix_space") for step in steps)
    return "ByteLevel" in kinds and kinds <= {"ByteLevel", "Split", "Digits"} and not prefixed


def _steps(pre: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre is None:
        return []
    return list(pre["pretokenizers"]) if pre["type"] == "Sequence" else [pre]
