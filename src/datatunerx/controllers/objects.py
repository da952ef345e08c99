"""What reconcilers do to objects: write a status, make a child, hold on with a finalizer, tell an Event."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from datatunerx.client.api import EVENTS
from datatunerx.client.errors import AlreadyExists, ApiError, Conflict, NotFound
from datatunerx.controllers.context import Context
from datatunerx.resources.enums import FinetunePhase, JobPhase, ScoringPhase
from datatunerx.resources.experiment import FinetuneExperiment
from datatunerx.resources.finetune import Finetune, FinetuneJob
from datatunerx.resources.outcome import Scoring
from datatunerx.resources.wire import (
    GROUP,
    LONG_TEXT,
    RETRY,
    SHORT_TEXT,
    ObjectMeta,
    OwnerReference,
    Resource,
    Status,
    cut,
    now,
)

log = logging.getLogger(__name__)

CHILDREN = f"{GROUP}/children"
"""Finalizer: the object stays until what it made is gone."""
WORKER = f"{GROUP}/worker"
"""Finalizer: the object stays until its worker has ended and its files are deleted."""
FILES = f"{GROUP}/files"
"""Finalizer: the object stays until its files are deleted."""
IN_USE = f"{GROUP}/in-use"
"""Finalizer: the object stays while unfinished objects need it."""
_ORPHAN = "orphan"
"""Finalizer of Kubernetes itself: the collector is still taking the object's name off its children."""
SUSPENDED_BY = f"{GROUP}/suspended-by"
"""Annotation: which object suspended this one, so that only it takes that back."""

R = TypeVar("R", bound=Resource)


class NameTaken(Exception):
    """A child cannot be made: an object of its name belongs to somebody else, or is still being deleted."""


def merge_diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch that turns `old` into `new`; empty if they are equal."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if inner := merge_diff(before, value):
                patch[key] = inner
        elif key not in old or before != value:
            patch[key] = value
    return patch


SAID = {"reason": SHORT_TEXT, "message": LONG_TEXT, "why": LONG_TEXT, "whyMissing": SHORT_TEXT}
"""Status fields that pass on what others said, with the characters they may have."""


def fitted(document: Any) -> Any:
    """The document with its SAID texts cut to what the API takes: else nothing of it could be written."""
    if isinstance(document, dict):
        return {
            key: cut(value, SAID[key]) if key in SAID and isinstance(value, str) else fitted(value)
            for key, value in document.items()
        }
    return [fitted(item) for item in document] if isinstance(document, list) else document


def status_patch(read: Resource, wanted: Resource) -> dict[str, Any]:
    """What to send so that the status becomes `wanted`'s."""
    old: Status = read.status  # type: ignore[attr-defined]
    new: Status = wanted.status  # type: ignore[attr-defined]
    # As it was on the wire: a default that was never written is not there yet.
    before = old.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
    return merge_diff(before, fitted(new.dump()))


async def write_status(context: Context, read: Resource, wanted: Resource) -> bool:
    """Write what differs; False if nothing does. Conflict if the object is not as it was read any more."""
    patch = status_patch(read, wanted)
    if not patch:
        return False
    metadata = {"uid": read.metadata.uid, "resourceVersion": read.metadata.resource_version}
    body = {"metadata": metadata, "status": patch}
    await context.api.patch_status(type(read), read.metadata.name, body, read.metadata.namespace)
    return True


async def acknowledge(context: Context, obj: Resource) -> None:
    """Of one that has ended: its spec was seen as it is now, and what its status says of it stays.

    Who waits for a condition (kubectl wait) takes none that speaks of an earlier spec.
    """
    read: Status = obj.status  # type: ignore[attr-defined]
    now_at = obj.metadata.generation
    if all(
        at == now_at for at in (read.observed_generation, *(c.observed_generation for c in read.conditions))
    ):
        return
    wanted = draft(obj)
    for condition in wanted.status.conditions:  # type: ignore[attr-defined]
        condition.observed_generation = now_at
    await write_status(context, obj, wanted)


def asked_again(obj: Finetune | FinetuneJob | Scoring) -> str | None:
    """The value by which a user asked that it be tried again, if that was not acted on yet."""
    value = cut(obj.metadata.annotations.get(RETRY, ""), SHORT_TEXT)
    return value if value and value != obj.status.retried_for else None


