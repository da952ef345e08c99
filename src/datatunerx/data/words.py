"""Token ids word by word, from a memory of words: of tokenizers that never join what a space parts.

A byte-level BPE splits text before it merges anything, and in all the splits in use a single space between
two other characters begins a new piece. Such a text's tokens are those of its words, one after the other, and
most words have been seen before. Whether a tokenizer is one of these is read from its tokenizer.json and
then tried; of others nothing is done here.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

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


class Words:
    """Ids of texts between control tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: dict[str, list[int]] = {}

    def ids(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Ids of each text; None if their words repeat so little that the whole texts are quicker done."""
        split = [_words(text) for text in texts]
        known = self._ids
        missing = {word for words in split for word in words if word not in known}
        if 2 * len(missing) > sum(map(len, split)) and len(missing) > 1000:
            return None
        if len(known) + len(missing) > MAX_WORDS:
            known.clear()
            missing = {word for words in split for word in words}
        asked = list(missing)
        made = self._tokenizer.encode_batch_fast(asked, add_special_tokens=False)
        fresh = {word: one.ids for word, one in zip(asked, made, strict=True)}
        known.update((word, ids) for word, ids in fresh.items() if len(word) <= MAX_LENGTH)
        found = []
        for words in split:
            ids: list[int] = []
            for word in words:
                ids += known[word] if word in known else fresh[word]
            found.append(ids)
        return found


def _words(text: str) -> list[str]:
    """The text cut before each single space between two other characters; joined they are the text."""
    first, *others = GAP.split(text)
    return [first, *[" " + word for word in others]] if others else [first]


def words_of(tokenizer: Tokenizer) -> Words | None:
    """For a tokenizer without post-processor; None if it may join what a space parts."""
    if not _is_byte_level(json.loads(tokenizer.to_str())):
        return None
    words = Words(tokenizer)
    texts = [*PROBES, " ".join(PROBES)]
    whole = [one.ids for one in tokenizer.encode_batch(texts, add_special_tokens=False)]
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
    model, normalizer = document["model"], document["normalizer"]
    if model["type"] != "BPE" or model.get("dropout") or normalizer not in (None, {"type": "NFC"}):
        return False
    for token in document["added_tokens"]:
        if token["lstrip"] or token["rstrip"] or token["single_word"] or re.search(r"\s", token["content"]):
            return False
    steps = _steps(document["pre_tokenizer"])
    kinds = {step["type"] for step in steps}
    prefixed = any(step.get("add_prefix_space") for step in steps)
    return "ByteLevel" in kinds and kinds <= {"ByteLevel", "Split", "Digits"} and not prefixed


def _steps(pre: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre is None:
        return []
    return list(pre["pretokenizers"]) if pre["type"] == "Sequence" else [pre]
