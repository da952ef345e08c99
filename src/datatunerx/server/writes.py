"""Create, replace, patch, apply, scale: from a request to one compare-and-set in the store.

Everything between reading the staged object and staging the next one runs without awaiting, so two requests
can never race: the later one starts from what the earlier one staged.
"""

import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace as replaced

import orjson

from datatunerx.server import (
    admission,
    apply,
    body,
    builtin,
    local_files,
    managed,
    negotiate,
    patches,
    structural,
)
from datatunerx.server.errors import (
    Json,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    from_store,
    invalid,
    no_such_path,
    not_found,
    required,
    too_large,
    unsupported_media,
    wrong,
)
from datatunerx.server.http import MAX_BODY, Request
from datatunerx.server.kinds import Kind
from datatunerx.server.managed import Manager
from datatunerx.store import Entry, Key, Store, StoreError

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_SERVER_SET = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


@dataclass(frozen=True)
class Target:
    """What a write aims at."""

    kind: Kind
    namespace: str
    name: str
    subresource: str = ""

    @property
    def key(self) -> Key:
        return Key(self.kind.stored_as, self.namespace, self.name)


def now() -> str:
    """The time as objects carry it: whole seconds, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def dry_run(request: Request) -> bool:
    """Whether nothing may be stored; 400 for a value we do not know."""
    value = request.query.get("dryRun", "")
    if value not in ("", "All"):
        raise bad_request(f'dryRun: "{value}" is not All')
    return value == "All"


def _writer(request: Request, target: Target, operation: str = "Update") -> Manager:
    name = request.query.get("fieldManager") or request.agent
    if len(name) > 128:
        raise bad_request("fieldManager: may not be longer than 128 characters")
    return Manager(name, operation, target.kind.api_version, target.subresource, now(), {})


async def commit(store: Store, target: Target, new: Json, expected: int) -> Entry:
    """Store one version; refusals of the store become answers. 413 when many writes made it too large."""
    if len(orjson.dumps(new)) > MAX_BODY:
        raise too_large(MAX_BODY)
    try:
        return await store.write(target.key, new, expected)
    except StoreError as error:
        raise from_store(error, target.kind.resource, target.name) from error


async def create(store: Store, kind: Kind, namespace: str, request: Request) -> bytes:
    """POST: the stored object's bytes."""
    obj = await body.read(request, kind)
    if (view := kind.facade) and view.of and view.take:
        obj, kind = view.take(obj), view.of
    name = str(obj["metadata"].get("name") or "")
    return await _create(store, Target(kind, namespace, name), obj, request, None)


async def _create(
    store: Store, target: Target, obj: Json, request: Request, managers: list[Manager] | None
) -> bytes:
    kind, meta = target.kind, obj["metadata"]
    if kind.namespaced:
        _check_namespace(store, kind, target.namespace, meta)
    elif meta.pop("namespace", None):
        raise bad_request(f"metadata.namespace: {kind.plural} have no namespace")
    if meta.get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    for field in (
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "generation",
        "selfLink",
        "resourceVersion",
    ):
        meta.pop(field, None)
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = str(meta["generateName"])[:58] + "".join(random.choices(_SUFFIX, k=5))
        target = Target(kind, target.namespace, meta["name"])
    meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
    if not kind.builtin:
        meta["generation"] = 1
    claimed = meta.pop("managedFields", None)
    if kind.has_status:
        obj.pop("status", None)
    admission.decode(kind, obj, request)
    admission.validate(kind, obj, None)
    confined = local_files.judge(kind, obj, None, request.user, request.allowed_paths)
    local_files.mark(obj, False)
    if store.latest(target.key) is not None:
        raise already_exists(kind.resource, target.name)
    if managers is None:
        before = managed.read(claimed) if claimed else []
        managers = managed.after_update(before, kind, None, obj, _writer(request, target))
    meta["managedFields"] = managed.write(managers, claimed)
    local_files.mark(obj, confined)
    if dry_run(request):
        return orjson.dumps(obj)
    return (await commit(store, target, obj, 0)).data


