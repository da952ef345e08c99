"""What scoring refuses, and the one thing it reports instead of a number."""

from collections.abc import Iterable
from difflib import get_close_matches


class ScoringError(Exception):
    """Base of what scoring refuses: a request that cannot mean anything, never a bad answer of a model."""


class UnknownMetric(ScoringError):
    """A metric that nobody registered."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(
            f"unknown metric {name!r}{_closest(name, known)}; known are {', '.join(sorted(known))}"
        )


class UnknownOption(ScoringError):
    """An option, or a value of one, that the metric does not have."""

    def __init__(self, metric: str, what: str, found: object, known: Iterable[str]) -> None:
        listed = ", ".join(sorted(known)) or "none"
        super().__init__(
            f"{metric}: unknown {what} {found!r}{_closest(str(found), known)}; known are {listed}"
        )


class PredictionsError(ScoringError):
    """A predictions file that cannot be read as one; the message names file, line and fix."""


class Unmeasurable(Exception):
    """Raised by a metric that has no value for these rows; its text becomes `why_missing`.

    It never leaves the room: a missing score is a result, not a failure.
    """


def _closest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
