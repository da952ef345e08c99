"""What this machine knows of each run, in one small file each, so that the next server knows it too."""

import logging
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from datatunerx import storage
from datatunerx.compute.backend import WORKER_DIED, RunState, Submission, cause
from datatunerx.resources.enums import RunPhase, RunType
from datatunerx.resources.wire import Wire
from datatunerx.runs import RunResult, files

log = logging.getLogger(__name__)

RESULT_BYTES = 64 << 20
START_FAILED = "StartFailed"


_KEPT = [name for name in Submission.__dataclass_fields__ if name != "environment"]


class Record(Wire):
    """A run that waits, was started, or was stopped. It holds the token before the process does."""

    run: str
    plan_uri: str
    log_uri: str
    type: RunType
    accelerators: int = 0
    priority: int = 0
    created: float = 0.0
    memory_bytes: int = 0
    token: str
    slots: list[str] = []
    """Devices it holds while it lives."""
    pid: int | None = None
    """None until the process is known to be there."""
    started: str = ""
    """Start time of the process, as the kernel counts."""
    stop_asked: float | None = None
    """Seconds since 1970."""
    phase: RunPhase = RunPhase.RUNNING
    exit_code: int | None = None
    reason: str = ""
    message: str = ""

    @classmethod
    def of(cls, submission: Submission, token: str, slots: list[str]) -> "Record":
        return cls(**_kept(submission), token=token, slots=slots)

    @classmethod
    def waiting(cls, submission: Submission) -> "Record":
        return cls(**_kept(submission), token="", phase=RunPhase.PENDING)

    def submission(self) -> Submission:
        return Submission(**{name: getattr(self, name) for name in _KEPT})

    @property
    def alive(self) -> bool:
        return not self.phase.terminal

    def state(self) -> RunState:
        if self.alive and self.stop_asked is not None:
            return RunState(RunPhase.RUNNING, reason="Stopping", devices=tuple(self.slots))
        held = tuple(self.slots) if self.alive else ()
        return RunState(self.phase, self.exit_code, None, self.reason, self.message, held)

    def folder_uri(self) -> str:
        return self.plan_uri.rpartition("/")[0]


def _kept(submission: Submission) -> dict[str, Any]:
    """What may be written down of it."""
    return {name: getattr(submission, name) for name in _KEPT}


def load(folder: Path) -> dict[str, Record]:
    """Every record in the folder by run; one that cannot be read is named in the log and left out."""
    records = {}
    for path in sorted(folder.glob("*.json")):
        try:
            record = Record.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            log.error("a run's record cannot be read", extra={"path": str(path), "error": str(error)})
        else:
            records[record.run] = record
    return records


def save(folder: Path, record: Record) -> None:
    """Durable once it returns. Raises `DiskFull`."""
    storage.write_atomic(_uri(folder, record.run), record.model_dump_json(by_alias=True).encode())


def forget(folder: Path, run: str) -> None:
    storage.delete_tree(_uri(folder, run), under=str(folder))


def has_spoken(record: Record) -> bool:
    """Whether its worker got as far as its plan."""
    uris = (files.in_folder(record.folder_uri(), name) for name in (files.EVENTS, files.RESULT))
    return any(storage.exists(uri) for uri in uris)


def is_stale(record: Record) -> bool:
    """Whether the run has ended and its files were deleted since."""
    if record.alive or record.reason == START_FAILED:  # that one never had any
        return False
    return not storage.exists(record.log_uri) and not has_spoken(record)


def verdict(record: Record, exit_code: int | None) -> RunState:
    """How a run ended whose process is gone: as its result says, else as its exit does."""
    result = _result(record)
    if result is not None:
        return RunState(result.phase, exit_code, None, result.reason, result.message)
    if record.stop_asked is not None:
        return RunState(RunPhase.STOPPED, exit_code, None, "Stopped", "stopped before it was done")
    return RunState(RunPhase.FAILED, exit_code, None, WORKER_DIED, cause(exit_code))


def _result(record: Record) -> RunResult | None:
    uri = files.in_folder(record.folder_uri(), files.RESULT)
    try:
        return RunResult.model_validate_json(storage.read_bytes(uri, limit=RESULT_BYTES))
    except storage.Missing:
        return None
    except (storage.StorageError, ValidationError, OSError) as error:
        log.error("a run's result cannot be read", extra={"run": record.run, "error": str(error)})
        return None


def _uri(folder: Path, run: str) -> str:
    return storage.join(str(folder), f"{run}.json")
