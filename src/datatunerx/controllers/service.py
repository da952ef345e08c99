"""InferenceService: one serve run per base, loaded when wanted, unloaded when idle or when others wait.

What it decides by is all in objects and in the files of its runs, so a new server goes on where this one
stopped. How often a base was loaded is in the names of its runs; the last ended one is kept to tell why.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from datatunerx import storage
from datatunerx.client.informer import Key
from datatunerx.controllers.context import Context
from datatunerx.controllers.folder import command_time, folder_of, publish_plan, send, was_told
from datatunerx.controllers.following import RunView
from datatunerx.controllers.objects import (
    WORKER,
    delete,
    draft,
    ensure,
    metadata_of,
    must_be_fresh,
    tell,
    write_status,
)
from datatunerx.controllers.readiness import Waiting
from datatunerx.controllers.run import RETRYABLE
from datatunerx.controllers.served import Resolved, bases, resolve
from datatunerx.controllers.yielding import QUIET_SECONDS, Holder, Waiter, yielding
from datatunerx.resources.enums import Precision, RunPhase, RunType, ServicePhase
from datatunerx.resources.outcome import InferenceService, Run, RunSpec, ServedModelStatus
from datatunerx.resources.wire import WANTED
from datatunerx.runs.commands import Command, Verb
from datatunerx.runs.compile import resolved_precision, run_name
from datatunerx.runs.files import MODELS, in_folder
from datatunerx.runs.plan import RunPlan, ServedModels
from datatunerx.runs.serving import ServedBase, memory_bytes, serve

YIELDED, UNLOADED, REPLACED = "yielded", "unloaded", "replaced"
SAID = {
    YIELDED: ("Yielded", "gave its device to what waited for one; the next request loads it again"),
    UNLOADED: ("Unloaded", "nothing of it is to be served"),
    REPLACED: ("Replaced", "loaded anew, as its spec asks for"),
}
MAX_DEATHS = 3
"""Workers that may die on one base within DEATH_SECONDS before it is left alone."""
DEATH_SECONDS = 600.0
AGAIN_SECONDS = 60.0
"""After a failure a request has it tried again, but not sooner than this."""
DRAIN_SECONDS = 120.0
"""Between telling a worker to end its answers and ending the worker."""


@dataclass(frozen=True)
class Standing:
    """How one base of a service stands."""

    reason: str = ""
    message: str = ""
    run: Run | None = None
    view: RunView | None = None
    """Of a run that is there and not told to go."""

    @property
    def phase(self) -> ServicePhase:
        if self.view:
            return ServicePhase.RUNNING if self.view.serving else ServicePhase.PENDING
        unloaded = self.reason in ("Idle", "Stopped", "Stopping", *(reason for reason, _ in SAID.values()))
        return ServicePhase.STOPPED if unloaded else ServicePhase.FAILED


class ServiceReconciler:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, key: Key) -> float | None:
        context = self._context
        service = context.world.get(InferenceService, *key)
        if service is None or service.metadata.deletion_timestamp:
            return None  # its runs go with it
        resolved = resolve(context.world, service)
        wanted_bases = bases(resolved) if service.spec.replicas > 0 else []
        runs = self._runs(service)
        standings = {base.digest: await self._base(service, base, runs) for base in wanted_bases}
        for run in runs:
            if not run.status.phase.terminal and _base_of(run) not in {b.digest for b in wanted_bases}:
                await self._let_go(run, UNLOADED)
        await self._tidy(runs)
        wanted = draft(service)
        self._tell_status(wanted, resolved, standings)
        if all(standing.view for standing in standings.values()) or not standings:
            wanted.status.loaded_generation = service.metadata.generation
        await write_status(context, service, wanted)
        if wanted.status.reason != service.status.reason and wanted.status.reason:
            failed = wanted.status.phase is ServicePhase.FAILED
            await tell(context, service, wanted.status.reason, wanted.status.message or "", warning=failed)
        live = any(not run.status.phase.terminal for run in self._runs(service))
        return context.settings.poll_seconds if live or any(s.view for s in standings.values()) else None

    def _runs(self, service: InferenceService) -> list[Run]:
        """Its serve runs, the first load of each base first."""
        owned = self._context.world.owned(Run, service.metadata.uid)
        return sorted((run for run in owned if run.spec.type is RunType.SERVE), key=load_of)

    # One base

    async def _base(self, service: InferenceService, base: ServedBase, runs: list[Run]) -> Standing:
        """Load it, keep it as it should be, or say why it is not loaded."""
        mine = [run for run in runs if _base_of(run) == base.digest]
        last = mine[-1] if mine else None
        if last and not last.status.phase.terminal:
            return await self._live(service, base, last)
        if last and not self._is_wanted(service, mine):
            return Standing(*_why_ended(last), run=last)
        load = load_of(last) + 1 if last else 1
        plan = self._plan(service, base, load)
        run = await self._start(service, base, plan, load)
        return Standing("Starting", self._doing(run), run, RunView())

    def _plan(self, service: InferenceService, base: ServedBase, load: int) -> RunPlan:
        settings, spec = self._context.settings, service.spec
        precision = resolved_precision(Precision.AUTO, settings.auto_precision)
        return serve(
            service.metadata.uid, base, load, engine=spec.engine, precision=precision,
            idle_seconds=spec.idle_seconds, root_uri=settings.root_uri,
        )  # fmt: skip

    async def _live(self, service: InferenceService, base: ServedBase, run: Run) -> Standing:
        plan = self._plan(service, base, load_of(run))
        asked = service.spec.resources.accelerators
        if plan.id != run.spec.plan_id or asked != run.spec.accelerators:
            await self._let_go(run, REPLACED)
            return Standing(*SAID[REPLACED], run=run)
        if waiter := self._must_yield(run):
            await self._let_go(run, YIELDED)
            message = f"gives its device to Run {waiter.run.partition('/')[2]}, which waits for one"
            return Standing("Yielded", message, run=run)
        if any(was_told(run.spec.plan_uri, _command(why)) for why in SAID):
            return Standing("Stopping", "ends its current answers", run=run)
        self._publish_models(run, base)
        view = await self._context.feeds.view(folder_of(run.spec.plan_uri))
        return Standing(run.status.reason or "Starting", self._doing(run), run, view)

    def _doing(self, run: Run) -> str:
        """What a run that is there waits for, or does."""
        status = run.status
        if status.phase is not RunPhase.PENDING or not status.position:
            return status.message or f"Run {run.metadata.name} is loading the base"
        others = [
            other for other in self._context.world.all(Run, None) if other.status.phase is RunPhase.RUNNING
        ]
        held = [
            f"{other.spec.serves[0]} (Run {other.metadata.name})" for other in others if _has_device(other)
        ]
        behind = f" behind {', '.join(held[:5])}" if held else ""
        return f"waits for a free device{behind}; place {status.position} in the queue"

    def _is_wanted(self, service: InferenceService, mine: list[Run]) -> bool:
        """Whether a base whose last run has ended is to be loaded again."""
        last, now = mine[-1], self._context.clock()
        if service.status.loaded_generation != service.metadata.generation:
            return True
        if last.status.phase is RunPhase.FAILED:
            ended = [_seconds(run.status.finished_at) for run in mine if run.status.phase is RunPhase.FAILED]
            deaths = sum(now - at < DEATH_SECONDS for at in ended)
            if last.status.reason in RETRYABLE and deaths < MAX_DEATHS:
                return True
            return asked_for(service) > _seconds(last.status.finished_at) + AGAIN_SECONDS
        return asked_for(service) >= _seconds(last.status.finished_at)

    async def _start(self, service: InferenceService, base: ServedBase, plan: RunPlan, load: int) -> Run:
        context, spec = self._context, service.spec
        await must_be_fresh(context, service)
        key = f"{service.kind}/{service.metadata.name}/{base.digest}"
        assert plan.serve
        wanted = RunSpec(
            type=RunType.SERVE,
            plan_id=plan.id,
            plan_uri=publish_plan(plan),
            serves=[f"{service.kind}/{service.metadata.name}"],
            attempts={key: load},
            accelerators=spec.resources.accelerators,
            priority=spec.priority,
            memory_bytes=memory_bytes(base, plan.serve),
        )
        metadata = metadata_of(run_name(plan), [service], finalizers=(WORKER,))
        return await ensure(context, service, Run(metadata=metadata, spec=wanted))

    def _publish_models(self, run: Run, base: ServedBase) -> None:
        """Tell the worker what it is to serve from now on, if that is something else."""
        uri = in_folder(folder_of(run.spec.plan_uri), MODELS)
        data = (
            ServedModels(models=list(base.models)).model_dump_json(by_alias=True, exclude_none=True).encode()
        )
        if not storage.exists(uri) or storage.read_bytes(uri) != data:
            storage.write_atomic(uri, data)

    # Leaving

    def _must_yield(self, run: Run) -> Waiter | None:
        """For whom the run has to go, if it has to."""
        world, clock = self._context.world, self._context.clock
        everywhere = world.all(Run, None)
        waiters = [_waiter(other) for other in everywhere if _waits(other)]
        if not waiters:
            return None
        holders = [self._holder(other) for other in everywhere if _holds(other)]
        return yielding(holders, waiters, clock()).get(_place(run))

    def _holder(self, run: Run) -> Holder:
        view = self._context.feeds.known(folder_of(run.spec.plan_uri))
        serving = view.serving if view else None
        began = _seconds(run.status.started_at)
        until = math.inf if serving is None or serving.requests else (serving.last_request or 0.0)
        return Holder(
            _place(run), _service_of(run), run.spec.priority,
            busy_until=max(until, view.ready_at if view and view.ready_at else began) + QUIET_SECONDS,
            leaving=any(was_told(run.spec.plan_uri, _command(why)) for why in SAID),
        )  # fmt: skip

    async def _let_go(self, run: Run, why: str) -> None:
        """Have the worker end its answers and go; one that does not is stopped."""
        if run.status.phase is RunPhase.PENDING:
            await self._stop(run)
            return
        told = next((w for w in SAID if was_told(run.spec.plan_uri, _command(w))), None)
        if told is None:
            send(run.spec.plan_uri, _command(why))
        elif self._context.clock() - command_time(run.spec.plan_uri, _command(told)) > DRAIN_SECONDS:
            await self._stop(run)

    async def _stop(self, run: Run) -> None:
        if not run.spec.stop:
            metadata = {"resourceVersion": run.metadata.resource_version}
            body = {"metadata": metadata, "spec": {"stop": True}}
            await self._context.api.patch(Run, run.metadata.name, body, run.metadata.namespace)

    async def _tidy(self, runs: list[Run]) -> None:
        """Delete ended runs, but for the last of each base and the deaths that are still counted."""
        for run in runs:
            later = [r for r in runs if _base_of(r) == _base_of(run) and load_of(r) > load_of(run)]
            old = self._context.clock() - _seconds(run.status.finished_at) > DEATH_SECONDS
            if run.status.phase.terminal and later and (old or run.status.phase is not RunPhase.FAILED):
                await delete(self._context, run)

    # Telling

    def _tell_status(
        self,
        wanted: InferenceService,
        resolved: dict[tuple[str, str], Resolved | Waiting],
        standings: dict[str, Standing],
    ) -> None:
        status, metadata = wanted.status, wanted.metadata
        place = f"namespaces/{metadata.namespace}/inferenceservices/{metadata.name}"
        status.url = f"/apis/datatunerx.io/v1beta1/{place}/proxy/v1"
        status.models = [
            self._model_status(ref.kind, ref.name, resolved[ref.kind, ref.name], standings)
            for ref in wanted.spec.models
        ]
        status.models_ready = sum(model.ready for model in status.models)
        phases = [standing.phase for standing in standings.values()]
        status.replicas = int(bool(phases) and all(phase is ServicePhase.RUNNING for phase in phases))
        first = next((model for model in status.models if not model.ready), None)
        status.phase = _phase(status.models_ready, phases, wanted.spec.replicas)
        status.reason, status.message = (first.reason, first.message) if first else (None, None)
        if wanted.spec.replicas == 0:
            status.reason, status.message = "Unloaded", "spec.replicas is 0; scale it to 1 to serve"
        said = status.message or f"{status.models_ready} models are served"
        status.set_condition("Ready", first is None, status.reason or "Serving", said)

    def _model_status(
        self, kind: str, name: str, one: Resolved | Waiting, standings: dict[str, Standing]
    ) -> ServedModelStatus:
        found = ServedModelStatus(kind=kind, name=name)  # type: ignore[arg-type]
        if isinstance(one, Waiting):
            found.reason, found.message = one.reason, one.message
            return found
        found.base_digest, found.adapter_digest = one.base_digest, one.model.adapter_digest
        standing = standings.get(one.base_digest)
        if standing is None:
            found.reason, found.message = "Unloaded", "spec.replicas is 0; scale it to 1 to serve"
            return found
        found.run = standing.run.metadata.name if standing.run else None
        serving = standing.view.serving if standing.view else None
        said = next(
            (model for model in (serving.models if serving else None) or [] if model.name == name), None
        )
        if said and said.ready:
            found.ready = True
        elif said:
            found.reason, found.message = said.reason, said.message
        else:
            found.reason, found.message = standing.reason, standing.message
            if serving:
                found.reason, found.message = "Loading", "the worker is about to take it up"
        return found


def load_of(run: Run) -> int:
    """The how-manieth load of its base it is."""
    return next(iter(run.spec.attempts.values()), 0)


def asked_for(service: InferenceService) -> float:
    """When it was last asked for while unloaded, in seconds since 1970; 0 is never."""
    try:
        return float(service.metadata.annotations.get(WANTED, "0"))
    except ValueError:
        return 0.0


def _phase(ready: int, phases: Iterable[ServicePhase], replicas: int) -> ServicePhase:
    found = set(phases)
    if ready:
        return ServicePhase.RUNNING
    if replicas == 0:
        return ServicePhase.STOPPED
    for phase in (ServicePhase.PENDING, ServicePhase.RUNNING, ServicePhase.FAILED, ServicePhase.STOPPED):
        if phase in found:  # a worker that runs and serves nothing yet is loading
            return ServicePhase.PENDING if phase is ServicePhase.RUNNING else phase
    return ServicePhase.PENDING


def _why_ended(run: Run) -> tuple[str, str]:
    for why, said in SAID.items():
        if was_told(run.spec.plan_uri, _command(why)):
            return said
    if run.status.phase is RunPhase.FAILED:
        message = run.status.message or "its worker failed"
        return (
            run.status.reason or "Failed",
            f"{message.rstrip('.')}; a request or a changed spec tries it again",
        )
    if run.status.phase is RunPhase.SUCCEEDED:
        return "Idle", "unloaded as nobody asked; the next request loads it again"
    return "Stopped", "was stopped; the next request loads it again"


def _command(why: str) -> Command:
    return Command(verb=Verb.STOP, job="", nonce=why)


def _base_of(run: Run) -> str:
    """Digest of the base that the run serves."""
    return next(iter(run.spec.attempts), "//").split("/", 2)[2]


def _service_of(run: Run) -> str:
    serves = run.spec.serves[0] if run.spec.serves else ""
    return f"{run.metadata.namespace}/{serves}" if run.spec.type is RunType.SERVE else ""


def _place(run: Run) -> str:
    return f"{run.metadata.namespace}/{run.metadata.name}"


def _has_device(run: Run) -> bool:
    return not run.spec.type.reads_only and bool(run.spec.serves)


def _holds(run: Run) -> bool:
    return run.spec.type is RunType.SERVE and run.status.phase is RunPhase.RUNNING


def _waits(run: Run) -> bool:
    queued = run.status.phase is RunPhase.PENDING and run.status.reason == "Queued"
    return queued and not run.spec.type.reads_only and not run.spec.stop


def _waiter(run: Run) -> Waiter:
    since = _seconds(run.metadata.creation_timestamp)
    return Waiter(_place(run), _service_of(run), run.spec.priority, since, max(1, run.spec.accelerators))


def _seconds(stamp: str | None) -> float:
    return datetime.fromisoformat(stamp).timestamp() if stamp else 0.0
