"""Starts the controllers: one informer per kind, one queue of names, a few workers."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any, TypeVar, cast

from datatunerx.client.api import Api
from datatunerx.client.errors import ApiError, Conflict, NotFound
from datatunerx.client.informer import Informer, Key, key_of
from datatunerx.client.queue import Queue
from datatunerx.compute.backend import Backend
from datatunerx.controllers.checkpoint import CheckpointReconciler
from datatunerx.controllers.context import Context, Reconciler, Settings
from datatunerx.controllers.dataset import DatasetReconciler
from datatunerx.controllers.experiment import ExperimentReconciler
from datatunerx.controllers.finetune import FinetuneReconciler
from datatunerx.controllers.hyperparameter import HyperparameterReconciler
from datatunerx.controllers.job import JobReconciler
from datatunerx.controllers.llm import LLMReconciler
from datatunerx.controllers.objects import NameTaken
from datatunerx.controllers.placement import PlacementReconciler
from datatunerx.controllers.plugins import PluginReconciler
from datatunerx.controllers.refused import REFUSED, RefusedReconciler
from datatunerx.controllers.run import RunReconciler
from datatunerx.controllers.scoring import ScoringReconciler
from datatunerx.controllers.service import ServiceReconciler
from datatunerx.controllers.wakes import PLACEMENT, Wake, wakes
from datatunerx.resources.kinds import KINDS
from datatunerx.resources.material import DataPlugin
from datatunerx.resources.outcome import ScoringPlugin
from datatunerx.resources.wire import Resource

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Resource)


class InformedWorld:
    """The world as informers mirror it."""

    def __init__(self) -> None:
        self.informers: dict[type[Resource], Informer[Any]] = {}

    def get(self, model: type[R], namespace: str, name: str) -> R | None:
        return cast(R | None, self.informers[model].get(Key(namespace, name)))

    def all(self, model: type[R], namespace: str | None) -> list[R]:
        return cast(list[R], self.informers[model].all(namespace))

    def owned(self, model: type[R], uid: str) -> list[R]:
        return cast(list[R], self.informers[model].owned(uid))

    def everything(self) -> Iterator[Resource]:
        for informer in self.informers.values():
            yield from informer.all()


def reconcilers(context: Context) -> dict[str, Reconciler]:
    """One per kind, and placement; none remembers anything that it cannot find out again."""
    return {
        "LLM": LLMReconciler(context),
        "Dataset": DatasetReconciler(context),
        "Hyperparameter": HyperparameterReconciler(context),
        "FinetuneExperiment": ExperimentReconciler(context),
        "FinetuneJob": JobReconciler(context),
        "Finetune": FinetuneReconciler(context),
        PLACEMENT: PlacementReconciler(context),
        "Run": RunReconciler(context),
        "LLMCheckpoint": CheckpointReconciler(context),
        "Scoring": ScoringReconciler(context),
        "DataPlugin": PluginReconciler(context, DataPlugin),
        "ScoringPlugin": PluginReconciler(context, ScoringPlugin),
        "InferenceService": ServiceReconciler(context),
    }


async def run_controllers(api: Api, backend: Backend, settings: Settings, *, stop: asyncio.Event) -> None:
    """Reconcile everything until `stop` is set. Running workers are left alone by leaving."""
    queue: Queue[Wake] = Queue()
    world = InformedWorld()

    def changed(old: Resource | None, new: Resource | None) -> None:
        for wake in wakes(world, old, new):
            queue.add(wake)

    context = Context(api, world, backend, settings)
    refused = RefusedReconciler(context)

    def not_understood(obj: dict[str, Any], why: str) -> None:
        queue.add(Wake(REFUSED, refused.note(obj, why)))

    for kind in KINDS:
        world.informers[kind.model] = Informer(api, kind.model, changed, on_refused=not_understood)
    table = reconcilers(context) | {REFUSED: refused}

    async def work() -> None:
        for informer in world.informers.values():
            await informer.synced.wait()  # an empty cache would look like a world in which all is gone
        while (wake := await queue.get()) is not None:
            try:
                await look(table, queue, wake)
            finally:
                queue.done(wake)
            await asyncio.sleep(0)  # a look that had nothing to wait for must not keep the server waiting

    async def resync() -> None:
        while True:
            await asyncio.sleep(settings.resync_seconds)
            for obj in world.everything():
                if not _is_over(obj):
                    queue.add(Wake(obj.kind, key_of(obj)))
                    queue.add(Wake(PLACEMENT, Key(obj.metadata.namespace, "")))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(informer.run()) for informer in world.informers.values()]
        tasks += [group.create_task(resync())]
        workers = [group.create_task(work()) for _ in range(settings.workers)]
        await stop.wait()
        queue.close()
        for task in tasks:
            task.cancel()
        # A worker ends what it is doing; one that waits for a list that never came is not doing anything.
        _, late = await asyncio.wait(workers, timeout=5)
        for task in late:
            task.cancel()


def _is_over(obj: Resource) -> bool:
    phase = getattr(obj.status, "phase", None)  # type: ignore[attr-defined]
    return getattr(phase, "terminal", False) and obj.metadata.deletion_timestamp is None


async def look(table: dict[str, Reconciler], queue: Queue[Wake], wake: Wake) -> None:
    """Reconcile one name; whatever goes wrong, it is looked at again, later each time."""
    try:
        again = await table[wake.controller].reconcile(wake.key)
    except (Conflict, NotFound):
        queue.failed(wake)  # read too early, or somebody was faster: look again
    except (ApiError, NameTaken, OSError) as error:
        seconds = queue.failed(wake)
        log.warning(
            "reconcile failed",
            extra={
                "controller": wake.controller,
                "key": "/".join(wake.key),
                "error": str(error),
                "again": seconds,
            },
        )
    except Exception:  # a fault in one object's reconcile must not end all the others'
        queue.failed(wake)
        log.exception("reconcile broke", extra={"controller": wake.controller, "key": "/".join(wake.key)})
    else:
        queue.succeeded(wake)
        if again is not None:
            queue.add_after(wake, again)
