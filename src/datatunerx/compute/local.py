"""Runs as child processes of this machine, each in its own session, that outlive the server.

A record with a token is durable before a process is started with that token in its environment. Whoever
reads the record later, this server or the next, can tell the process from every other and adopts it.
"""

import asyncio
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from datatunerx import storage
from datatunerx.compute import devices, processes, records
from datatunerx.compute.backend import RunState, Submission
from datatunerx.compute.records import Record
from datatunerx.resources.enums import RunPhase, RunType

log = logging.getLogger(__name__)

TICK_SECONDS = 0.2
TROUBLE = "CannotLookAfter"
"""Reason of a run that lives, as far as is known, and whose every look fails."""
GRACE_SECONDS = 10.0
"""Between asking a worker to end and killing it: time to save its checkpoints."""
_ADOPT_SECONDS = 0.3
"""A process that was just forked shows its token only once its program runs; so long it gets for that."""


class LocalBackend:
    """`Backend` for one machine. Workers go on when it is closed or killed; the next one adopts them.

    `home` holds the records; `gpus` None counts those that are here; `python` starts the worker.
    `memory_bytes` is one device's: so much may serve on it at the same time; 0 lets nobody share one.
    """

    def __init__(
        self,
        home: Path,
        *,
        gpus: int | None = None,
        memory_bytes: int = 0,
        python: str = sys.executable,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._folder = home / "compute"
        storage.make_folder(self._folder)
        self._python = python
        self._grace = grace_seconds
        self._slots = devices.slots(gpus)
        self._memory = memory_bytes
        self._lock = threading.RLock()
        self._waiting: dict[str, Submission] = {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._kin: dict[str, dict[int, str]] = {}
        """Of runs that are being ended: everyone seen in their families, as pid -> start time."""
        self._kill_at: dict[str, float] = {}
        self._unsaved: set[str] = set()
        self._trouble: dict[str, str] = {}
        """Why the last look at a run failed."""
        self._closed = threading.Event()
        self._records = records.load(self._folder)
        self._adopt()
        self._thread = threading.Thread(target=self._watch, name="compute-local", daemon=True)
        self._thread.start()

    async def submit(self, submission: Submission) -> None:
        """Start the run, or queue it. Submitting a run that exists, also an ended one, does nothing."""
        # Refused here, before anything is queued: a name that is no file name, folders that are not here.
        storage.join(str(self._folder), submission.run)
        storage.local_path(submission.plan_uri), storage.local_path(submission.log_uri)
        await asyncio.to_thread(self._submit, submission)

    async def phase(self, run: str) -> RunState | None:
        """What is true now; None if this machine has never heard of the run."""
        return await asyncio.to_thread(self._state, run)

    async def stop(self, run: str) -> None:
        """Ask the run to end: a signal, a grace, then a kill of its own tree only."""
        await asyncio.to_thread(self._stop, run)

    def close(self) -> None:
        """Look no longer. Workers go on."""
        self._closed.set()
        self._thread.join()
        for child in self._children.values():
            child.returncode = child.returncode or 0  # Popen complains of a child that is left to go on

    def _submit(self, submission: Submission) -> None:
        with self._lock:
            if self._known(submission.run) is None and submission.run not in self._waiting:
                self._enqueue(submission)
                self._start_waiting()

    def _state(self, run: str) -> RunState | None:
        with self._lock:
            record = self._known(run)
            if record is not None:
                if record.alive:
                    self._look(record)
                return self._told(record)
            submission = self._waiting.get(run)
            return None if submission is None else self._waiting_state(submission)

    def _stop(self, run: str) -> None:
        with self._lock:
            submission = self._waiting.pop(run, None)
            if submission is not None:
                record = Record.of(submission, "", [])
                record.phase, record.reason = RunPhase.STOPPED, "Stopped"
                record.message = "stopped before it was started"
                self._note_in_log(record)
                self._keep(record)
                return
            found = self._records.get(run)
            if found is not None and found.alive and found.stop_asked is None:
                self._ask_to_stop(found)

    # What follows is called with the lock held.

    def _enqueue(self, submission: Submission) -> None:
        """Wait, also across a restart: the next server must know the order before it is told anew."""
        self._waiting[submission.run] = submission
        if submission.environment:
            return  # who submits it again then brings its credentials again; they are not for the disk
        try:
            records.save(self._folder, Record.waiting(submission))
        except OSError as error:
            log.error("a place in the queue is not saved", extra={"run": submission.run, "error": str(error)})

    def _known(self, run: str) -> Record | None:
        """The run's record. One whose files were deleted since is forgotten: the same plan may come again."""
        record = self._records.get(run)
        if record is not None and records.is_stale(record):
            del self._records[run]
            self._unsaved.discard(run)
            records.forget(self._folder, run)
            return None
        return record

    def _note_in_log(self, record: Record) -> None:
        """A run that never started has a log too; without it, it would be one whose files were deleted."""
        path = storage.local_path(record.log_uri)
        try:
            storage.make_folder(path.parent)
            with path.open("a") as file:
                file.write(f"{record.message}\n")
        except OSError as error:
            log.error("a run's log cannot be written", extra={"run": record.run, "error": str(error)})

    def _watch(self) -> None:
        while not self._closed.wait(TICK_SECONDS):
            try:
                with self._lock:
                    self._tick()
            except Exception:  # whatever it is: nobody else looks after the runs, the queue would stand still
                log.exception("looking after the runs failed; trying again")

    def _tick(self) -> None:
        for run in list(self._unsaved):
            self._keep(self._records[run])
        for record in list(self._records.values()):
            if record.alive:
                self._look(record)
        self._start_waiting()

    def _look(self, record: Record) -> None:
        """Look after one run. What is wrong with it is its own trouble: the others are looked after too."""
        try:
            self._look_at(record)
            self._trouble.pop(record.run, None)
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            if self._trouble.get(record.run) != told:  # five looks a second would fill the log
                log.exception("looking after a run failed; trying again", extra={"run": record.run})
            self._trouble[record.run] = told

    def _told(self, record: Record) -> RunState:
        trouble = self._trouble.get(record.run)
        if trouble is None:
            return record.state()
        message = f"the server cannot look after this run and keeps trying: {trouble}; see the server's log"
        return replace(record.state(), reason=TROUBLE, message=message)

    def _look_at(self, record: Record) -> None:
        if not self._is_running(record):
            self._finish(record)
        elif record.stop_asked is not None:
            self._press(record)
        elif storage.is_local(record.plan_uri) and not storage.exists(record.plan_uri):
            log.warning("a run's plan is gone; ending it", extra={"run": record.run})
            self._ask_to_stop(record)

    def _is_running(self, record: Record) -> bool:
        child = self._children.get(record.run)
        if child is not None:
            return child.poll() is None
        return record.pid is not None and processes.is_ours(record.pid, record.started, record.token)

    def _finish(self, record: Record) -> None:
        """The worker is gone; the run has ended once nothing that it started is left."""
        left = {pid: at for pid, at in self._family(record).items() if processes.is_same(pid, at)}
        if left:
            for pid, started in left.items():
                processes.send(pid, started, signal.SIGKILL)
            return
        child = self._children.pop(record.run, None)
        end = records.verdict(record, None if child is None else child.returncode)
        record.phase, record.exit_code = end.phase, end.exit_code
        record.reason, record.message = end.reason, end.message
        self._kin.pop(record.run, None)
        self._kill_at.pop(record.run, None)
        self._keep(record)
        log.info("run ended", extra={"run": record.run, "phase": record.phase, "exit_code": record.exit_code})

    def _ask_to_stop(self, record: Record) -> None:
        record.stop_asked = time.time()
        self._keep(record)
        self._look(record)

    def _press(self, record: Record) -> None:
        """SIGTERM once, to the worker's own process group; after the grace, SIGKILL to its family."""
        family = self._family(record)
        if record.run not in self._kill_at:
            # A server before this one may have asked: its part of the grace is over.
            waited = max(0.0, time.time() - (record.stop_asked or 0.0))
            self._kill_at[record.run] = time.monotonic() + max(0.0, self._grace - waited)
            for pid, started in family.items():
                if _group(pid) == record.pid:
                    processes.send(pid, started, signal.SIGTERM)
        elif time.monotonic() >= self._kill_at[record.run]:
            for pid, started in family.items():
                processes.send(pid, started, signal.SIGKILL)

    def _family(self, record: Record) -> dict[int, str]:
        """The living family, and those seen in it before: their ties may be gone, they are not."""
        known = self._kin.setdefault(record.run, {})
        known |= processes.family(record.token)
        return dict(known)

    def _start_waiting(self) -> None:
        for submission in self._queue(inspections=True):
            running = sum(r.alive and r.type.reads_only for r in self._records.values())
            if running >= devices.INSPECT_SLOTS or not self._start(submission, []):
                break
        for submission in self._queue(inspections=False):
            if self._wanted(submission) > len(self._slots):
                continue  # its state says so; it holds up nobody
            slots = self._room_for(submission)
            # One that does not fit yet is waited for: overtaking it for ever would starve it.
            if slots is None or not self._start(submission, slots):
                break

    def _room_for(self, submission: Submission) -> list[str] | None:
        """Devices for it: free ones, or one that only serves and has room for it; None if it must wait."""
        wanted = self._wanted(submission)
        held = {
            slot: [record for record in self._records.values() if record.alive and slot in record.slots]
            for slot in self._slots
        }
        free = [slot for slot in self._slots if not held[slot]]
        if wanted <= len(free):
            return free[:wanted]
        need = submission.memory_bytes
        if submission.type is not RunType.SERVE or wanted > 1 or not need:
            return None
        for slot, there in held.items():
            shares = all(r.type is RunType.SERVE and r.memory_bytes and len(r.slots) == 1 for r in there)
            if shares and need + sum(record.memory_bytes for record in there) <= self._memory:
                return [slot]
        return None

    def _queue(self, *, inspections: bool) -> list[Submission]:
        chosen = (s for s in self._waiting.values() if s.type.reads_only == inspections)
        return sorted(chosen, key=lambda s: (-s.priority, s.created, s.run))

    def _wanted(self, submission: Submission) -> int:
        """Slots it needs; more than there are if it asks for GPUs and there are none."""
        if self._slots == [devices.CPU] and submission.accelerators:
            return submission.accelerators + 1
        return max(1, submission.accelerators)

    def _waiting_state(self, submission: Submission) -> RunState:
        if not submission.type.reads_only and self._wanted(submission) > len(self._slots):
            gpus = 0 if self._slots == [devices.CPU] else len(self._slots)
            message = (
                f"asks for {submission.accelerators} GPUs and this machine has {gpus}; "
                f"set resources.accelerators to {gpus} or less"
            )
            return RunState(RunPhase.PENDING, reason="NotEnoughDevices", message=message)
        queue = self._queue(inspections=submission.type.reads_only)
        return RunState(RunPhase.PENDING, position=queue.index(submission) + 1, reason="Queued")

    def _start(self, submission: Submission, slots: list[str]) -> bool:
        """Start the worker. False if it could not even be noted down; it then stays in the queue."""
        record = Record.of(submission, secrets.token_hex(16), slots)
        try:
            records.save(self._folder, record)
        except OSError as error:
            log.error("a run cannot be started", extra={"run": record.run, "error": str(error)})
            return False
        del self._waiting[submission.run]
        self._records[record.run] = record
        environment = devices.environment(os.environ, slots, len(self._slots))
        try:
            child = self._spawn(
                record, environment | dict(submission.environment) | {processes.TOKEN: record.token}
            )
        except (OSError, ValueError, storage.StorageError) as error:
            record.phase, record.reason = RunPhase.FAILED, records.START_FAILED
            record.message = f"the worker could not be started: {error}"
            self._keep(record)
            return True
        self._children[record.run] = child
        seen = processes.look(child.pid)
        # Not seen means that it has ended already; the child's own exit then tells.
        record.pid, record.started = child.pid, seen.started if seen else ""
        self._keep(record)
        log.info("run started", extra={"run": record.run, "pid": child.pid, "slots": slots})
        return True

    def _spawn(self, record: Record, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        path = storage.local_path(record.log_uri)
        storage.make_folder(path.parent)
        with path.open("ab") as output:
            return subprocess.Popen(
                [self._python, "-m", "datatunerx.worker", record.plan_uri],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=environment, cwd=self._folder, start_new_session=True,
            )  # fmt: skip

    def _keep(self, record: Record) -> None:
        """Remember the record; on a full disk in memory only, until there is space."""
        self._records[record.run] = record
        try:
            records.save(self._folder, record)
            self._unsaved.discard(record.run)
        except OSError as error:
            self._unsaved.add(record.run)
            log.error("a run's record is not saved yet", extra={"run": record.run, "error": str(error)})

    def _adopt(self) -> None:
        """Take over what an earlier server has left: find processes it started and had no time to note."""
        for record in list(self._records.values()):
            if record.phase is RunPhase.PENDING:
                del self._records[record.run]
                if storage.exists(record.plan_uri):
                    self._waiting[record.run] = record.submission()
                else:
                    records.forget(self._folder, record.run)
            elif record.alive and record.pid is None:
                self._find(record)
            else:
                self._known(record.run)

    def _find(self, record: Record) -> None:
        seen = processes.leader(record.token)
        if seen is None:
            time.sleep(_ADOPT_SECONDS)
            seen = processes.leader(record.token)
        if seen is not None:
            record.pid, record.started = seen.pid, seen.started
            self._keep(record)
        elif not records.has_spoken(record):
            # It was never started, or ended before its first word: starting it is starting it once.
            del self._records[record.run]
            records.forget(self._folder, record.run)


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None
