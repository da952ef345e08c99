"""Services by what they serve: which one has some models, and waiting until it has them loaded."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence

from datatunerx.client.api import Api
from datatunerx.resources import InferenceService
from datatunerx.resources.enums import ServicePhase
from datatunerx.resources.outcome import ModelRef
from datatunerx.resources.wire import GROUP, WANTED

MADE_BY = f"{GROUP}/made-by"
"""Label of a service that a command or the console made for itself."""
LOOK_SECONDS = 0.2


class NotLoaded(Exception):
    """A service cannot be loaded; the message says why."""


def serving(services: Iterable[InferenceService], models: Sequence[ModelRef]) -> str | None:
    """A service that a user made and has not unloaded, with all of the models; a loaded one rather."""
    wanted = {(model.kind, model.name) for model in models}
    found = [
        service
        for service in services
        if wanted <= {(model.kind, model.name) for model in service.spec.models}
        and service.spec.replicas
        and not service.metadata.deletion_timestamp
        and MADE_BY not in service.metadata.labels
    ]
    found.sort(key=lambda service: (not service.status.is_true("Ready"), service.metadata.name))
    return found[0].metadata.name if found else None


async def loading(api: Api, name: str, namespace: str) -> AsyncIterator[str]:
    """What the service waits for, until all of its models are served; asks for it if it is unloaded.

    Raises NotLoaded.
    """
    asked, told = False, ""
    while True:
        service = await api.get(InferenceService, name, namespace)
        status = service.status
        seen = status.observed_generation == service.metadata.generation
        if seen and status.is_true("Ready"):
            return
        if seen and status.phase in (ServicePhase.STOPPED, ServicePhase.FAILED):
            if asked and status.phase is ServicePhase.FAILED:
                raise NotLoaded(f"InferenceService {name}: {status.reason}: {status.message}")
            if service.spec.replicas == 0:
                raise NotLoaded(
                    f"InferenceService {name} is unloaded: kubectl scale isvc/{name} --replicas=1"
                )
            if not asked:
                note = {"metadata": {"annotations": {WANTED: f"{time.time():.3f}"}}}
                await api.patch(InferenceService, name, note, namespace)
            asked = asked or status.phase is ServicePhase.FAILED
        elif seen and status.message and status.message != told:
            told = status.message
            yield told
        await asyncio.sleep(LOOK_SECONDS)
