"""A lane: one job's place in the fused loop, with everything that is its own.

The rows of a step are cut into chunks by the lane alone, never by what else is in the stream, and every row
has its own dropout seed: a lane's numbers are the same whoever trains beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datatunerx.modeling.adapters import Adapter
from datatunerx.modeling.generate import shifted_labels
from datatunerx.resources.training import TrainingParameters
from datatunerx.runs.commands import Command
from datatunerx.runs.events import JobOutcome
from datatunerx.runs.plan import EarlyStop
from datatunerx.training.optimizer import Moments
from datatunerx.training.schedule import Course

ROWS_NAMED = 20
"""Rows a message names; a step may have thousands."""

Row = tuple[Any, Any]
"""Token ids and labels, int32 arrays of one length; a label of -100 carries no loss."""


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt that is answered at step 0 and at each checkpoint."""

    text: str
    ids: Sequence[int]


@dataclass(frozen=True)
class Job:
    """What the loop is told about one training."""

    name: str
    parameters: TrainingParameters
    rows: Sequence[Row]
    folder: Path
    """Where its checkpoints go; what is whole there is resumed."""
    validate: Sequence[Row] = ()
    samples: Sequence[SamplePrompt] = ()
    row_names: Sequence[str] | None = None
    """What a user calls each row (file and line); without it rows are counted from 1."""
    start_from: Path | None = None
    """An adapter to start from when there is nothing to resume."""
    extra_files: dict[str, bytes] = field(default_factory=dict)
    """Stored with every checkpoint: tokenizer, template."""
    early_stop: EarlyStop | None = None


@dataclass
class Point:
    """One entry of the metric history."""

    step: int
    values: dict[str, float]


@dataclass
class Lane:
    """A job while it trains."""

    job: Job
    course: Course
    adapter: Adapter
    moments: Moments
    capacity: int
    """Tokens that a chunk of this lane should not much exceed."""
    step: int = 0
    """Steps done."""
    tokens: int = 0
    history: list[Point] = field(default_factory=list)
    steps_without_labels: int = 0
    eval_loss: float | None = None
    """At the present step, if it was measured."""
    score: float | None = None
    """Of answers to validate rows at the present step, if early stopping looks at it; more is better."""
    best_step: int | None = None
    """Of the best evaluation, which has `best_loss` and `best_score`."""
    best_loss: float | None = None
    best_score: float | None = None
    waited: int = 0
    """Evaluations in a row that were no better."""
    evaluation_owed: bool = False
    """The present step is to be evaluated, and a wish to leave came between."""
    outcome: JobOutcome | None = None
    """Set when the job has left its lane."""
    row_tokens: float = field(init=False)
    """Mean length of its rows."""
    blocked_until: float | None = None
    """Waiting for disk space; seconds of the monotonic clock."""
    pending: Command | None = None
    """What was asked while the disk was full."""
    step_is_open: bool = False
    """What is due after the present step is not done yet: the disk was full."""
    paused: bool = False
    """Its user was told that it waits for disk space."""
    window: "Window | None" = None
    seconds: float = 0.0
    """Time spent in its own steps since it was taken up."""
    tokens_since: int = 0

    def __post_init__(self) -> None:
        self.row_tokens = sum(len(ids) for ids, _ in self.job.rows) / len(self.job.rows)

    @property
    def name(self) -> str:
        return self.job.name

    @property
    def stops_by_score(self) -> bool:
        return self.job.early_stop is not None and self.job.early_stop.score is not None

    @property
    def remaining(self) -> float:
        """Tokens still to pass, about; the longest goes first."""
        rows = (self.course.steps - self.step) * min(self.course.rows_per_step, self.course.rows)
        return rows * self.row_tokens

    def open_window(self) -> "Window":
        """The chunks of the present step, made when first asked for."""
        if self.window is None:
            self.window = make_window(self.job.rows, self.course.rows_of(self.step), self.capacity)
        return self.window

    def row_name(self, row: int) -> str:
        names = self.job.row_names
        return f"row {row + 1}" if names is None else names[row]

    def row_list(self, rows: Sequence[int]) -> str:
        """The names of rows for a message: the first of them, and how many more."""
        told = ", ".join(self.row_name(row) for row in rows[:ROWS_NAMED])
        more = len(rows) - ROWS_NAMED
        return f"{told} and {more} more" if more > 0 else told


@dataclass(frozen=True)
class Chunk:
    """Rows of one step that pass together."""

    rows: tuple[int, ...]
    """Row numbers in the train split."""
    places: tuple[int, ...]
    """Place of each row within its step; seeds its dropout."""
    ids: tuple[Tensor, ...]
    labels_T: Tensor
    """Moved to the row that predicts it; -100 carries no loss."""

    @property
    def tokens(self) -> int:
        return int(self.labels_T.shape[0])


@dataclass
class Window:
    """One step's chunks, and how far they have passed."""

    chunks: list[Chunk]
    labels: int
    """Label tokens of the whole step: what its loss is divided by."""
    passed: int = 0
    loss: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether all of it has passed."""
        return self.passed == len(self.chunks)


def make_window(rows: Sequence[Row], numbers: Sequence[int], capacity: int) -> Window:
    """Cut the rows of a step into chunks of about `capacity` tokens, as even as rows allow."""
    ids = [torch.as_tensor(rows[n][0]) for n in numbers]
    labels = [shifted_labels([torch.as_tensor(rows[n][1])]) for n in numbers]
    total = sum(len(row) for row in ids)
    count = max(1, round(total / capacity))
    chunks: list[Chunk] = []
    places: list[int] = []
    passed = 0
    for place, row in enumerate(ids):
        places.append(place)
        passed += len(row)
        if passed >= total * (len(chunks) + 1) / count or place == len(ids) - 1:
            chunks.append(
                Chunk(
                    rows=tuple(numbers[p] for p in places),
                    places=tuple(places),
                    ids=tuple(ids[p] for p in places),
                    labels_T=torch.cat([labels[p] for p in places]),
                )
            )
            places = []
    return Window(chunks, int(sum((row >= 0).sum() for row in labels)))


def choose(lanes: Sequence[Lane], capacity: int) -> list[tuple[Lane, list[Chunk]]]:
    """What passes next: chunks of the lanes, longest remaining job first, up to `capacity` tokens.

    The first chunk always goes, however long it is.
    """
    chosen: list[tuple[Lane, list[Chunk]]] = []
    free = capacity
    for lane in sorted(lanes, key=lambda one: -one.remaining):
        window = lane.open_window()
        taken: list[Chunk] = []
        for chunk in window.chunks[window.passed :]:
            if chunk.tokens > free and (chosen or taken):
                break
            taken.append(chunk)
            free -= chunk.tokens
        if taken:
            chosen.append((lane, taken))
    return chosen
