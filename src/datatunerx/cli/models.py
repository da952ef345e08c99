"""From what a user calls a model to a service that serves it, made for the occasion if there is none."""

import asyncio
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

from datatunerx.cli.check import did_you_mean
from datatunerx.cli.errors import BadInput, CommandError
from datatunerx.cli.names import kind_named
from datatunerx.client import Api, NotFound
from datatunerx.client.services import MADE_BY, NotLoaded, loading, serving
from datatunerx.resources import (
    LLM,
    Finetune,
    FinetuneExperiment,
    FinetuneJob,
    InferenceService,
    LLMCheckpoint,
)
from datatunerx.resources.outcome import InferenceServiceSpec, ModelRef
from datatunerx.resources.wire import ObjectMeta

OWN_IDLE_SECONDS = 600.0
"""A service whose command was killed before it could delete it frees its device after so long."""
Say = Callable[[str], None]


async def model_named(api: Api, name: str, namespace: str) -> ModelRef:
    """What a name means: an LLM, a checkpoint, or the checkpoint of a job, training or experiment.

    Raises BadInput for a name of nothing, and CommandError for a model that cannot be served as it is.
    """
    kind, slash, bare = name.rpartition("/")
    llms = {one.metadata.name: one for one in await api.list(LLM, namespace)}
    checkpoints = {one.metadata.name: one for one in await api.list(LLMCheckpoint, namespace)}
    wanted = kind_named(kind).kind if slash else ""
    if bare in llms and wanted in ("", "LLM"):
        return _usable(llms[bare])
    if bare in checkpoints and wanted in ("", "LLMCheckpoint"):
        return _usable(checkpoints[bare])
    jobs = {one.metadata.name: one for one in await api.list(FinetuneJob, namespace)}
    experiments = {one.metadata.name: one for one in await api.list(FinetuneExperiment, namespace)}
    finetunes = {one.metadata.name: one for one in await api.list(Finetune, namespace)}
    made: str | None = None
    if bare in jobs and wanted in ("", "FinetuneJob"):
        made = jobs[bare].status.checkpoint
    elif bare in experiments and wanted in ("", "FinetuneExperiment"):
        best = experiments[bare].status.best
        made = best.checkpoint if best else None
    elif bare in finetunes and wanted in ("", "Finetune"):
        own = [c for c in checkpoints.values() if c.spec.finetune == bare]
        made = max(own, key=lambda c: c.spec.step).metadata.name if own else None
    else:
        everything = list(dict.fromkeys([*llms, *checkpoints, *jobs]))
        hint = did_you_mean(bare, everything) or "; there is none yet, see dtx tune"
        raise BadInput(f'no {wanted or "LLM, checkpoint or job"} is called "{bare}"{hint}')
    if made is None or made not in checkpoints:
        found = jobs.get(bare) or experiments.get(bare) or finetunes[bare]
        raise CommandError(f"{bare} has no checkpoint to talk to: it is {found.status.phase.value}")
    return _usable(checkpoints[made])


def _usable(model: LLM | LLMCheckpoint) -> ModelRef:
    """Itself, unless it was found unfit: a service would wait for it, and the command for the service."""
    name, said = model.metadata.name, model.status.condition("Ready")
    known = model.status.observed_generation == model.metadata.generation
    if said and said.status == "False" and known:
        raise CommandError(f"{model.kind} {name} is not ready: {said.reason}: {said.message}")
    return ModelRef(kind="LLM" if model.kind == "LLM" else "LLMCheckpoint", name=name)


async def models_of_experiment(api: Api, name: str, namespace: str) -> list[ModelRef]:
    """The base models of an experiment, then the checkpoint of each of its jobs that has one."""
    bare = name.rpartition("/")[2]
    try:
        experiment = await api.get(FinetuneExperiment, bare, namespace)
    except NotFound:
        names = (
            ", ".join(one.metadata.name for one in await api.list(FinetuneExperiment, namespace)) or "none"
        )
        raise BadInput(f'no experiment is called "{bare}"; there are: {names}') from None
    mine = [
        job
        for job in await api.list(FinetuneJob, namespace)
        if any(owner.uid == experiment.metadata.uid for owner in job.metadata.owner_references)
    ]
    bases = [ModelRef(kind="LLM", name=llm) for llm in dict.fromkeys(job.spec.finetune.llm for job in mine)]
    made = [ModelRef(name=job.status.checkpoint) for job in mine if job.status.checkpoint]
    if not made:
        raise CommandError(f"no job of {bare} has a checkpoint yet; see dtx watch {bare}")
    return [*bases, *made]


@asynccontextmanager
async def served(
    api: Api, models: Sequence[ModelRef], namespace: str, purpose: str, say: Say
) -> AsyncIterator[str]:
    """The name of a service with all of the models, loaded. One that is made for this is deleted after it."""
    found = serving(await api.list(InferenceService, namespace), models)
    made = None
    if found is None:
        made = await _make(api, models, namespace, purpose)
        say(
            f"no service has {_words(models)}; made InferenceService {made} for now, it is deleted at the end"
        )
    name = made or found or ""
    with _told_to_go():
        try:
            await loaded(api, name, namespace, say)
            yield name
        finally:
            if made:
                with suppress(NotFound):
                    await asyncio.shield(api.delete(InferenceService, made, namespace))


@contextmanager
def _told_to_go() -> Iterator[None]:
    """SIGTERM and SIGHUP, a terminal that is closed, end the program as an exception does: what is to be
    done at the end is done."""

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def loaded(api: Api, name: str, namespace: str, say: Say) -> None:
    """Wait until all models of a service are served, and have it loaded for that; tell what it waits for."""
    try:
        async for text in loading(api, name, namespace):
            say(text)
    except NotLoaded as error:
        raise CommandError(str(error)) from None


async def _make(api: Api, models: Sequence[ModelRef], namespace: str, purpose: str) -> str:
    name = f"{purpose}-{models[0].name[:40].rstrip('-.')}-{secrets.token_hex(2)}"
    metadata = ObjectMeta(name=name, namespace=namespace, labels={MADE_BY: f"dtx-{purpose}"})
    spec = InferenceServiceSpec(models=list(models), idle_seconds=OWN_IDLE_SECONDS)
    await api.create(InferenceService(metadata=metadata, spec=spec))
    return name


def _words(models: Sequence[ModelRef]) -> str:
    names = [model.name for model in models]
    return names[0] if len(names) == 1 else f"all of {', '.join(names)}"
