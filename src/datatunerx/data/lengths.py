"""What becomes of rows that are too long, and of those without a trained token: as told, and counted."""

import sys
from typing import NamedTuple

from datatunerx.data.errors import DataError, Problem
from datatunerx.data.report import Tally
from datatunerx.data.rows import Row
from datatunerx.data.templates import IGNORED, Example
from datatunerx.resources.enums import Split, TooLong, TruncateSide, Untrainable

TOO_LONG = "longer than cutoffLength"
UNTRAINABLE = "no trained token within cutoffLength"
NO_LOSS = "no trained token"


class Used(NamedTuple):
    """What training gets of a row."""

    examples: list[Example]
    """One, or several if the row was split."""
    cut_tokens: int
    """Tokens of the row that are in none of them."""


class Cut:
    """The length policies, and what is needed to say what would have helped."""

    def __init__(
        self,
        cutoff_length: int,
        too_long: TooLong,
        untrainable: Untrainable,
        side: TruncateSide = TruncateSide.RIGHT,
    ) -> None:
        self.cutoff, self.too_long, self.untrainable, self.side = cutoff_length, too_long, untrainable, side
        self.longest_prompt = 0
        self.shortest_too_long: int | None = None

    def anew(self) -> "Cut":
        """The same policies, of no rows yet."""
        return Cut(self.cutoff, self.too_long, self.untrainable, self.side)

    def learn(self, other: "Cut") -> None:
        """What another one of the same policies has seen."""
        self.longest_prompt = max(self.longest_prompt, other.longest_prompt)
        if other.shortest_too_long is not None:
            self.shortest_too_long = min(other.shortest_too_long, self.shortest_too_long or sys.maxsize)

    def apply(self, row: Row, example: Example) -> Used | Problem:
        """The row as it is used. Raises DataError where a policy is error."""
        length = len(example.ids)
        trained = (example.labels >= 0).nonzero()[0]
        if not len(trained):
            return self._untrainable(without_loss(row))
        if length <= self.cutoff:
            return Used([example], 0)
        if self.too_long in (TooLong.DROP, TooLong.ERROR):
            return self._too_long(row, length)
        starts = range(0, length, self.cutoff)
        if self.too_long is TooLong.TRUNCATE:
            starts = range(length - self.cutoff if self.side is TruncateSide.LEFT else 0, length, length)
        parts = [part for start in starts if (part := _part(example, start, self.cutoff)) is not None]
        if parts:
            return Used(parts, length - sum(len(part.ids) for part in parts))
        return self._cut_away(row, int(trained[0]))

    def _too_long(self, row: Row, length: int) -> Problem:
        problem = Problem(
            TOO_LONG, row.file, row.line, found=f"{length} tokens, cutoffLength {self.cutoff}",
            fix=f"raise cutoffLength to {length}, shorten the row, or set tooLong to truncate or split",
        )  # fmt: skip
        if self.too_long is TooLong.ERROR:
            raise problem.error()
        self.shortest_too_long = min(length, self.shortest_too_long or length)
        return problem

    def _cut_away(self, row: Row, first: int) -> Problem:
        """A row of which no trained token is left; `first` is the place of the first one."""
        self.longest_prompt = max(self.longest_prompt, first)
        return self._untrainable(
            Problem(
                UNTRAINABLE, row.file, row.line,
                found=f"its prompt is {first} tokens, cutoffLength {self.cutoff}",
                fix=f"raise cutoffLength to at least {first + 1}, or shorten the prompt",
            )
        )  # fmt: skip

    def _untrainable(self, problem: Problem) -> Problem:
        if self.untrainable is Untrainable.ERROR:
            raise problem.error()
        return problem

    def nothing_kept(self, tally: Tally, split: Split) -> DataError:
        """Why no row is left."""
        if tally.count(UNTRAINABLE):
            return DataError(
                f"cutoffLength {self.cutoff} leaves no trained token in any row; the longest prompt is "
                f"{self.longest_prompt} tokens",
                tally.problems[0].file, field="cutoffLength",
                fix=f"raise cutoffLength to at least {self.longest_prompt + 1}",
            )  # fmt: skip
        if self.shortest_too_long is not None:
            return DataError(
                f"every row is longer than cutoffLength {self.cutoff}; the shortest is "
                f"{self.shortest_too_long} tokens",
                tally.problems[0].file, field="cutoffLength",
                fix=f"raise cutoffLength to at least {self.shortest_too_long}, or set tooLong to truncate",
            )  # fmt: skip
        return tally.nothing_kept(split)


def without_loss(row: Row) -> Problem:
    """The problem of a row in which nothing is to be learnt, however long rows may be."""
    return Problem(
        NO_LOSS, row.file, row.line, found="weight 0 on every assistant turn",
        fix="give one turn weight 1, or remove the row",
    )  # fmt: skip


def _part(example: Example, start: int, cutoff: int) -> Example | None:
    """The row's tokens from `start`, as many as may be; None if none of them carries loss."""
    ids, labels = example.ids[start : start + cutoff], example.labels[start : start + cutoff]
    if start:
        labels = labels.copy()
        labels[0] = IGNORED  # nothing predicts the first token
    return Example(ids, labels) if (labels >= 0).any() else None
