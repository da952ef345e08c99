"""What a worker tells of its run: events while it works, a heartbeat all along, and the result at the end."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from datatunerx import storage
from datatunerx.resources.wire import now
from datatunerx.runs import Event, EventType, RunPlan, RunResult, ServingState, files
from datatunerx.telemetry.events import EventWriter

HEARTBEAT_SECONDS = 2.0
RETRY_SECONDS = 2.0
"""Between two tries to write on a full disk."""

T = TypeVar("T")


def say(text: str) -> None:
    """A line in the worker's log, with its time in UTC: by it the server knows what was said since when."""
    print(f"{now()} {text}", flush=True)


def with_space(write: Callable[[], T], warn: Callable[[str], None]) -> T:
    """What `write` returns, tried again as long as the disk is full; `warn` is called once."""
    told = False
    while True:
        try:
            return write()
        except OSError as error:
            if not storage.is_disk_full(error):
                raise
        if not told:
            warn("DiskFull: no space left on the disk; the run waits and goes on once there is some")
            told = True
        time.sleep(RETRY_SECONDS)


def write_result(plan: RunPlan, result: RunResult, warn: Callable[[str], None]) -> None:
    """Write the result, whole and durable. On a full disk this waits for space."""
    data = result.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode()
    uri = files.in_folder(plan.output_uri, files.RESULT)
    with_space(lambda: storage.write_atomic(uri, data), warn)


class Journal:
    """The events and the result of one run. A context manager: within it the heart beats."""

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self._folder = plan.output_uri
        self._events = EventWriter(self.uri(files.EVENTS))
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self.doing = ""
        """The latest activity, for whoever has to explain a failure."""
        self.pulse: Callable[[], ServingState] | None = None
        """What each heartbeat tells, in a run that serves."""

    def __enter__(self) -> Self:
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._heart.join()
        self._events.close()

    def uri(self, name: str) -> str:
        """Of a file in the run's folder."""
        return files.in_folder(self._folder, name)

    def write(self, event: Event) -> None:
        """Append one event; a warning is also said in the log."""
        if event.type is EventType.WARNING:
            say(f"warning: {event.message}" + (f" ({event.job})" if event.job else ""))
        self._events.write(event)

    def activity(self, text: str, job: str | None = None) -> None:
        """Say what is being done now, also in the log."""
        self.doing = text
        say(text + (f" ({job})" if job else ""))
        self.write(Event(type=EventType.ACTIVITY, job=job, activity=text[:256]))

    def warn(self, message: str, job: str | None = None) -> None:
        """Tell the user something that does not end the run."""
        self.write(Event(type=EventType.WARNING, job=job, message=message))

    def finish(self, result: RunResult) -> None:
        """Write the result, whole and durable. On a full disk this waits for space."""
        write_result(self.plan, result, self.warn)

    def with_space(self, write: Callable[[], T]) -> T:
        """What `write` returns, tried again as long as the disk is full; the user is told once."""
        return with_space(write, self.warn)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            self.write(Event(type=EventType.HEARTBEAT, serving=self.pulse() if self.pulse else None))
