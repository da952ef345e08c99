"""Lists of plain objects: a line of cells each, drawn by one template."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from starlette.responses import Response

from datatunerx.console import kinds, states
from datatunerx.console.listing import Asked, Column, listing
from datatunerx.console.sparklines import Spark
from datatunerx.console.visit import Visit

Json = dict[str, Any]


class Cell(NamedTuple):
    """`form` is how it is drawn: text, name, number, bytes, score, age, state or words."""

    form: str
    value: Any
    sub: str = ""
    url: str = ""
    spark: Spark | None = None
    """A small curve before a number."""


class Line(NamedTuple):
    """One row. `target` is what is ticked, KIND/NAME; empty where nothing can be done with it."""

    cells: tuple[Cell, ...]
    phase: str
    target: str = ""


Complete = Callable[[Sequence[Line]], Awaitable[Sequence[Line]]]


class Empty(NamedTuple):
    """What a list without rows says, and the one button that makes some."""

    title: str
    text: str
    url: str = ""
    button: str = ""


def name_cell(visit: Visit, kind: str, name: str, sub: str = "") -> Cell:
    """A name that leads to its page."""
    return Cell("name", name, sub, object_url(visit, kind, name))


def object_url(visit: Visit, kind: str, name: str) -> str:
    """The page of an object; empty for a kind that has none."""
    page = kinds.PAGE.get(kind, "")
    if page in ("models", "plugins"):
        return visit.url(page, kinds.SHORT[kind], name)
    return visit.url(page, name) if page else ""


def state_cell(visit: Visit, obj: Json) -> Cell:
    """Where an object stands, and why, unless it is simply well."""
    phase = states.phase(obj)
    return Cell("state", phase, "" if phase in ("Ready", "Succeeded") else states.why(obj, visit.say))


def ago(stamp: str) -> Cell:
    return Cell("age", stamp)


def columns(*titles: str, numbers: Sequence[str] = ()) -> list[Column[Line]]:
    """One per cell, each sortable by its value; `numbers` stand on the right."""
    return [
        Column(title.lower().replace(" ", "-"), title, _key(place), title in numbers)
        for place, title in enumerate(titles)
    ]


def _key(place: int) -> Any:
    def key(line: Line) -> Any:
        value = line.cells[place].value
        if value is None or value == "":
            return None
        if line.cells[place].form == "age":
            return tuple(-ord(letter) for letter in value)
        return value.casefold() if isinstance(value, str) else value

    return key


async def show(
    visit: Visit, title: str, page: str, heads: list[Column[Line]], lines: Sequence[Line], empty: Empty,
    *, template: str = "objects.html", complete: Complete | None = None, kept: Sequence[str] = (),
    **context: Any,
) -> Response:  # fmt: skip
    """The page of a list: what needs somebody first, else in the order given.

    `complete` adds to the lines that are shown what would be too much work for all of them. `kept` are
    names of the query that are not the list's.
    """
    found = listing(
        lines, heads, Asked.of(visit.query, *kept), text=_text, state=lambda line: line.phase,
        order=lambda line: states.attention(line.phase), name=page, hidden=visit.hidden(page),
        target=lambda line: line.target,
    )  # fmt: skip
    if complete:
        found = replace(found, rows=await complete(found.rows))
    context |= {"title": title, "place": visit.url(page), "list": found, "empty": empty, "live": True}
    return await visit.page(template, **context)


def _text(line: Line) -> str:
    return " ".join(f"{cell.value} {cell.sub}" for cell in line.cells)
