"""Where a run runs, as its caller sees it: submit, phase, stop."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from datatunerx.resources.enums import RunPhase, RunType

WORKER_DIED = "WorkerDied"
"""Reason of a run whose worker ended without a result."""


@dataclass(frozen=True)
class Submission:
    run: str
    """Name of the Run, unique in this backend."""
    plan_uri: str
    log_uri: str
    """Where the worker's output goes."""
    type: RunType
    accelerators: int = 0
    """GPUs; 0 takes one if there is one, else the CPU."""
    priority: int = 0
    """Higher goes first."""
    created: float = 0.0
    """Seconds since 1970; of equal priority, the older goes first."""
    memory_bytes: int = 0
    """About what it takes of its device; 0 is all of it. Serve runs that fit beside each other share one."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """More variables for the worker: credentials. Written down nowhere, so whoever submits it again after a
    restart brings them again."""


@dataclass(frozen=True)
class RunState:
    phase: RunPhase
    exit_code: int | None = None
    """Of the worker process; negative is the signal that ended it; None if it runs or nobody saw it end."""
    position: int | None = None
    """Place in the queue while it waits, 1 is next."""
    reason: str = ""
    """One word, such as WorkerDied."""
    message: str = ""
    """For the user: what happened and what to do."""
    devices: tuple[str, ...] = ()
    """What it holds, by the names of this backend."""


class Backend(Protocol):
    async def submit(self, submission: Submission) -> None:
        """Start the run, or queue it. Submitting a run that exists, also an ended one, does nothing."""

    async def phase(self, run: str) -> RunState | None:
        """What is true now; None if the backend has never heard of the run."""

    async def stop(self, run: str) -> None:
        """Ask the run to end; returns at once and `phase` tells when it is gone. Repeating it is harmless."""


def cause(exit_code: int | None) -> str:
    """Why a worker left no result, as far as its exit tells."""
    if exit_code is None:
        return "the worker ended without a result while no server watched it; the end of its log may say why"
    if exit_code == -signal.SIGKILL:
        return (
            "the worker was killed (SIGKILL), perhaps for want of memory; "
            "if so, lower batchSize or cutoffLength, or close other programs"
        )
    if exit_code < 0:
        return f"the worker was ended by {_signal_name(-exit_code)}; the end of its log may say why"
    return f"the worker ended with exit code {exit_code} and no result; the end of its log says why"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal: only the first and the last of them have names
        return f"signal {number}"
