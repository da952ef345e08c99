"""Who needs an LLM, a Dataset, a Hyperparameter or a plugin; what is needed stays until all are done."""

from collections.abc import Iterator
from typing import TypeVar

from datatunerx.controllers.context import Context, World
from datatunerx.controllers.objects import IN_USE, hold, release
from datatunerx.resources.enums import ScoringPhase
from datatunerx.resources.experiment import FinetuneExperiment
from datatunerx.resources.finetune import Finetune, FinetuneJob, FinetuneSpec, Measure
from datatunerx.resources.material import LLM, DataPlugin, Dataset, Hyperparameter
from datatunerx.resources.outcome import InferenceService, LLMCheckpoint, Scoring, ScoringPlugin
from datatunerx.resources.wire import Resource
from datatunerx.runs.compile import combinations

Used = TypeVar("Used", bound=LLM | Dataset | Hyperparameter | DataPlugin | ScoringPlugin)
Needs = set[tuple[str, str]]
"""(kind, name)"""


def of_finetune(spec: FinetuneSpec) -> Needs:
    needs = {("LLM", spec.llm), ("Dataset", spec.dataset), ("Hyperparameter", spec.hyperparameter.ref)}
    return needs | ({("LLMCheckpoint", spec.resume_from)} if spec.resume_from else set())


def _measure(measure: Measure) -> Needs:
    dataset = {("Dataset", measure.dataset)} if measure.dataset else set()
    return dataset | {("ScoringPlugin", use.ref) for use in measure.plugins}


def needs(obj: Resource) -> Needs:
    """What the object itself refers to."""
    match obj:
        case FinetuneExperiment():
            found = _measure(obj.spec.scoring)
            for c in combinations(obj):
                found |= {("LLM", c.llm), ("Dataset", c.dataset), ("Hyperparameter", c.hyperparameter.ref)}
            return found
        case FinetuneJob():
            return of_finetune(obj.spec.finetune) | _measure(obj.spec.scoring)
        case Finetune():
            return of_finetune(obj.spec)
        case Scoring():
            model = {(obj.spec.model.kind, obj.spec.model.name)} if obj.spec.model else set()
            data = {("Dataset", obj.spec.dataset)} if obj.spec.dataset else set()
            return model | data | _measure(obj.spec.measure)
        case Dataset():
            counts = {("LLM", obj.spec.llm)} if obj.spec.llm else set()
            return counts | ({("DataPlugin", obj.spec.plugin.ref)} if obj.spec.plugin else set())
        case Hyperparameter():
            return {("Hyperparameter", obj.spec.extends)} if obj.spec.extends else set()
        case InferenceService():
            return {(model.kind, model.name) for model in obj.spec.models}
    return set()


def _unfinished(world: World, namespace: str) -> Iterator[Resource]:
    """Whoever may yet need something. What belongs to another object is spoken for by its owner."""
    for experiment in world.all(FinetuneExperiment, namespace):
        if not experiment.status.phase.terminal:
            yield experiment
    for job in world.all(FinetuneJob, namespace):
        if not job.status.phase.terminal and not job.metadata.owner_references:
            yield job
    for finetune in world.all(Finetune, namespace):
        if not finetune.status.phase.terminal and not finetune.metadata.owner_references:
            yield finetune
    for scoring in world.all(Scoring, namespace):
        ended = scoring.status.phase in (ScoringPhase.SUCCEEDED, ScoringPhase.FAILED)
        if not ended and not scoring.metadata.owner_references:
            yield scoring
    yield from world.all(Dataset, namespace)
    yield from world.all(Hyperparameter, namespace)
    yield from world.all(InferenceService, namespace)


def users_of(world: World, obj: Used | LLMCheckpoint) -> list[str]:
    """Kind/name of each unfinished user."""
    wanted = (obj.kind, obj.metadata.name)
    found = [
        f"{user.kind}/{user.metadata.name}"
        for user in _unfinished(world, obj.metadata.namespace)
        if wanted in needs(user) and user.metadata.uid != obj.metadata.uid
    ]
    return sorted(found)[:1000]


async def keep_while_used(context: Context, obj: Used, wanted: Used) -> bool:
    """Set usedBy and the finalizer; on a deletion the InUse condition. True if nothing else is to be done."""
    users = users_of(context.world, obj)
    wanted.status.used_by = users
    deleting = obj.metadata.deletion_timestamp is not None
    if not users:
        held = IN_USE in obj.metadata.finalizers
        await release(context, obj, IN_USE)
        return deleting or held
    if deleting:
        message = f"deleted when these are done or deleted: {', '.join(users[:20])}"
        wanted.status.set_condition("InUse", True, "InUse", message)
        return False
    # Only a finalizer that is on before the deletion can hold the object.
    return not await hold(context, obj, IN_USE)
