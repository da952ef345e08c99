"""Run: given to the backend, followed, and ended in a status that does not lie."""

from collections.abc import Mapping
from datetime import UTC, datetime

from datatunerx import storage
from datatunerx.client.informer import Key
from datatunerx.compute.backend import WORKER_DIED, RunState, Submission, cause
from datatunerx.controllers.context import Context
from datatunerx.controllers.folder import folder_of, log_uri, read_result
from datatunerx.controllers.following import RunView
from datatunerx.controllers.objects import WORKER, draft, hold, release, tell, write_status
from datatunerx.controllers.secrets import environment_of
from datatunerx.resources.enums import RunPhase
from datatunerx.resources.outcome import Run
from datatunerx.resources.wire import now

NO_RESULT = "NoResult"
PLAN_ELSEWHERE = "PlanElsewhere"
YOUNG_SECONDS = 5.0
SOON_SECONDS = 0.1
RETRYABLE = frozenset({WORKER_DIED, NO_RESULT})
"""Reasons of a failed Run that speak of its worker and not of what it was told to do."""


def backend_name(run: Run) -> str:
    """What the backend knows the run by: a Run made again under its old name is another run."""
    return f"{run.metadata.name}-{run.metadata.uid[:8]}"


class RunReconciler:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, key: Key) -> float | None:
        context = self._context
        run = context.world.get(Run, *key)
        if run is None:
            return None
        if run.metadata.deletion_timestamp:
            return await self._leave(run)
        if run.status.phase.terminal:
            return None  # whatever becomes of its process, files and children
        if not await hold(context, run, WORKER):
            return 0.0
        wanted = draft(run)
        if not self._is_planned_here(run):
            # whoever may make Runs could have a worker of ours do what an uploaded file says
            message = (
                f"spec.planUri, {run.spec.plan_uri}: is not the plan of spec.planId in this platform's data"
            )
            end(wanted, RunPhase.FAILED, PLAN_ELSEWHERE, f"{message}; leave making Runs to the controllers")
            await write_status(context, run, wanted)
            return None
        wanted.status.previous_log_uri = wanted.status.previous_log_uri or self._previous_log(run)
        state = await self._state(run)
        view = await context.feeds.view(folder_of(run.spec.plan_uri))
        if state is None:
            end(wanted, RunPhase.STOPPED, "Stopped", "stopped before it began")
        elif state.phase.terminal:
            finish(wanted, state)
        else:
            self._go_on(wanted, state, view)
        if wanted.status != run.status and self._worth_writing(run, wanted):
            await write_status(context, run, wanted)
            await self._tell(run, wanted)
        return None if wanted.status.phase.terminal else self._next_look(wanted)

    def _is_planned_here(self, run: Run) -> bool:
        return folder_of(run.spec.plan_uri) == f"{self._context.settings.root_uri}/runs/{run.spec.plan_id}"

    def _previous_log(self, run: Run) -> str | None:
        """The log of the Run that carried an earlier attempt of what this one carries."""
        if not any(run.spec.attempts.values()):
            return None
        earlier = [
            (other.spec.attempts[name], other.status.log_uri)
            for other in self._context.world.all(Run, run.metadata.namespace)
            for name, attempt in run.spec.attempts.items()
            if other.spec.attempts.get(name, attempt) < attempt and other.status.log_uri
        ]
        return max(earlier)[1] if earlier else None

    def _next_look(self, run: Run) -> float:
        """Soon while somebody waits for it to begin, or for an inspection to end; else at the usual pace."""
        poll, started = self._context.settings.poll_seconds, run.status.started_at
        young = started is None or self._context.clock() - _seconds(started) < YOUNG_SECONDS
        return min(poll, SOON_SECONDS) if young or run.spec.type.reads_only else poll

    async def _state(self, run: Run) -> RunState | None:
        """What the backend says after it was told what is wanted; None if it need not begin."""
        backend, name = self._context.backend, backend_name(run)
        state = await backend.phase(name)
        if state is None:
            if read_result(run.spec.plan_uri, run.spec.plan_id):
                return RunState(RunPhase.SUCCEEDED)  # done in an earlier life of the backend
            if run.spec.stop:
                return None
            await backend.submit(submission(run, await environment_of(self._context, run)))
            state = await backend.phase(name) or RunState(RunPhase.PENDING)
        if run.spec.stop and not state.phase.terminal:
            await backend.stop(name)
            state = await backend.phase(name) or state
        return state

    def _go_on(self, wanted: Run, state: RunState, view: RunView) -> None:
        status = wanted.status
        status.phase = state.phase
        status.position = state.position
        status.devices = list(state.devices)
        status.reason = state.reason or None
        status.message = state.message or view.activity
        status.log_uri = log_uri(wanted.spec.plan_uri)
        if state.phase is RunPhase.RUNNING:
            status.started_at = status.started_at or now()
            status.position = None
        if view.heard:
            status.last_heartbeat = _stamp(view.heard)
            silent = self._context.clock() - view.heard
            if silent > self._context.settings.stall_seconds and state.phase is RunPhase.RUNNING:
                doing = f" while {view.activity}" if view.activity else ""
                message = f"the worker has said nothing for {silent:.0f} s{doing}; look at its log"
                status.set_condition("Stalled", True, "Stalled", message)
            elif status.condition("Stalled"):
                status.set_condition("Stalled", False, "Heard")

    def _worth_writing(self, run: Run, wanted: Run) -> bool:
        """A heartbeat alone is written every few seconds only."""
        before, after = run.status, wanted.status
        if before.last_heartbeat is None or after.last_heartbeat is None:
            return True
        others = after.model_copy(update={"last_heartbeat": before.last_heartbeat})
        if others != before:
            return True
        passed = _seconds(after.last_heartbeat) - _seconds(before.last_heartbeat)
        return passed >= self._context.settings.heartbeat_seconds

    async def _tell(self, run: Run, wanted: Run) -> None:
        phase = wanted.status.phase
        if phase is run.status.phase:
            return
        if phase is RunPhase.RUNNING:
            await tell(self._context, run, "RunStarted", f"the worker of {run.metadata.name} is running")
        elif phase.terminal:
            message = wanted.status.message or f"the run has {phase.value.lower()}"
            await tell(self._context, run, phase.value, message, warning=phase is RunPhase.FAILED)

    async def _leave(self, run: Run) -> float | None:
        """Stop the worker, and only when it is gone delete the files and let the object go."""
        context, name = self._context, backend_name(run)
        state = await context.backend.phase(name)
        if state is not None and not state.phase.terminal:
            await context.backend.stop(name)
            state = await context.backend.phase(name)
            if state is not None and not state.phase.terminal:
                return context.settings.poll_seconds
        folder = folder_of(run.spec.plan_uri)
        runs = f"{context.settings.root_uri}/runs"
        if folder == f"{runs}/{run.spec.plan_id}":
            storage.delete_tree(folder, under=runs)
        context.feeds.forget(folder)
        await release(context, run, WORKER)
        return None


