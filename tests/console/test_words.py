"""Both languages are complete: what a page says is in the catalogue, and what is in the catalogue is said."""

import re
from importlib.resources import files
from string import Formatter

import pytest

from datatunerx.console import words
from datatunerx.console.menu import MENU
from datatunerx.console.states import STATES, UNKNOWN

SAID = re.compile(r"""\bt\(\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")
TAG_OR_CODE = re.compile(
    r"<!--.*?-->|\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}|<(script|style|svg|code|pre|kbd)\b.*?</\1>|<[^>]*>", re.S
)
NOT_WORDS = {"datatunerx", "SHA-256", "EN", "中文"}
ATTRIBUTE = re.compile(r'\b(?:aria-label|title|placeholder|alt)="([^"{]*[A-Za-z][^"{]*)"')
TEMPLATES = [
    f for f in files("datatunerx.console").joinpath("templates").iterdir() if f.name.endswith(".html")
]


def names(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_the_chinese_of_a_text_has_the_same_places_for_values():
    for english, chinese in words.catalogue().items():
        assert names(english) == names(chinese), english
        assert chinese.strip(), english


def test_what_templates_states_and_menu_say_is_in_the_catalogue():
    said = {match[1][1:-1] for file in TEMPLATES for match in SAID.finditer(file.read_text())}
    said |= {state.word for state in [*STATES.values(), UNKNOWN]}
    said |= {entry.title for _, entries in MENU for entry in entries} | {title for title, _ in MENU}
    assert said - words.catalogue().keys() == set()


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.name)
def test_no_template_says_anything_past_the_catalogue(file):
    text = file.read_text()
    plain = TAG_OR_CODE.sub(" ", text)
    left = {word.strip() for word in re.split(r"[\n·…–%#/.,()]| {2,}", plain)}
    assert {word for word in left if re.search("[A-Za-z]{2}", word)} - NOT_WORDS == set()
    assert ATTRIBUTE.findall(text) == []


async def test_what_pages_say_has_its_chinese(filled, monkeypatch):
    said = set()
    noting = _Noting(words.catalogue(), said)
    monkeypatch.setattr(words, "catalogue", lambda: noting)
    filled.http.cookies.set("dtx-language", "zh")
    for path in (
        "experiments",
        "jobs",
        "datasets",
        "models",
        "hyperparameters",
        "plugins",
        "services",
        "devices",
        "events",
        "settings",
        "experiments/support-tickets",
        "new",
        *(f"new/draft-open/{step}" for step in range(1, 5)),
        *(f"new/draft-runs/{step}" for step in range(3, 7)),
        "new/draft-done/5",
        "jobs/faq-zh-qwen-b?tab=logs",
        "jobs/faq-zh-qwen-b?tab=charts",
        *(
            f"act?do={do}&target=fe/{name}"
            for do in ("stop", "keep", "resume", "retry", "delete")
            for name in ("support-tickets", "faq-zh-qwen", "contracts-long-context")
        ),
        "act?do=delete&target=ds/support-tickets",
        "act?do=delete&target=ckpt/support-tickets-r8-lr2e-3",
    ):
        await filled.get(path)
    assert len(said) > 150
    assert said - words.catalogue().kept.keys() == set()


class _Noting:
    """The catalogue, which notes what is asked of it."""

    def __init__(self, kept, said):
        self.kept, self.said = kept, said

    def get(self, text, default):
        self.said.add(text)
        return self.kept.get(text, default)