def note_retry(read: Finetune | FinetuneJob, wanted: Finetune | FinetuneJob) -> None:
    """Of one that has not ended: what was asked before it failed has no meaning afterwards."""
    wanted.status.retried_for = asked_again(read) or read.status.retried_for


async def ask_again(context: Context, child: Finetune | Scoring, value: str) -> bool:
    """Pass the wish on to a child that failed; True once the child has acted on it."""
    if child.status.retried_for == value:
        return True
    if child.metadata.annotations.get(RETRY) != value:
        body = {"metadata": {"annotations": {RETRY: value}}}
        await context.api.patch(type(child), child.metadata.name, body, child.metadata.namespace)
    return False


async def write_name_taken(context: Context, obj: FinetuneExperiment | FinetuneJob, error: NameTaken) -> None:
    """Say on the object itself why it cannot begin; the work is tried again all the same."""
    wanted = draft(obj)
    wanted.status.reason, wanted.status.message = "NameTaken", str(error)
    wanted.status.set_condition("Ready", False, "NameTaken", str(error))
    await write_status(context, obj, wanted)


def draft(obj: R) -> R:
    """The object with a status of its own to change, which speaks of the spec that was read."""
    status: Status = obj.status.model_copy(deep=True)  # type: ignore[attr-defined]
    status.observed_generation = obj.metadata.generation
    return obj.model_copy(update={"status": status})


def set_phase(
    wanted: Finetune | FinetuneJob | Scoring,
    phase: FinetunePhase | JobPhase | ScoringPhase,
    reason: str | None,
    message: str | None,
) -> None:
    """Where it stands and why."""
    status: Any = wanted.status
    status.phase, status.reason, status.message = phase, reason, message


def metadata_of(
    name: str,
    owners: Sequence[Resource],
    *,
    finalizers: tuple[str, ...] = (),
    annotations: Mapping[str, str] | None = None,
) -> ObjectMeta:
    """Of a child of `owners`; the first is its controller."""
    references: list[OwnerReference] = [
        owner.owner_reference(controller=place == 0) for place, owner in enumerate(owners)
    ]
    return ObjectMeta(
        name=name,
        namespace=owners[0].metadata.namespace,
        finalizers=list(finalizers),
        annotations=dict(annotations or {}),
        owner_references=references,
    )


def owner_uids(obj: Resource) -> set[str]:
    return {owner.uid for owner in obj.metadata.owner_references}


async def must_be_fresh(context: Context, obj: Resource) -> None:
    """Raise Conflict unless the object is still as it was read: nothing is made for an old reading."""
    try:
        live = await context.api.get(type(obj), obj.metadata.name, obj.metadata.namespace)
    except NotFound:
        raise Conflict(409, "Conflict", f"{obj.kind} {obj.metadata.name} is gone") from None
    if live.metadata.resource_version != obj.metadata.resource_version:
        raise Conflict(409, "Conflict", f"{obj.kind} {obj.metadata.name} changed since it was read")


async def ensure(context: Context, parent: Resource, child: R) -> R:
    """The child, made if it is not there. Raises NameTaken, and Conflict if the parent was read too early."""
    metadata = child.metadata
    found = context.world.get(type(child), metadata.namespace, metadata.name)
    if found is None:
        await must_be_fresh(context, parent)
        try:
            return await context.api.create(child)
        except AlreadyExists:
            found = await context.api.get(type(child), metadata.name, metadata.namespace)
    if parent.metadata.uid not in owner_uids(found):
        message = f"{child.kind} {metadata.name} exists and belongs to another object; delete or rename one"
        await tell(context, parent, "NameTaken", message, warning=True)
        raise NameTaken(message)
    return found


async def is_gone(context: Context, model: type[Resource], namespace: str, name: str) -> bool:
    """Whether the API, not only our view, has no such object."""
    try:
        await context.api.get(model, name, namespace)
    except NotFound:
        return True
    return False


async def hold(context: Context, obj: Resource, finalizer: str) -> bool:
    """Put the finalizer on; True if it was there already."""
    if finalizer in obj.metadata.finalizers:
        return True
    await _set_finalizers(context, obj, [*obj.metadata.finalizers, finalizer])
    return False


