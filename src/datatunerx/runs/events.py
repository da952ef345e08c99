"""What a worker says while it works: one JSON line each, appended to `<run folder>/events.jsonl`."""

import time
from enum import StrEnum

from pydantic import Field

from datatunerx.resources.enums import FinetunePhase
from datatunerx.resources.finetune import CheckpointRef, Progress, Sample
from datatunerx.resources.material import DataReport
from datatunerx.resources.wire import Wire


class EventType(StrEnum):
    ACTIVITY = "activity"
    """What the worker is doing now; `activity` says it."""
    HEARTBEAT = "heartbeat"
    DATA = "data"
    """A job's rows are tokenised; `report` has the counts."""
    PROGRESS = "progress"
    METRICS = "metrics"
    SAMPLE = "sample"
    CHECKPOINT = "checkpoint"
    JOB = "job"
    """A job has left its lane; `outcome` says how."""
    SERVING = "serving"
    """The endpoint listens, or what it serves has changed; `serving` has the URL and every model."""
    WARNING = "warning"
    """`message` is for the user; the run goes on."""


STOPPED_EARLY = "StoppedEarly"
"""Reason of a job that ended well before its last step, since it got no better; and a condition."""


class JobOutcome(Wire):
    """How one Finetune ended in a run. Suspended is not an end: it can be taken up again."""

    phase: FinetunePhase
    reason: str = ""
    """One word, such as NonFiniteLoss; empty when it succeeded at its last step."""
    message: str = ""
    """For the user: what happened, with row numbers or figures, and what to do."""
    step: int = 0
    steps: int = 0
    checkpoint: CheckpointRef | None = None
    """The last whole checkpoint, if any; of a job that could stop early and ended well, the best."""


class ModelState(Wire):
    """One model of a serving run."""

    name: str
    ready: bool
    reason: str = ""
    """One word if it is not ready, such as BaseMismatch."""
    message: str = ""
    """What to do about it."""


class ServingState(Wire):
    """What a serving run does: in full in a serving event, without URL and models in each heartbeat."""

    url: str | None = None
    """Such as http://127.0.0.1:41234/v1; the token is in the file `serve.token` beside the plan."""
    models: list[ModelState] | None = None
    requests: int = 0
    """In hand: being answered or waiting."""
    rows: int = 0
    """Answers that are being generated."""
    completed: int = 0
    """Requests answered since the start."""
    last_request: float | None = None
    """Seconds since 1970 at which a request last came or ended."""


class Event(Wire):
    time: float = Field(default_factory=time.time)
    """Seconds since 1970."""
    type: EventType
    job: str | None = None
    """Name of the Finetune it is about; None is the whole run."""
    step: int | None = None
    activity: str | None = None
    progress: Progress | None = None
    values: dict[str, float] | None = None
    """Of a metrics event: loss, learningRate, gradNorm, evalLoss. A value that is not finite is left out."""
    sample: Sample | None = None
    checkpoint: CheckpointRef | None = None
    report: DataReport | None = None
    outcome: JobOutcome | None = None
    serving: ServingState | None = None
    message: str | None = None
