"""What a service is to serve, by base: each model resolved to its files, or why not. Changes nothing."""

from dataclasses import dataclass

from datatunerx.controllers.context import World
from datatunerx.controllers.readiness import Waiting, ready_model
from datatunerx.resources.material import LLM
from datatunerx.resources.outcome import InferenceService, LLMCheckpoint, ModelRef
from datatunerx.runs.plan import ServedModel
from datatunerx.runs.serving import BaseSize, ServedBase

SHOWN_NAMES = 20


@dataclass(frozen=True)
class Resolved:
    """One model of a service with the files that it is."""

    base_digest: str
    base_uri: str
    size: BaseSize
    model: ServedModel


def resolve(world: World, service: InferenceService) -> dict[tuple[str, str], Resolved | Waiting]:
    """Every model of the service by (kind, name)."""
    found: dict[tuple[str, str], Resolved | Waiting] = {}
    names: set[str] = set()
    for ref in sorted(
        service.spec.models, key=lambda ref: ref.kind
    ):  # an LLM before a checkpoint of its name
        one = _resolve(world, service.metadata.namespace, ref)
        if ref.name in names and isinstance(one, Resolved):
            one = Waiting(
                "NameTaken", f"the service has an LLM {ref.name!r} too; serve one of them elsewhere"
            )
        names.add(ref.name)
        found[ref.kind, ref.name] = one
    return found


def bases(resolved: dict[tuple[str, str], Resolved | Waiting]) -> list[ServedBase]:
    """One per base digest, in order of digest; models in order of name."""
    shared: dict[str, list[Resolved]] = {}
    for one in resolved.values():
        if isinstance(one, Resolved):
            shared.setdefault(one.base_digest, []).append(one)
    return [
        ServedBase(
            digest=digest,
            uri=members[0].base_uri,
            size=max(member.size for member in members),
            models=tuple(sorted((member.model for member in members), key=lambda model: model.name)),
        )
        for digest, members in sorted(shared.items())
    ]


def _resolve(world: World, namespace: str, ref: ModelRef) -> Resolved | Waiting:
    if ref.kind == "LLM":
        return _base(world, namespace, ref.name)
    return _checkpoint(world, namespace, ref.name)


def _base(world: World, namespace: str, name: str) -> Resolved | Waiting:
    llm = ready_model(world, namespace, name)
    if isinstance(llm, Waiting):
        if llm.reason == "LLMNotFound":
            return Waiting(llm.reason, f"{llm.message}; {_there_are(world, namespace, LLM)}")
        return llm
    status = llm.status
    assert status.digest and status.local_uri, f"{name} was not inspected"
    model = ServedModel(name=name, base_digest=status.digest, template=llm.spec.template)
    return Resolved(status.digest, status.local_uri, _size(llm), model)


def _checkpoint(world: World, namespace: str, name: str) -> Resolved | Waiting:
    checkpoint = world.get(LLMCheckpoint, namespace, name)
    if checkpoint is None:
        there = _there_are(world, namespace, LLMCheckpoint)
        return Waiting(
            "LLMCheckpointNotFound", f"there is no LLMCheckpoint {name!r} in namespace {namespace}; {there}"
        )
    said = checkpoint.status.condition("Ready")
    if said is None or said.status != "True":
        why = f"{said.reason}: {said.message}" if said else "its files have not been looked at yet"
        return Waiting(
            "LLMCheckpointNotReady", f"LLMCheckpoint {name} is not ready: {why}", under_way=said is None
        )
    base = _base_of(world, checkpoint)
    if isinstance(base, Waiting):
        return base
    digest, uri, size = base
    model = ServedModel(
        name=name,
        adapter_uri=checkpoint.spec.uri,
        adapter_digest=checkpoint.spec.manifest_digest,
        base_digest=digest,
    )
    return Resolved(digest, uri, size, model)


def _base_of(world: World, checkpoint: LLMCheckpoint) -> tuple[str, str, BaseSize] | Waiting:
    """Digest, folder and size of what it was trained on, whatever the LLM of that name is by now."""
    spec, namespace = checkpoint.spec, checkpoint.metadata.namespace
    if not spec.base_digest:
        named = ready_model(world, namespace, spec.llm)
        if isinstance(named, Waiting):
            return named
        return named.status.digest or "", named.status.local_uri or "", _size(named)
    for llm in world.all(LLM, namespace):
        if llm.status.digest == spec.base_digest and llm.status.local_uri:
            return spec.base_digest, llm.status.local_uri, _size(llm)
    if spec.base_uri:
        return spec.base_digest, spec.base_uri, BaseSize()
    return Waiting(
        "BaseNotFound",
        f"LLMCheckpoint {checkpoint.metadata.name} was trained on base {spec.base_digest[:12]}, "
        f"which no LLM in namespace {namespace} is; apply LLM {spec.llm} as it was",
    )


def _size(llm: LLM) -> BaseSize:
    return BaseSize(llm.status.parameters or 0, llm.status.cache_width or 0)


def _there_are(world: World, namespace: str, model: type[LLM] | type[LLMCheckpoint]) -> str:
    names = [obj.metadata.name for obj in world.all(model, namespace)]
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return f"there are: {', '.join(names[:SHOWN_NAMES])}{more}" if names else "there is none"
