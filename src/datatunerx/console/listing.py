"""Lists as the URL asks for them: filtered, sorted and cut into pages on the server. Pure."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

T = TypeVar("T")
PAGE_SIZES = (25, 50, 100, 200)
SortKey = Callable[[Any], Any]


@dataclass(frozen=True)
class Column(Generic[T]):
    """A column by which a list can be sorted; `key` gives None for what has no value and comes last."""

    name: str
    title: str
    key: Callable[[T], Any] | None = None
    number: bool = False


@dataclass(frozen=True)
class Asked:
    """What the URL says of a list."""

    filter: str = ""
    state: str = ""
    sort: str = ""
    """A column's name; with - in front from the end."""
    page: int = 1
    size: int = PAGE_SIZES[1]
    columns: str = ""
    """Names of those to show, with commas between; empty where the URL does not say."""
    selected: tuple[str, ...] = ()
    """What is ticked, on this page of the list or another."""
    kept: tuple[tuple[str, str], ...] = ()
    """What else the URL of the page says, and goes on saying."""
    turns: str = "page"
    """How the URL names the number of the page."""

    @classmethod
    def of(cls, query: Mapping[str, str], *kept: str) -> "Asked":
        """Read a query; what makes no sense is the default. `kept` are the names that are not the list's."""
        size = _whole(query.get("size", ""))
        return cls(
            query.get("q", "").strip(),
            query.get("state", ""),
            query.get("sort", ""),
            max(1, _whole(query.get("page", ""))),
            size if size in PAGE_SIZES else PAGE_SIZES[1],
            query.get("columns", ""),
            tuple(each for each in query.get("selected", "").split(",") if each),
            tuple((name, query[name]) for name in kept if query.get(name)),
        )

    @classmethod
    def beside(cls, query: Mapping[str, str], turns: str, size: int) -> "Asked":
        """Read the page of a second list beside the one that the rest of the query is about."""
        kept = tuple((name, value) for name, value in query.items() if name not in (turns, "selected"))
        return cls(page=max(1, _whole(query.get(turns, ""))), size=size, kept=kept, turns=turns)

    def url(self, **changes: Any) -> str:
        """The query of this list with some of it changed; a new filter or order begins at page 1.

        What is ticked changes without the server: the page itself puts it into the links it follows.
        """
        if self.turns != "page":
            return "?" + urlencode(dict(self.kept) | {self.turns: changes["page"]})
        found: dict[str, Any] = dict(self.kept) | {"q": self.filter, "state": self.state, "sort": self.sort}
        found |= {"page": 1, "size": self.size, "columns": self.columns} | changes
        plain = {"page": 1, "size": PAGE_SIZES[1]}
        return "?" + urlencode({k: v for k, v in found.items() if v and v != plain.get(k)})


@dataclass(frozen=True)
class Listing(Generic[T]):
    """One page of a list, and all that is needed to draw what is around it."""

    rows: Sequence[T]
    columns: Sequence[Column[T]]
    asked: Asked
    total: int
    """Rows before filtering."""
    found: int
    """Rows after it."""
    states: Mapping[str, int]
    """How many rows of each state there are."""
    name: str = ""
    """By which a browser remembers which columns it hides."""
    hidden: Collection[str] = ()
    """Columns that are not shown."""
    targets: Sequence[str] = ()
    """What can be ticked on all pages, before filtering."""

    @property
    def shown(self) -> list[Column[T]]:
        return [column for column in self.columns if self.shows(column.name)]

    def shows(self, name: str) -> bool:
        return name not in self.hidden

    @property
    def gone(self) -> list[str]:
        """What the URL calls ticked, and is not there any more."""
        there = set(self.targets)
        return [each for each in self.asked.selected if each not in there]

    @property
    def pages(self) -> int:
        return max(1, -(-self.found // self.asked.size))

    @property
    def first(self) -> int:
        return min((self.asked.page - 1) * self.asked.size + 1, self.found)

    @property
    def last(self) -> int:
        return min(self.asked.page * self.asked.size, self.found)

    def sort_url(self, column: Column[T]) -> str:
        """Sorted by the column; the other way round if it already is."""
        return self.asked.url(sort=f"-{column.name}" if self.asked.sort == column.name else column.name)

    def direction(self, column: Column[T]) -> str:
        """For aria-sort."""
        words = {column.name: "ascending", f"-{column.name}": "descending"}
        return words.get(self.asked.sort, "none")


def listing(
    rows: Sequence[T],
    columns: Sequence[Column[T]],
    asked: Asked,
    *,
    text: Callable[[T], str],
    state: Callable[[T], str],
    order: SortKey,
    name: str = "",
    hidden: Collection[str] = (),
    target: Callable[[T], str] = lambda row: "",
) -> Listing[T]:
    """The page that was asked for. `text` is what is searched; `order` holds when no other is asked.

    `hidden` are the columns that are left out where the URL does not say; the first one never is. `target` is
    what is ticked for a row, empty where nothing can be done with it.
    """
    states: dict[str, int] = {}
    for row in rows:
        states[state(row)] = states.get(state(row), 0) + 1
    found = [row for row in rows if not asked.state or state(row) == asked.state]
    for word in asked.filter.casefold().split():
        found = [row for row in found if word in text(row).casefold()]
    found = _sorted(found, columns, asked.sort, order)
    pages = max(1, -(-len(found) // asked.size))
    page = min(asked.page, pages)
    shown = replace(asked, page=page)
    start = (page - 1) * asked.size
    return Listing(
        found[start : start + asked.size], columns, shown, len(rows), len(found), states, name,
        _hidden(columns, asked.columns, hidden), [each for row in rows if (each := target(row))],
    )  # fmt: skip


def part(rows: Sequence[T], asked: Asked) -> Listing[T]:
    """The page that was asked for of rows that have their order and are not filtered."""
    return listing(rows, (), asked, text=str, state=lambda row: "", order=lambda row: 0)


def _hidden(columns: Sequence[Column[T]], asked: str, remembered: Collection[str]) -> set[str]:
    named = {column.name for column in columns} & set(asked.split(","))
    rest = {column.name for column in columns[1:]}
    return rest - named if named else rest & set(remembered)


def _sorted(rows: Sequence[T], columns: Sequence[Column[T]], sort: str, order: SortKey) -> list[T]:
    column = next((c for c in columns if c.key and c.name == sort.removeprefix("-")), None)
    if column is None or column.key is None:
        return sorted(rows, key=order)
    key = column.key
    valued = [row for row in rows if key(row) is not None]
    without = [row for row in rows if key(row) is None]
    return sorted(valued, key=key, reverse=sort.startswith("-")) + without


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
