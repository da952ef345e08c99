"""Counting what happens to rows, so that each one read is kept, or dropped for a reason that is reported."""

from array import array
from collections.abc import Iterable

import numpy as np

from datatunerx.data.encoding import Ints
from datatunerx.data.errors import DataError, Problem, where
from datatunerx.resources.enums import Split
from datatunerx.resources.material import DataReport, Dropped, Tokens

MAX_PLACES = 20
MAX_PLACE_LENGTH = 256
FIRST_PROBLEMS = 3
MAX_DETAILED = 1000


class Tally:
    """Counts of one reading."""

    def __init__(self) -> None:
        self.read = self.truncated = self.trained = 0
        self.kept = dict.fromkeys(Split, 0)
        self.problems: list[Problem] = []
        """The first MAX_DETAILED of them, whole."""
        self._reasons: dict[str, Dropped] = {}
        self._lengths = array("q")

    def drop(self, problem: Problem) -> None:
        self.read += 1
        entry = self._reasons.setdefault(problem.reason, Dropped(reason=problem.reason, count=0))
        entry.count += 1
        if len(entry.where) < MAX_PLACES:
            entry.where.append(where(problem.file, problem.line)[-MAX_PLACE_LENGTH:])
        if len(self.problems) < MAX_DETAILED:
            self.problems.append(problem)

    def keep(self, split: Split, labels: Ints | None = None, *, truncated: bool = False) -> None:
        """One row that is used; `labels` if it has been tokenised, as long as it will be used."""
        self.read += 1
        self.kept[split] += 1
        self.truncated += truncated
        if labels is not None:
            self._lengths.append(len(labels))
            self.trained += int((labels >= 0).sum())

    @property
    def dropped(self) -> int:
        return sum(entry.count for entry in self._reasons.values())

    def count(self, reason: str) -> int:
        entry = self._reasons.get(reason)
        return entry.count if entry else 0

    def report(self, format: str = "") -> DataReport:
        """Token numbers are of the kept rows, as long as they are used; percentiles are by nearest rank."""
        return DataReport(
            format=format,
            read=self.read,
            kept=sum(self.kept.values()),
            dropped=self.dropped,
            truncated=self.truncated,
            reasons=sorted(self._reasons.values(), key=lambda entry: (-entry.count, entry.reason)),
            splits={split.value: count for split, count in self.kept.items() if count},
            tokens=self._tokens(),
        )

    def _tokens(self) -> Tokens | None:
        if not self._lengths:
            return None
        lengths = np.frombuffer(self._lengths, dtype=np.int64)
        p50, p95 = np.percentile(lengths, [50, 95], method="inverted_cdf")
        return Tokens(
            p50=int(p50), p95=int(p95), max=int(lengths.max()), total=int(lengths.sum()), trained=self.trained
        )

    def nothing_kept(self, split: Split) -> DataError:
        """For a split of which no row can be used: the first problems."""
        first = self.problems[0]
        said = "; ".join(str(problem.error()) for problem in self.problems[:FIRST_PROBLEMS])
        return DataError(f"no row of the {split} split can be used: {said}", first.file, fix=first.fix)


def problem_lines(problems: Iterable[Problem]) -> list[dict[str, object]]:
    """Problems as the report file holds them."""
    return [
        {"reason": p.reason, "file": p.file, "line": p.line, "field": p.field, "found": p.found, "fix": p.fix}
        for p in problems
    ]
