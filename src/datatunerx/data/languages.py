"""What languages a dataset is in, from a sample of its rows.

Chinese, Japanese and Korean are told by their letters, so that product names in Latin letters do not matter;
the rest by py3langid, which needs no network.
"""

import heapq
import re
from collections import Counter
from functools import cache
from typing import Any

from datatunerx.data.formats import Conversation
from datatunerx.resources.material import Language

SAMPLED = 1000
MAX_CHARACTERS = 400
"""Of each row that is looked at."""
SURE = 0.5
UNKNOWN = "und"
"""As ISO 639 calls what cannot be told: numbers, code, a word."""
HAN = re.compile("[\u3400-\u9fff\U00020000-\U0003134f]")
KANA, HANGUL = re.compile("[\u3040-\u30ff]"), re.compile("[\uac00-\ud7af]")
SHARE = 0.2
"""Of the letters: one Chinese character says about as much as a Latin word."""


class Languages:
    """Keeps the sample: the rows with the smallest hashes, whatever order they come in."""

    def __init__(self) -> None:
        self._sample: list[tuple[int, str]] = []

    def add(self, content: int, value: Conversation) -> None:
        """`content` is the row's content hash."""
        if len(self._sample) == SAMPLED and -content <= self._sample[0][0]:
            return
        texts = (str(message["content"]) for message in value.messages if message["role"] != "system")
        self._take((-content, " ".join(texts)[:MAX_CHARACTERS]))

    def extend(self, other: "Languages") -> None:
        """The sample of both."""
        for entry in other._sample:
            self._take(entry)

    def _take(self, entry: tuple[int, str]) -> None:
        (heapq.heappush if len(self._sample) < SAMPLED else heapq.heappushpop)(self._sample, entry)

    def counted(self) -> list[Language]:
        """Rows of the sample per language, the most frequent first."""
        found = Counter(language(text) for _, text in self._sample)
        return [Language(name=name, rows=rows) for name, rows in sorted(found.items(), key=_order)][:64]


def language(text: str) -> str:
    """ISO 639-1 code of the text's language, or und."""
    letters = sum(map(str.isalpha, text))
    if not letters:
        return UNKNOWN
    han, kana, hangul = (len(pattern.findall(text)) / letters for pattern in (HAN, KANA, HANGUL))
    if kana > SHARE / 2 and kana + han > SHARE:
        return "ja"
    if max(han, hangul) > SHARE:
        return "zh" if han > hangul else "ko"
    name, sure = _identifier().classify(text)
    return str(name) if sure >= SURE and len(name) == 2 else UNKNOWN


def _order(entry: tuple[str, int]) -> tuple[int, str]:
    return -entry[1], entry[0]


@cache
def _identifier() -> Any:
    # Imported when it is needed: its model takes a moment to unpack.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
