"""Counting what happens to rows, so that each one read is kept, or dropped for a reason that is reported."""

from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from datatunerx.data.encoding import Ints
from datatunerx.data.errors import DataError, Problem, where
from datatunerx.resources.enums import Split
from datatunerx.resources.material import Bin, DataReport, Dropped, Tokens

MAX_PLACES = 20
MAX_PLACE_LENGTH = 256
FIRST_PROBLEMS = 3
MAX_DETAILED = 1000
COUNTED_AT_ONCE = 1 << 20


class Tally:
    """Counts of one reading."""

    def __init__(self, end_ids: Collection[int] = ()) -> None:
        """`end_ids` are the tokens that end a turn."""
        self.read = self.truncated = self.split = self.cut_tokens = 0
        self.trained = self.turns = self.turns_ended = 0
        self.kept = dict.fromkeys(Split, 0)
        self.problems: list[Problem] = []
        """The first MAX_DETAILED of them, whole."""
        self._ends = frozenset(end_ids)
        self._reasons: dict[str, Dropped] = {}
        self._lengths = array("i")

    def drop(self, problem: Problem) -> None:
        self.read += 1
        entry = self._reasons.setdefault(problem.reason, Dropped(reason=problem.reason, count=0))
        entry.count += 1
        if len(entry.where) < MAX_PLACES:
            entry.where.append(where(problem.file, problem.line)[-MAX_PLACE_LENGTH:])
        if len(self.problems) < MAX_DETAILED:
            self.problems.append(problem)

    def keep(self, split: Split, labels: Sequence[Ints] = (), *, cut_tokens: int = 0) -> None:
        """One row that is used; `labels` of each row that training makes of it, if it has been tokenised."""
        self.read += 1
        self.kept[split] += 1
        self.split += len(labels) > 1
        self.truncated += len(labels) == 1 and cut_tokens > 0
        self.cut_tokens += cut_tokens
        for one in labels:
            self._count(one)

    def add(self, other: "Tally") -> None:
        """The counts of rows that come after."""
        for name in ("read", "truncated", "split", "cut_tokens", "trained", "turns", "turns_ended"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for split, count in other.kept.items():
            self.kept[split] += count
        for entry in other._reasons.values():
            mine = self._reasons.setdefault(entry.reason, Dropped(reason=entry.reason, count=0))
            mine.count += entry.count
            mine.where += entry.where[: MAX_PLACES - len(mine.where)]
        self.problems += other.problems[: MAX_DETAILED - len(self.problems)]
        self._lengths.extend(other._lengths)

    def _count(self, labels: Ints) -> None:
        self._lengths.append(len(labels))
        trained = labels >= 0
        ended = sum(int(np.count_nonzero(labels == end)) for end in self._ends)
        # A turn is over at its end-of-turn token, or, if that was cut off, where the loss stops.
        stops = np.flatnonzero(trained[:-1] & ~trained[1:])
        lasts = [*labels[stops].tolist(), *labels[-1:].tolist()]
        self.trained += int(np.count_nonzero(trained))
        self.turns += ended + sum(last >= 0 and last not in self._ends for last in lasts)
        self.turns_ended += ended

    @property
    def dropped(self) -> int:
        return sum(entry.count for entry in self._reasons.values())

    def count(self, reason: str) -> int:
        entry = self._reasons.get(reason)
        return entry.count if entry else 0

    def report(self, format: str = "") -> DataReport:
        """Token numbers are of the rows as they are used; percentiles are by nearest rank."""
        return DataReport(
            format=format,
            read=self.read,
            kept=sum(self.kept.values()),
            dropped=self.dropped,
            truncated=self.truncated,
            split=self.split,
            cut_tokens=self.cut_tokens,
            reasons=sorted(self._reasons.values(), key=lambda entry: (-entry.count, entry.reason)),
            splits={split.value: count for split, count in self.kept.items() if count},
            tokens=self._tokens(),
            histogram=self._histogram(),
        )

    def _tokens(self) -> Tokens | None:
        if not self._lengths:
            return None
        lengths = np.frombuffer(self._lengths, dtype=np.int32)
        p50, p95 = np.percentile(lengths, [50, 95], method="inverted_cdf")
        return Tokens(
            rows=len(lengths), p50=int(p50), p95=int(p95), max=int(lengths.max()),
            total=int(lengths.sum(dtype=np.int64)),
            trained=self.trained, turns=self.turns, turns_ended=self.turns_ended,
        )  # fmt: skip

    def _histogram(self) -> list[Bin]:
        """Rows by length, in bins each twice as wide as the one before; from the first to the last in use."""
        if not self._lengths:
            return []
        lengths, ends = np.frombuffer(self._lengths, dtype=np.int32), 1 << np.arange(32)
        counts = np.zeros(len(ends), np.int64)
        for start in range(0, len(lengths), COUNTED_AT_ONCE):
            powers = np.searchsorted(ends, lengths[start : start + COUNTED_AT_ONCE])
            counts += np.bincount(powers, minlength=len(ends))
        used = np.flatnonzero(counts)
        return [Bin(up_to=1 << n, rows=int(counts[n])) for n in range(int(used[0]), int(used[-1]) + 1)]

    def nothing_kept(self, split: Split) -> DataError:
        """For a split of which no row can be used: the first problems."""
        first = self.problems[0]
        problems = (replace(problem, fix="") for problem in self.problems[:FIRST_PROBLEMS])
        said = "; ".join(str(problem.error()) for problem in problems)
        return DataError(f"no row of the {split} split can be used: {said}", first.file, fix=first.fix)


def problem_lines(problems: Iterable[Problem]) -> list[dict[str, object]]:
    """Problems as the report file holds them."""
    return [
        {"reason": p.reason, "file": p.file, "line": p.line, "field": p.field, "found": p.found, "fix": p.fix}
        for p in problems
    ]