def submission(run: Run, environment: Mapping[str, str]) -> Submission:
    created = run.metadata.creation_timestamp
    return Submission(
        run=backend_name(run),
        plan_uri=run.spec.plan_uri,
        log_uri=log_uri(run.spec.plan_uri),
        type=run.spec.type,
        accelerators=run.spec.accelerators,
        priority=run.spec.priority,
        created=_seconds(created) if created else 0.0,
        memory_bytes=run.spec.memory_bytes,
        environment=environment,
    )


def finish(wanted: Run, state: RunState) -> None:
    """The worker is gone. What its result says holds; without one nothing but a stop is a good end."""
    status = wanted.status
    status.exit_code = state.exit_code
    status.log_uri = log_uri(wanted.spec.plan_uri)
    result = read_result(wanted.spec.plan_uri, wanted.spec.plan_id)
    if result and result.phase.terminal:
        end(wanted, result.phase, result.reason, result.message)
    elif wanted.spec.stop or state.phase is RunPhase.STOPPED:
        end(wanted, RunPhase.STOPPED, "Stopped", "stopped; what was saved is kept")
    elif state.phase is RunPhase.FAILED:
        end(wanted, state.phase, state.reason or WORKER_DIED, state.message or cause(state.exit_code))
    else:
        end(wanted, RunPhase.FAILED, NO_RESULT, "the run ended without a result; its log says more")


def end(wanted: Run, phase: RunPhase, reason: str, message: str) -> None:
    status = wanted.status
    status.phase = phase
    status.reason = reason or None
    status.message = message or None
    status.position = None
    status.finished_at = now()
    if status.condition("Stalled"):
        status.set_condition("Stalled", False, "Ended")
    status.set_condition("Complete", True, phase.value, message)


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
