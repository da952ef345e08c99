"""Placement: packs waiting Finetunes that share a base into Runs. Making the Run is what binds them.

It acts on what the API says now, not on the cache: a Finetune must never be in two runs at once.
"""

from datatunerx.client.errors import AlreadyExists
from datatunerx.client.informer import Key
from datatunerx.controllers.context import Context
from datatunerx.controllers.folder import publish_plan
from datatunerx.controllers.objects import WORKER, metadata_of
from datatunerx.controllers.readiness import resolve
from datatunerx.controllers.secrets import secrets_of
from datatunerx.resources.enums import FinetunePhase, RunType
from datatunerx.resources.finetune import Finetune
from datatunerx.resources.outcome import Run, RunSpec
from datatunerx.runs.compile import Training, groups, run_name, tune

WAITING = (FinetunePhase.PENDING, FinetunePhase.RETRYING)


def is_waiting(finetune: Finetune) -> bool:
    """Whether it wants a Run and has none, as far as it says itself."""
    spec, status = finetune.spec, finetune.status
    asked_off = spec.suspend or spec.stop or finetune.metadata.deletion_timestamp
    return status.phase in WAITING and status.run is None and not asked_off


def is_queued(finetune: Finetune) -> bool:
    """Whether it has said that a device is all it waits for."""
    status = finetune.status
    return is_waiting(finetune) and (status.reason == "Queued" or status.phase is FinetunePhase.RETRYING)


class PlacementReconciler:
    """Its key is a namespace; the name is empty."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._waiting: dict[str, tuple[frozenset[str], float]] = {}

    async def reconcile(self, key: Key) -> float | None:
        world, namespace = self._context.world, key.namespace
        known = world.all(Run, namespace)
        if sum(_is_busy(run) for run in known) >= self._context.settings.devices:
            return None  # the end of a run wakes us
        waiting = [f for f in world.all(Finetune, namespace) if is_waiting(f) and not bound(f, known)]
        settings = self._context.settings
        resolved = (
            resolve(world, finetune, gpus=settings.gpus, root_uri=settings.root_uri) for finetune in waiting
        )
        ready = [training for training in resolved if isinstance(training, Training)]
        if not ready:
            self._waiting.pop(namespace, None)
            return None
        if (seconds := self._unsettled(namespace, ready)) > 0:
            return seconds
        everywhere = await self._context.api.list(Run)  # devices know no namespaces
        runs = [run for run in everywhere if run.metadata.namespace == namespace]
        free = self._context.settings.devices - sum(_is_busy(run) for run in everywhere)
        if free <= 0:
            return None
        live = {f.metadata.uid: f for f in await self._context.api.list(Finetune, namespace)}
        trainings = [t for t in ready if _still_waits(t, live, runs)]
        packs = groups(
            trainings, auto=settings.auto_precision, memory_bytes=settings.memory_bytes, devices=free
        )
        for pack in packs[:free]:
            await self._bind(pack)
        self._waiting.pop(namespace, None)
        return None

    def _unsettled(self, namespace: str, ready: list[Training]) -> float:
        """Seconds until nobody new has come for the settling time."""
        now = self._context.clock()
        present = frozenset(t.finetune.metadata.uid for t in ready)
        before, since = self._waiting.get(namespace, (frozenset(), now))
        if not present <= before:
            since = now
        self._waiting[namespace] = (present, since)
        return self._context.settings.settle_seconds - (now - since)

    async def _bind(self, pack: list[Training]) -> None:
        plan = tune(pack, self._context.settings.root_uri)
        finetunes = [training.finetune for training in sorted(pack, key=lambda training: training.name)]
        spec = RunSpec(
            type=RunType.TUNE,
            plan_id=plan.id,
            plan_uri=publish_plan(plan),
            serves=[f"Finetune/{finetune.metadata.name}" for finetune in finetunes],
            attempts={finetune.metadata.name: finetune.status.attempt for finetune in finetunes},
            accelerators=max(finetune.spec.resources.accelerators for finetune in finetunes),
            priority=max(finetune.spec.priority for finetune in finetunes),
            secrets=secrets_of(*(training.measure.judge for training in pack if training.measure)),
        )
        metadata = metadata_of(run_name(plan), finetunes, finalizers=(WORKER,))
        metadata.owner_references = [f.owner_reference(controller=False) for f in finetunes]
        try:
            await self._context.api.create(Run(metadata=metadata, spec=spec))
        except AlreadyExists:
            return  # bound already, by the very same plan


def bound(finetune: Finetune, runs: list[Run]) -> bool:
    """Whether a Run carries the Finetune's present attempt."""
    uid, name = finetune.metadata.uid, finetune.metadata.name
    return any(
        run.spec.attempts.get(name) == finetune.status.attempt
        and any(owner.uid == uid for owner in run.metadata.owner_references)
        for run in runs
    )


def _is_busy(run: Run) -> bool:
    return run.spec.type is RunType.TUNE and not run.status.phase.terminal


def _still_waits(training: Training, live: dict[str, Finetune], runs: list[Run]) -> bool:
    now = live.get(training.finetune.metadata.uid)
    if now is None or not is_waiting(now) or bound(now, runs):
        return False
    # An older reading would be bound under an older attempt or spec.
    read = training.finetune
    return (now.status.attempt, now.metadata.generation) == (read.status.attempt, read.metadata.generation)