def _check_namespace(store: Store, kind: Kind, namespace: str, meta: Json) -> None:
    given = meta.setdefault("namespace", namespace)
    if given != namespace:
        raise bad_request(
            f"the namespace of the provided object does not match the namespace sent on the request: "
            f'"{given}" is not "{namespace}"'
        )
    entry = store.latest(Key(builtin.NAMESPACES, "", namespace))
    if entry is None:
        raise not_found(builtin.NAMESPACES, namespace)
    if b'"deletionTimestamp"' in entry.data and entry.decode()["metadata"].get("deletionTimestamp"):
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        name = str(meta.get("name", ""))
        raise forbidden(f'{kind.resource} "{name}" is forbidden: {why}', kind.resource, name)


Change = Callable[[Json], Json]


async def change(
    store: Store,
    target: Target,
    request: Request,
    make: Change,
    *,
    managers: Callable[[], list[Manager]] | None = None,
) -> bytes:
    """Apply `make` to a fresh copy of the staged object and store what comes out, fully checked."""
    entry = store.latest(target.key)
    if entry is None:
        raise not_found(target.kind.resource, target.name)
    new = make(entry.decode())
    return await settle(store, target, request, entry, new, managers)


async def settle(
    store: Store,
    target: Target,
    request: Request,
    entry: Entry,
    new: Json,
    managers: Callable[[], list[Manager]] | None = None,
) -> bytes:
    """Make `new` the successor of `entry`. What changes nothing is not stored; what was held is let go."""
    kind, live = target.kind, entry.decode()
    new = body.checked(new, kind)
    _preconditions(target, new["metadata"], live["metadata"])
    admission.decode(kind, new, request)
    claimed = new["metadata"].get("managedFields", live["metadata"].get("managedFields") or [])
    new = _keep(kind, new, live, target.subresource)
    admission.validate(kind, new, live)
    local_files.mark(new, local_files.judge(kind, new, live, request.user, request.allowed_paths))
    if managers is None:
        found = managed.after_update(managed.read(claimed), kind, live, new, _writer(request, target))
    else:
        found = managers()
    new["metadata"]["managedFields"] = managed.write(found, live["metadata"].get("managedFields"))
    if new == live:  # an entry of managedFields whose fields are the same has kept its time
        return entry.data
    if not kind.builtin and _content(kind, new) != _content(kind, live):
        new["metadata"]["generation"] = int(live["metadata"].get("generation", 0)) + 1
    if dry_run(request):
        return orjson.dumps(new)
    if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers") and not _held(kind):
        return await _let_go(store, target, new, entry)
    return (await commit(store, target, new, entry.version)).data


def _held(kind: Kind) -> bool:
    # A namespace goes when it is empty, not when it has no finalizers; a kind goes after its objects.
    return kind.resource in (builtin.NAMESPACES, builtin.CRDS)


async def _let_go(store: Store, target: Target, last: Json, entry: Entry) -> bytes:
    try:
        return (await store.delete(target.key, last, entry.version)).data
    except StoreError as error:
        raise from_store(error, target.kind.resource, target.name) from error


def _preconditions(target: Target, meta: Json, live: Json) -> None:
    if meta.get("name", target.name) != target.name:
        raise bad_request(
            f"the name of the object ({meta['name']}) does not match the name on the URL ({target.name})"
        )
    if meta.get("namespace", target.namespace) != target.namespace:
        raise bad_request(
            f"the namespace of the object ({meta['namespace']}) does not match the namespace on the request"
        )
    version = meta.get("resourceVersion")
    if version and version != live["resourceVersion"]:
        raise conflict(target.kind.resource, target.name)
    if meta.get("uid") and meta["uid"] != live["uid"]:
        why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {live['uid']}"
        raise conflict(target.kind.resource, target.name, why)


