"""From models and a round to answers as they come: a service that has the models, then the server's compare.

If no service of the namespace has all of them, one is made for the console. While it is loaded, models are
added to it, as somebody else may be asking it; once it is unloaded it takes those that are asked and no more.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from datatunerx.client import AlreadyExists, Api, ApiError, Conflict, NotFound
from datatunerx.client.api import path_of
from datatunerx.client.services import MADE_BY, NotLoaded, loading, serving
from datatunerx.console.comparing import rounds
from datatunerx.resources import InferenceService
from datatunerx.resources.outcome import InferenceServiceSpec, ModelRef
from datatunerx.resources.wire import ObjectMeta

Json = dict[str, Any]
OWN = "console"
"""The console's own service of a namespace."""
OWN_IDLE_SECONDS = 600.0
TRIES = 4
_JSON = {"content-type": "application/json"}


async def answers(api: Api, models: Sequence[ModelRef], round: Json, namespace: str) -> AsyncIterator[Json]:
    """{"waiting": text} while the models are loaded, then the events of the server's compare call:
    {"model", "delta"}, and {"model", "answer"} or {"model", "error"} once each.

    Raises ApiError and NotLoaded. Whoever stops reading has the answers dropped.
    """
    service = await service_for(api, models, namespace)
    async for text in loading(api, service, namespace):
        yield {"waiting": text}
    events: asyncio.Queue[Json | None] = asyncio.Queue()  # an answer has an end, so it has too
    where = path_of(InferenceService, namespace, service, "compare")

    async def ask(messages: list[Json], names: list[str]) -> None:
        body = {"models": names, "messages": messages, **round["settings"]}
        try:
            async for line in api.transport.stream(where, body=json.dumps(body).encode(), headers=_JSON):
                if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
                    events.put_nowait(json.loads(line[5:]))
        except ApiError as error:
            for name in names:
                events.put_nowait({"model": name, "error": {"message": error.message}})
        finally:
            events.put_nowait(None)

    calls = [asyncio.create_task(ask(*group)) for group in rounds.groups(round)]
    try:
        ended = 0
        while ended < len(calls):
            event = await events.get()
            if event is None:
                ended += 1
            else:
                yield event
    finally:
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def service_for(api: Api, models: Sequence[ModelRef], namespace: str) -> str:
    """The name of a service with all of the models: a user's, or the console's own, made or changed so."""
    services = await api.list(InferenceService, namespace)
    if found := serving(services, models):
        return found
    for _ in range(TRIES):
        try:
            return await _own(api, models, namespace)
        except (AlreadyExists, Conflict, NotFound):  # somebody else asks at this very moment
            await asyncio.sleep(0.05)
    raise NotLoaded(f"InferenceService {OWN} is changed by others all the time; ask again")


async def _own(api: Api, models: Sequence[ModelRef], namespace: str) -> str:
    spec = InferenceServiceSpec(models=list(models), idle_seconds=OWN_IDLE_SECONDS)
    try:
        there = await api.get(InferenceService, OWN, namespace)
    except NotFound:
        metadata = ObjectMeta(name=OWN, namespace=namespace, labels={MADE_BY: "console"})
        await api.create(InferenceService(metadata=metadata, spec=spec))
        return OWN
    if there.metadata.labels.get(MADE_BY) != "console":
        raise NotLoaded(f"InferenceService {OWN} is somebody's own: add the models to it, or rename it")
    has = {(model.kind, model.name): model for model in there.spec.models}
    missing = [model for model in models if (model.kind, model.name) not in has]
    if not missing and there.spec.replicas:
        return OWN
    stays = list(has.values()) if there.status.models_ready and there.spec.replicas else []
    wanted = stays + [model for model in models if model not in stays]
    patch = {
        "metadata": {"resourceVersion": there.metadata.resource_version},
        "spec": {"models": [model.dump() for model in wanted], "replicas": 1},
    }
    await api.patch(InferenceService, OWN, patch, namespace)
    return OWN