async def release(context: Context, obj: Resource, finalizer: str) -> None:
    """Take the finalizer off, if it is there."""
    if finalizer in obj.metadata.finalizers:
        await _set_finalizers(context, obj, [f for f in obj.metadata.finalizers if f != finalizer])


async def _set_finalizers(context: Context, obj: Resource, finalizers: list[str]) -> None:
    metadata = {"resourceVersion": obj.metadata.resource_version, "finalizers": finalizers}
    try:
        await context.api.patch(type(obj), obj.metadata.name, {"metadata": metadata}, obj.metadata.namespace)
    except NotFound:
        return


async def delete(context: Context, obj: Resource, *, as_read: bool = False) -> None:
    """Delete this very object, if it is still there and not on its way; `as_read`: and not changed since."""
    if obj.metadata.deletion_timestamp:
        return
    metadata = obj.metadata
    version = metadata.resource_version if as_read else None
    try:
        await context.api.delete(
            type(obj), metadata.name, metadata.namespace, uid=metadata.uid, version=version
        )
    except (NotFound, Conflict):
        return  # gone, changed, or another object has its name by now


def is_orphaning(obj: Resource) -> bool:
    """Whether it was deleted with the wish that its children stay, and some still name it."""
    return obj.metadata.deletion_timestamp is not None and _ORPHAN in obj.metadata.finalizers


async def leave_after(context: Context, obj: Resource, children: Sequence[Resource]) -> float | None:
    """Let a deleted object go once its children, which stop their workers, are gone."""
    if is_orphaning(obj):
        return None
    for child in children:
        # One that was orphaned meanwhile has changed, though we may not have seen it yet.
        await delete(context, child, as_read=True)
    if children:
        return context.settings.poll_seconds
    await release(context, obj, CHILDREN)
    return None


def suspended_by(parent: Resource, wanted: bool) -> dict[str, str]:
    """Annotations of a child that is made suspended because its parent is."""
    return {SUSPENDED_BY: f"{parent.kind}/{parent.metadata.name}"} if wanted else {}


async def pass_suspend(
    context: Context, parent: Resource, wanted: bool, child: FinetuneJob | Finetune
) -> None:
    """Suspend the child as the parent is; take back only a suspension that came from this parent."""
    by = f"{parent.kind}/{parent.metadata.name}"
    if wanted and not child.spec.suspend:
        note: str | None = by
    elif not wanted and child.spec.suspend and child.metadata.annotations.get(SUSPENDED_BY) == by:
        note = None
    else:
        return
    metadata = {
        "resourceVersion": child.metadata.resource_version,
        "annotations": {SUSPENDED_BY: note},
    }
    body = {"metadata": metadata, "spec": {"suspend": wanted}}
    await context.api.patch(type(child), child.metadata.name, body, child.metadata.namespace)


async def tell(context: Context, obj: Resource, reason: str, message: str, *, warning: bool = False) -> None:
    """Tell an Event about the object. Its name is made from what it says: saying it again changes nothing."""
    metadata = obj.metadata
    about = {
        "apiVersion": obj.api_version,
        "kind": obj.kind,
        "name": metadata.name,
        "namespace": metadata.namespace,
        "uid": metadata.uid,
    }
    await tell_about(context, about, reason, message, warning=warning)


async def tell_about(
    context: Context, about: Mapping[str, str], reason: str, message: str, *, warning: bool = False
) -> None:
    """`tell`, of an object that is known by reference only."""
    said = hashlib.sha256(f"{about['uid']} {reason} {message}".encode()).hexdigest()[:16]
    at = now()
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{about['name'][:200]}.{said}", "namespace": about["namespace"]},
        "involvedObject": dict(about),
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "message": cut(message, 1024),
        "source": {"component": "datatunerx"},
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
    try:
        await context.api.create_raw(EVENTS, event, about["namespace"])
    except AlreadyExists:
        return
    except ApiError as error:
        # An Event is a courtesy: the status holds the truth and must not wait for it.
        log.warning("event not told", extra={"object": about["name"], "error": str(error)})
