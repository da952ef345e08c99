"""Where a training that waits for a device stands, and when it can start at the earliest."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from datatunerx.controllers.context import World
from datatunerx.controllers.placement import is_queued
from datatunerx.resources.enums import RunType
from datatunerx.resources.finetune import Finetune
from datatunerx.resources.outcome import Run
from datatunerx.runs.compile import urgency

UNKNOWN = "when it starts is not known yet"


@dataclass(frozen=True)
class Place:
    behind: int
    """Runs that hold the devices."""
    number: int
    """1 is next."""
    queued: int
    """All that wait for a device, itself included; those that lack something else are not in the queue."""
    seconds: float | None
    """Until it can start at the earliest; None is not known."""


def place_of(world: World, finetune: Finetune) -> Place:
    runs = [run for run in world.all(Run, None) if run.spec.type is RunType.TUNE]
    busy = [run for run in runs if not run.status.phase.terminal]
    others = [
        other
        for other in world.all(Finetune, None)
        if other.metadata.uid != finetune.metadata.uid and is_queued(other)
    ]
    mine = urgency(finetune)
    seconds = earliest([remaining(world, run) for run in busy], _runs_before(finetune, others))
    number = 1 + sum(urgency(other) < mine for other in others)
    return Place(len(busy), number, len(others) + 1, seconds)


def in_words(place: Place, now: float) -> tuple[str, str | None]:
    """The place in words, and the expected start to the minute: seconds would change at every look."""
    if not place.behind:
        return "about to start", None
    text = f"waits for a free device behind {place.behind} run(s); "
    text += f"place {place.number} of {place.queued} in the queue; "
    if place.seconds is None:
        return text + UNKNOWN, None
    start = datetime.fromtimestamp(math.ceil((now + place.seconds) / 60) * 60, UTC)
    text += f"starts at about {start:%H:%M} UTC, later by what the scoring before it takes"
    return text, start.strftime("%Y-%m-%dT%H:%M:%SZ")


def remaining(world: World, run: Run) -> float | None:
    """Seconds of training left in a run: its lanes share the device, so theirs add up. None: not known."""
    names = [served.partition("/")[2] for served in run.spec.serves]
    found = [world.get(Finetune, run.metadata.namespace, name) for name in names]
    etas = [f.status.progress.eta_seconds for f in found if f and not f.status.phase.terminal]
    known = [eta for eta in etas if eta is not None]
    return sum(known) if known and len(known) == len(etas) else None


def earliest(left: list[float | None], before: int) -> float | None:
    """When the run after `before` waiting ones can begin, `left` being what each running one still takes.

    How long a run takes that has not begun is not known, so neither is what follows it on its device.
    """
    known = sorted(seconds for seconds in left if seconds is not None)
    return known[before] if len(known) == len(left) and before < len(known) else None


def _runs_before(finetune: Finetune, others: list[Finetune]) -> int:
    """Runs that will be made before its own: those that share its base will share its run."""
    first: dict[tuple[str, ...], tuple[int, str, str]] = {}
    for one in (finetune, *others):
        key = _company(one)
        first[key] = min(first.get(key, urgency(one)), urgency(one))
    mine = first[_company(finetune)]
    return sum(urgent < mine for urgent in first.values())


def _company(finetune: Finetune) -> tuple[str, ...]:
    metadata, spec = finetune.metadata, finetune.spec
    alone = metadata.uid if finetune.status.alone else ""
    return (metadata.namespace, spec.llm, str(max(1, spec.resources.accelerators)), alone)
