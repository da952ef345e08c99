"""Who has to look again when an object has changed. Too many is harmless, too few costs a resync's time."""

from collections.abc import Iterator
from typing import NamedTuple

from datatunerx.client.informer import Key
from datatunerx.controllers.context import World
from datatunerx.controllers.placement import is_waiting
from datatunerx.controllers.users import needs
from datatunerx.resources.experiment import FinetuneExperiment
from datatunerx.resources.finetune import Finetune, FinetuneJob
from datatunerx.resources.material import LLM, DataPlugin, Dataset, Hyperparameter
from datatunerx.resources.outcome import InferenceService, LLMCheckpoint, Run, Scoring, ScoringPlugin
from datatunerx.resources.wire import Resource
from datatunerx.runs.exporting import CHECKPOINT

PLACEMENT = "Placement"


class Wake(NamedTuple):
    controller: str
    """A kind, or Placement."""
    key: Key


def wakes(world: World, old: Resource | None, new: Resource | None) -> Iterator[Wake]:
    """`old` is None when the object was added, `new` when it was deleted."""
    obj = new or old
    assert obj is not None
    namespace = obj.metadata.namespace
    yield Wake(obj.kind, Key(namespace, obj.metadata.name))
    for owner in obj.metadata.owner_references:
        yield Wake(owner.kind, Key(namespace, owner.name))
    if _matters_to_what_it_needs(old, new):
        for kind, name in needs(obj) | (needs(old) if old else set()):  # also what it needs no longer
            yield Wake(kind, Key(namespace, name))
    if isinstance(obj, Finetune | Run | LLM | Dataset | Hyperparameter | ScoringPlugin):
        yield Wake(PLACEMENT, Key(namespace, ""))
    if old is None and isinstance(obj, FinetuneJob | FinetuneExperiment):
        yield Wake(PLACEMENT, Key(namespace, ""))  # a training may have waited for it to be seen
    if isinstance(obj, LLM | Dataset | Hyperparameter | LLMCheckpoint | DataPlugin | ScoringPlugin):
        for user in _possible_users(world, namespace):
            # A group extends groups: any of them may matter to any training.
            if isinstance(obj, Hyperparameter) or (obj.kind, obj.metadata.name) in needs(user):
                yield Wake(user.kind, Key(namespace, user.metadata.name))
    if isinstance(obj, LLMCheckpoint):
        yield Wake("LLM", Key(namespace, obj.metadata.name))  # may have been named as a base before it was
        for llm in world.all(LLM, namespace):
            if llm.spec.source == f"{CHECKPOINT}{obj.metadata.name}":
                yield Wake("LLM", Key(namespace, llm.metadata.name))
    if isinstance(obj, Run):
        if new is None or obj.status.phase.terminal:
            # Devices know no namespaces: whoever waits for one may go on.
            for waiting in {f.metadata.namespace for f in world.all(Finetune, None) if is_waiting(f)}:
                yield Wake(PLACEMENT, Key(waiting, ""))
        if _is_news(old, obj):
            # What waits for a device may have a service give up its own.
            for service in world.all(InferenceService, None):
                yield Wake("InferenceService", Key(service.metadata.namespace, service.metadata.name))
        for scoring in world.all(Scoring, namespace):
            if obj.metadata.name in (scoring.spec.run, scoring.status.run):
                yield Wake("Scoring", Key(namespace, scoring.metadata.name))
    if isinstance(obj, Scoring):
        for other in world.all(Scoring, namespace):
            if obj.metadata.name in other.spec.compare_with:
                yield Wake("Scoring", Key(namespace, other.metadata.name))
    if isinstance(obj, Finetune) and obj.metadata.owner_references:
        job = obj.metadata.owner_references[0]
        if job.kind == "FinetuneJob":
            yield from _experiment_of(world, namespace, job.name)


def _possible_users(world: World, namespace: str) -> Iterator[Resource]:
    yield from world.all(Finetune, namespace)
    yield from world.all(Scoring, namespace)
    yield from world.all(Dataset, namespace)
    yield from world.all(Hyperparameter, namespace)
    yield from world.all(InferenceService, namespace)


def _is_news(old: Resource | None, run: Run) -> bool:
    if not isinstance(old, Run):
        return True
    return (old.status.phase, old.status.reason) != (run.status.phase, run.status.reason)


def _experiment_of(world: World, namespace: str, job_name: str) -> Iterator[Wake]:
    job = world.get(FinetuneJob, namespace, job_name)
    for owner in job.metadata.owner_references if job else []:
        yield Wake(owner.kind, Key(namespace, owner.name))


def _matters_to_what_it_needs(old: Resource | None, new: Resource | None) -> bool:
    """Whether what the object needs may now have one user more or less."""
    if old is None or new is None:
        return True
    phases = [getattr(obj.status, "phase", None) for obj in (old, new)]  # type: ignore[attr-defined]
    changed = old.metadata.generation != new.metadata.generation
    return changed or phases[0] != phases[1]