def _keep(kind: Kind, new: Json, live: Json, subresource: str) -> Json:
    """`new` with what this endpoint may not change taken from `live`."""
    if subresource == "status":
        kept = {name: value for name, value in live.items() if name != "status"}
        kept["metadata"] = dict(live["metadata"])
        return kept | ({"status": new["status"]} if "status" in new else {})
    if kind.has_status and kind.resource != builtin.CRDS:
        new.pop("status", None)
        if "status" in live:
            new["status"] = live["status"]
    meta = new["metadata"]
    for field in (*_SERVER_SET, "generation", "resourceVersion"):
        meta.pop(field, None)
        if field in live["metadata"]:
            meta[field] = live["metadata"][field]
    for field in ("labels", "annotations", "finalizers", "ownerReferences"):
        if field in meta and not meta[field]:
            del meta[field]
    return new


def _content(kind: Kind, obj: Json) -> Json:
    left_out = ("metadata", "status") if kind.has_status else ("metadata",)
    return {name: value for name, value in obj.items() if name not in left_out}


async def replace(store: Store, target: Target, request: Request) -> bytes:
    """PUT."""
    new = await body.read(request, target.kind)
    if (view := target.kind.facade) and view.of and view.take:
        new, target = view.take(new), replaced(target, kind=view.of)
    entry = store.latest(target.key)
    if entry is None:
        raise not_found(target.kind.resource, target.name)
    if not new["metadata"].get("resourceVersion") and not target.kind.builtin:
        why = wrong("metadata.resourceVersion", "", "must be specified for an update")
        raise invalid(target.kind.group_kind, target.name, [why])
    return await settle(store, target, request, entry, new)


async def patch(store: Store, target: Target, request: Request) -> tuple[int, bytes]:
    """PATCH of any type: (201 when an apply created the object, else 200; the object's bytes)."""
    found = negotiate.content_type(request.header("content-type"))
    accepted = [body.JSON_PATCH, body.MERGE, body.APPLY]
    if target.kind.builtin:
        accepted.append(body.STRATEGIC)
    if found not in accepted:
        raise unsupported_media(found, accepted)
    if "force" in request.query and found != body.APPLY:
        raise bad_request("force: Forbidden: may not be specified for non-apply patch")
    raw = await request.body()
    data = body.parse(raw, yaml=found == body.APPLY)
    if found != body.JSON_PATCH:
        body.note_doubled(request, raw, yaml=found == body.APPLY)
    view = target.kind.facade
    if found == body.APPLY:
        if view and view.of and view.take:
            data, target = view.take(body.checked(data, target.kind)), replaced(target, kind=view.of)
        return await _apply(store, target, request, data)
    if found != body.JSON_PATCH and not isinstance(data, dict):
        raise bad_request("a merge patch must be an object")

    kind = target.kind

    def make(live: Json) -> Json:
        live = view.show(live) if view else live
        if found == body.JSON_PATCH:
            new = patches.json_patch(live, data)
        elif found == body.MERGE:
            new = patches.merge_patch(live, data)
        else:
            new = patches.strategic_patch(live, data)
        new = body.checked(new, kind)
        return view.take(new) if view and view.take else new

    if view and view.of:
        target = replaced(target, kind=view.of)
    return 200, await change(store, target, request, make)


