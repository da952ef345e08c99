"""The languages of the pages. A text is written in English in the code; the catalogues say it in Chinese.

One file per group of pages under `words/`, `English: 中文`. A test holds that every text has its line.
"""

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

ENGLISH, CHINESE = "en", "zh"
Say = Callable[..., str]
"""A text of the catalogue, in the language of who looks."""
LANGUAGES = {ENGLISH: "English", CHINESE: "中文"}


@cache
def catalogue() -> dict[str, str]:
    """All texts in Chinese, by their English. ValueError when two files do not agree."""
    found: dict[str, str] = {}
    for file in sorted(files(__package__).joinpath("words").iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".yaml"):
            continue
        for english, chinese in (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).items():
            if found.setdefault(english, chinese) != chinese:
                raise ValueError(f"words/{file.name}: {english!r} is {found[english]!r} in another file")
    return found


def say(language: str, text: str, **values: Any) -> str:
    """The text in that language, with its {values} filled in; English where there is no other."""
    said = catalogue().get(text, text) if language == CHINESE else text
    return said.format(**values) if values else said


def plain(text: str, **values: Any) -> str:
    """In English: where nobody looks."""
    return say(ENGLISH, text, **values)


def preferred(accept_language: str) -> str:
    """The language a browser asks for."""
    first = accept_language.split(",")[0].strip().lower()
    return CHINESE if first.startswith("zh") else ENGLISH
