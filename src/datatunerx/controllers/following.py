"""What a worker has said so far, folded from its events file; read on from where the last look ended."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from datatunerx.resources.finetune import CheckpointRef, Progress, Sample
from datatunerx.resources.material import DataReport
from datatunerx.runs.events import Event, EventType, JobOutcome, ServingState
from datatunerx.runs.files import EVENTS, in_folder
from datatunerx.telemetry.events import read_events

MAX_SAMPLES = 256
MAX_FEEDS = 256
MAX_WARNINGS = 5


@dataclass
class JobView:
    progress: Progress | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    report: DataReport | None = None
    checkpoints: dict[int, CheckpointRef] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    outcome: JobOutcome | None = None


@dataclass
class RunView:
    offset: int = 0
    heard: float | None = None
    """When the worker last said anything, in seconds since 1970."""
    activity: str | None = None
    warnings: list[str] = field(default_factory=list)
    serving: ServingState | None = None
    """Of a serving run: what it last said of itself and of each model."""
    ready_at: float | None = None
    """When it first said that it serves, in seconds since 1970."""
    jobs: dict[str, JobView] = field(default_factory=dict)

    def job(self, name: str) -> JobView:
        return self.jobs.setdefault(name, JobView())

    def warned(self, name: str) -> list[str]:
        """The latest warnings about the whole run, then those about the job."""
        return list(dict.fromkeys([*self.warnings, *self.job(name).warnings]))[-MAX_WARNINGS:]


def fold(view: RunView, event: Event) -> None:
    """Take one event in."""
    view.heard = max(view.heard or 0.0, event.time)
    if event.job is None:
        if event.activity:
            view.activity = event.activity
        if event.type is EventType.WARNING and event.message:
            view.warnings = [*view.warnings, event.message][-MAX_WARNINGS:]
        if event.serving:
            before, now = view.serving or event.serving, event.serving
            # A heartbeat leaves out URL and models.
            kept = {"url": now.url or before.url, "models": now.models or before.models}
            view.serving = now.model_copy(update=kept)
            view.ready_at = view.ready_at or event.time
        return
    job = view.job(event.job)
    if event.type is EventType.WARNING and event.message:
        job.warnings = [*job.warnings, event.message][-MAX_WARNINGS:]
    if event.progress:
        job.progress = event.progress
    elif event.activity and job.progress:
        job.progress = job.progress.model_copy(update={"activity": event.activity})
    if event.values:
        job.metrics |= event.values
    if event.report:
        job.report = event.report
    if event.sample:
        job.samples = [*job.samples, event.sample][-MAX_SAMPLES:]
    if event.checkpoint:
        job.checkpoints[event.checkpoint.step] = event.checkpoint
    if event.outcome:
        job.outcome = event.outcome


class Feeds:
    """Views of the runs looked at last, by run folder."""

    def __init__(self) -> None:
        self._views: OrderedDict[str, RunView] = OrderedDict()

    async def view(self, folder_uri: str) -> RunView:
        """Everything the run has said until now."""
        view = self._views.setdefault(folder_uri, RunView())
        self._views.move_to_end(folder_uri)
        while len(self._views) > MAX_FEEDS:
            self._views.popitem(last=False)
        while True:
            # One bounded page at a time, and nothing awaited between reading and folding it: two readers
            # of one run never take a page twice.
            events, offset = read_events(in_folder(folder_uri, EVENTS), view.offset)
            for event in events:
                fold(view, event)
            if offset == view.offset:
                return view
            view.offset = offset
            await asyncio.sleep(0)

    def known(self, folder_uri: str) -> RunView | None:
        """What it had said at the last look, without another one."""
        return self._views.get(folder_uri)

    def forget(self, folder_uri: str) -> None:
        self._views.pop(folder_uri, None)
