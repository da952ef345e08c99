"""The hooks: each is a function that a plugin's module may have, marked `@hookimpl`.

A package tells of its module by an entry point in the group of that hook:

    [project.entry-points."datatunerx.data_plugins"]
    my-package = "my_package.plugin"
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy

DATA_PLUGINS = "datatunerx.data_plugins"
SCORERS = "datatunerx.scorers"

hookspec = pluggy.HookspecMarker("datatunerx")
hookimpl = pluggy.HookimplMarker("datatunerx")

Row = Mapping[str, Any]
"""One row of the data that a plugin makes, in any format that a Dataset takes."""


@dataclass(frozen=True)
class Call:
    """One call of a data plugin: for one split of one Dataset."""

    split: str
    """train, validate or test."""
    files: tuple[Path, ...]
    """The split's files, on this machine. They are read, never written."""
    parameters: Mapping[str, Any]
    """The DataPlugin's own, with the Dataset's over them; the schema has been checked."""
    tell: Callable[[int, int | None, str], None] = lambda done, total, unit: None
    """Say how far it is: `tell(3, 10, "files")`; a total of None is not known. Cheap to call often."""
    leave_out: Callable[[str, str], None] = lambda reason, place: None
    """Count what becomes no row: `leave_out("empty", "a.pdf")`; the totals are shown to the user."""


@dataclass(frozen=True)
class DataPlugin:
    """A data plugin: a function that makes rows of files."""

    make: Callable[[Call], Iterable[Row]]
    """May be a generator: rows are written as they come. What it raises is shown to the user as it is."""
    summary: str = ""
    """One sentence."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """JSON Schema (2020-12) of its parameters; an empty one takes anything."""


@dataclass(frozen=True)
class ScoreCall:
    """One call of a scorer: for the answers of one model."""

    predictions: Sequence[Row]
    """Each with row, question, reference, answer, finish, nll and tokens, in the order of the rows."""
    parameters: Mapping[str, Any]
    """The ScoringPlugin's own, with those of this use over them; the schema has been checked."""
    base: Path | None = None
    """Folder of the base model; None where a service was asked."""
    adapter: Path | None = None
    """Folder of the adapter in PEFT's format; None is the untouched base."""


@dataclass(frozen=True)
class Scorer:
    """A scorer: a function that says how good answers are."""

    score: Callable[[ScoreCall], Any]
    """One number or None for each prediction, or {"scores": {name: ...}} as docs/scoring.md has it."""
    summary: str = ""
    """One sentence."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """JSON Schema (2020-12) of its parameters; an empty one takes anything."""
    requires: Mapping[str, str] = field(default_factory=dict)
    """Modules it cannot do without -> what to pip install where one is missing."""


class Hooks:
    """What pluggy calls. Each returns a mapping by the name that users write."""

    @hookspec
    def data_plugins(self) -> Mapping[str, DataPlugin]:  # type: ignore[empty-body]
        """Data plugins by name."""

    @hookspec
    def scorers(self) -> Mapping[str, Scorer]:  # type: ignore[empty-body]
        """Scorers by name."""
