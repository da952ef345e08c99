"""What keeps an experiment from going on, told by its jobs. Pure."""

from collections.abc import Iterable

from datatunerx.controllers.verdict import MAX_NAMED
from datatunerx.resources.enums import JobPhase
from datatunerx.resources.finetune import FinetuneJob

IN_TURN = (None, "Queued", "Resumed", "Retried", "JobNotSeen", "ExperimentNotSeen")
"""Reasons of a pending job that waits for nothing but its turn."""


def held_up(jobs: Iterable[FinetuneJob]) -> dict[tuple[str, str], list[str]]:
    """(reason, message) -> the pending jobs that cannot begin because of it, those of most jobs first."""
    found: dict[tuple[str, str], list[str]] = {}
    for job in jobs:
        status = job.status
        if status.phase is JobPhase.PENDING and status.reason not in IN_TURN:
            found.setdefault((status.reason or "", status.message or ""), []).append(job.metadata.name)
    return dict(sorted(found.items(), key=lambda each: -len(each[1])))


def in_words(found: dict[tuple[str, str], list[str]]) -> str:
    """Each reason once, with whom it holds up."""
    return "; ".join(f"{named(names)}: {message or reason}" for (reason, message), names in found.items())


def named(names: list[str]) -> str:
    """The first of them, and how many more."""
    shown, more = ", ".join(names[:MAX_NAMED]), len(names) - MAX_NAMED
    return f"{shown} and {more} more" if more > 0 else shown
