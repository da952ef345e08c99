"""How far a set of trainings is, and how long it will take. Pure."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from datatunerx.console import states

Json = dict[str, Any]


class Course(NamedTuple):
    """`share` from 0 to 1; `eta_seconds` of what runs, None when nobody knows."""

    share: float
    eta_seconds: float | None
    doing: str


def course(finetunes: Sequence[Json], jobs: int) -> Course:
    """Of an experiment of so many jobs: a job counts by its steps."""
    done = sum(share(obj) for obj in finetunes)
    etas = [eta for obj in finetunes if (eta := eta_seconds(obj)) is not None]
    doing = next((activity(obj) for obj in finetunes if activity(obj)), "")
    return Course(done / max(1, jobs, len(finetunes)), max(etas, default=None), doing)


def share(finetune: Json) -> float:
    """Of one training."""
    if states.phase(finetune) in states.ENDED:
        return 1.0
    progress = (finetune.get("status") or {}).get("progress") or {}
    steps = progress.get("steps") or 0
    return min(1.0, progress.get("step", 0) / steps) if steps else 0.0


def eta_seconds(finetune: Json) -> float | None:
    """Of one that trains."""
    if states.phase(finetune) not in states.BUSY:
        return None
    progress = (finetune.get("status") or {}).get("progress") or {}
    found = progress.get("etaSeconds")
    return float(found) if found is not None else None


def activity(finetune: Json) -> str:
    """What its worker does, in the worker's words."""
    if states.phase(finetune) not in states.BUSY:
        return ""
    return str(((finetune.get("status") or {}).get("progress") or {}).get("activity") or "")
