"""Both languages are complete: what a page says is in the catalogue, and what is in the catalogue is said."""

import ast
import builtins
import re
from importlib.resources import files
from string import Formatter

import pytest
import yaml

from datatunerx.console import words
from datatunerx.console.menu import MENU
from datatunerx.console.states import STATES, UNKNOWN, why
from datatunerx.resources.kinds import BY_NAME

SAID = re.compile(r"""\bt\(\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")
TAG_OR_CODE = re.compile(
    r"<!--.*?-->|\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}|<(script|style|svg|code|pre|kbd)\b.*?</\1>|<[^>]*>", re.S
)
NOT_WORDS = {"datatunerx", "SHA-256", "EN", "中文"}
ATTRIBUTE = re.compile(r'\b(?:aria-label|title|placeholder|alt)="([^"{]*[A-Za-z][^"{]*)"')
TEMPLATES = [
    f for f in files("datatunerx.console").joinpath("templates").iterdir() if f.name.endswith(".html")
]


CONTROL, WORKER = ("controllers", "compute"), ("worker", "training", "scoring", "plugins", "runs")
BELOW = ("serving", "modeling", "data", "storage")
"""Rooms whose exceptions end in a worker's result, under the name of their class."""
NOT_REASONS = {"Event", "False", "Normal", "Placement", "Ready", "Record", "True", "Used"}
MADE_UP = {"LLMNotReady", "DatasetNotReady"}
"""Put together of a kind and what is wrong with it."""


def modules(*rooms: str):
    for room in rooms:
        for file in files("datatunerx").joinpath(room).rglob("*.py"):
            yield ast.parse(file.read_text())


def constants(pattern: str, *rooms: str) -> set[str]:
    """The strings of that form, but those of a module's list of names."""
    found = set()
    for tree in modules(*rooms):
        listed = {
            id(part)
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and "__all__" in ast.unparse(node.targets[0])
            for part in ast.walk(node)
        }
        strings = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        found |= {n.value for n in strings if re.fullmatch(pattern, n.value) and id(n) not in listed}
    return found


def exceptions(*rooms: str) -> set[str]:
    """Names of the exceptions that are defined there."""
    known = {name for name, each in vars(builtins).items() if isinstance(each, type) and name[0] != "_"}
    known = {name for name in known if issubclass(getattr(builtins, name), BaseException)}
    theirs: set[str] = set()
    classes = [n for tree in modules(*rooms) for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    for _ in range(4):  # of those of those
        theirs |= {n.name for n in classes if {ast.unparse(base) for base in n.bases} & (known | theirs)}
    return {name for name in theirs if not name.startswith("_")}


def reasons() -> set[str]:
    """What controllers and workers may say why something is as it is."""
    said = constants("[A-Z]+[a-z][A-Za-z]*", *CONTROL) - BY_NAME.keys() - NOT_REASONS
    told = constants("[A-Z][a-z]+([A-Z][a-z]+)+", *WORKER) - defined(*WORKER)
    return said | told | exceptions(*WORKER, *BELOW) | MADE_UP


def defined(*rooms: str) -> set[str]:
    """Classes that are written in quotes where a type is said."""
    return {n.name for tree in modules(*rooms) for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}


def test_every_reason_has_its_chinese_and_nothing_else_has():
    text = files("datatunerx.console").joinpath("words", "reasons.yaml").read_text()
    listed = yaml.safe_load(text).keys()
    assert reasons() - words.catalogue().keys() == set()
    assert {name for name in listed - reasons() if not hasattr(builtins, name)} == set()


def test_a_reason_is_said_in_the_visitors_language_and_its_message_as_it_was_written():
    ready = {"type": "Ready", "status": "False", "reason": "DatasetNotFound", "message": "apply it"}
    obj = {"metadata": {}, "status": {"conditions": [ready]}}
    assert why(obj) == "DatasetNotFound: apply it"
    assert why(obj, lambda text: words.say("zh", text)) == "找不到数据集: apply it"


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