async def _apply(store: Store, target: Target, request: Request, data: object) -> tuple[int, bytes]:
    if not request.query.get("fieldManager"):
        raise bad_request("fieldManager: is required for apply patch")
    config = body.checked(data, target.kind)
    meta = config["metadata"]
    if meta.get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    if meta.setdefault("name", target.name) != target.name:
        raise bad_request(
            f"metadata.name ({meta['name']}) does not match the name on the URL ({target.name})"
        )
    if target.namespace:
        meta.setdefault("namespace", target.namespace)
    _decode_config(target.kind, config, request)
    writer = _writer(request, target, "Apply")
    entry = store.latest(target.key)
    force = request.flag("force")
    if entry is None:
        if target.subresource:
            raise not_found(target.kind.resource, target.name)
        if meta.get("uid") or meta.get("resourceVersion"):
            raise conflict(target.kind.resource, target.name, "the object to apply to does not exist")
        obj, managers = apply.apply(target.kind, None, config, [], writer, force=force)
        return 201, await _create(store, target, obj, request, managers)
    live = entry.decode()
    _preconditions(target, meta, live["metadata"])
    before = managed.read(live["metadata"].get("managedFields") or [])
    new, managers = apply.apply(target.kind, live, config, before, writer, force=force)
    return 200, await settle(store, target, request, entry, new, lambda: managers)


def _decode_config(kind: Kind, config: Json, request: Request) -> None:
    """Unknown fields are judged in what was sent: defaults must not become owned."""
    admission.judge_fields(structural.prune(config, kind.full_schema), request)
    if causes := list(structural.duplicates(config, kind.full_schema)):
        raise invalid(kind.group_kind, config["metadata"]["name"], causes)


def scale_of(kind: Kind, obj: Json) -> Json:
    """The autoscaling/v1 Scale of an object; 404 when the kind has none."""
    if kind.scale is None:
        raise no_such_path()
    told = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    meta = {name: obj["metadata"][name] for name in told if name in obj["metadata"]}
    status: Json = {"replicas": _at(obj, kind.scale.status) or 0}
    if kind.scale.selector:
        status["selector"] = _at(obj, kind.scale.selector) or ""
    spec = {"replicas": _at(obj, kind.scale.spec) or 0}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status}


def _at(obj: Json, path: tuple[str, ...]) -> object:
    value: object = obj
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


async def write_scale(store: Store, target: Target, request: Request) -> Json:
    """PUT or PATCH of /scale: the new Scale."""
    kind = target.kind
    found = negotiate.content_type(request.header("content-type")) or "application/json"
    accepted = ("application/json",) if request.method == "PUT" else (body.MERGE, body.JSON_PATCH)
    if found not in accepted:
        raise unsupported_media(found, accepted)
    data = body.parse(await request.body())
    plain = Target(kind, target.namespace, target.name)

    def make(live: Json) -> Json:
        scale = scale_of(kind, live)
        if found == body.JSON_PATCH:
            wanted = patches.json_patch(scale, data)
        else:
            wanted = patches.merge_patch(scale, data) if found == body.MERGE else data
        if not isinstance(wanted, dict):
            raise bad_request("the body must be a Scale")
        replicas = _at(wanted, ("spec", "replicas"))
        if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
            raise invalid("Scale.autoscaling", target.name, [required("spec.replicas")])
        version = _at(wanted, ("metadata", "resourceVersion"))
        if version and version != live["metadata"]["resourceVersion"]:
            raise conflict(kind.resource, target.name)
        assert kind.scale is not None
        place = live
        for name in kind.scale.spec[:-1]:
            place = place.setdefault(name, {})
        place[kind.scale.spec[-1]] = replicas
        return live

    return scale_of(kind, orjson.loads(await change(store, plain, request, make)))


async def ensure(store: Store, kind: Kind, entry: Entry | None, manifest: Json) -> None:
    """Make an object of the server's own say what `manifest` says; nothing is written when it does."""
    obj: Json = orjson.loads(orjson.dumps(manifest))
    meta = obj["metadata"]
    live = entry.decode() if entry else None
    if live:
        meta |= {**live["metadata"], "labels": meta.get("labels") or live["metadata"].get("labels") or {}}
    else:
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
    builtin.fill(kind, obj)
    if not meta.get("labels"):
        meta.pop("labels", None)
    if obj != live:
        await store.write(Key(kind.resource, "", meta["name"]), obj, entry.version if entry else 0)
