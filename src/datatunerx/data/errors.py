"""What goes wrong with data, said so that it can be put right: file, line, field, what was found, one fix."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice

SHOWN = 80
SHOWN_NAMES = 20


class DataError(Exception):
    """The data, or its place, cannot be used. `fix` is one thing to do about it."""

    def __init__(
        self, message: str, file: str = "", line: int | None = None, field: str = "", fix: str = ""
    ) -> None:
        self.message, self.file, self.line, self.field, self.fix = message, file, line, field, fix
        super().__init__(message)

    def __str__(self) -> str:
        place = where(self.file, self.line)
        field = "" if self.message.startswith(self.field) else self.field
        said = ": ".join(part for part in (place, field, self.message) if part)
        return f"{said}. Fix: {self.fix}" if self.fix else said

    def __reduce__(self) -> tuple[type["DataError"], tuple[str, str, int | None, str, str]]:
        return type(self), (self.message, self.file, self.line, self.field, self.fix)


class TemplateError(DataError):
    """The chat template cannot be used, or not with these messages."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why one row cannot be used. `reason` is the kind of problem, counted in the report."""

    reason: str
    file: str = ""
    line: int = 0
    field: str = ""
    found: str = ""
    fix: str = ""

    def at(self, file: str, line: int) -> "Problem":
        return Problem(self.reason, file, line, self.field, self.found, self.fix)

    def error(self) -> DataError:
        found = f" (found {self.found})" if self.found else ""
        return DataError(f"{self.reason}{found}", self.file, self.line, self.field, self.fix)


class Refused(ValueError):
    """Carries a row's Problem out of the depth where it was found."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.reason)
        self.problem = problem


def where(file: str, line: int | None) -> str:
    """`file:line`, as the report and every message write a place; rows of tables count from 1."""
    return file if line is None else f"{file}:{line}"


def shown(value: object) -> str:
    """A value as an error message quotes it: short, printable, with its type when that is the point."""
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return f"{_WORDS[type(value)]} {value}"
    if isinstance(value, str):
        text = ascii(value) if not value.isprintable() else repr(value)
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return _WORDS.get(type(value), type(value).__name__)


def named(name: str) -> str:
    """A column's name as an error message has it: as it stands, unless it is long or cannot be printed."""
    return name if name.isprintable() and len(name) <= SHOWN else shown(name)


def names_of(columns: Collection[object], none: str = "none") -> str:
    """Columns as an error message lists them; `none` where there are none."""
    listed = ", ".join(named(str(name)) for name in islice(columns, SHOWN_NAMES))
    return f"{listed}, ..." if len(columns) > SHOWN_NAMES else listed or none


_WORDS: dict[type, str] = {bool: "boolean", int: "number", float: "number", list: "a list", dict: "an object"}
