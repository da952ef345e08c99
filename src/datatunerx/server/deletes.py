"""Delete: at once, or held by finalizers until someone lets go."""

from typing import Any

import orjson

from datatunerx.server import body, builtin, reads, writes
from datatunerx.server.errors import Json, bad_request, conflict, forbidden, from_store, not_found
from datatunerx.server.http import Request
from datatunerx.server.kinds import Kind
from datatunerx.server.writes import Target, now
from datatunerx.store import Entry, Store, StoreError

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
_FINALIZER_OF = {"Background": None, "Foreground": FOREGROUND, "Orphan": ORPHAN}


def policy_of(options: Json) -> str:
    """Background unless said otherwise; 400 for a word we do not know."""
    policy = options.get("propagationPolicy")
    if policy is None and "orphanDependents" in options:
        return "Orphan" if str(options["orphanDependents"]).lower() == "true" else "Background"
    if policy is not None and policy not in _FINALIZER_OF:
        raise bad_request(f'propagationPolicy: "{policy}" is not one of Background, Foreground, Orphan')
    return policy or "Background"


async def delete(store: Store, target: Target, request: Request, own: frozenset[str]) -> bytes:
    """DELETE of one object: what to answer. `own` are the resources whose kinds may not be removed."""
    options = await body.delete_options(request)
    dry = _is_dry(options, request)
    entry = store.latest(target.key)
    if entry is None:
        raise not_found(target.kind.resource, target.name)
    _preconditions(target, options.get("preconditions") or {}, entry.decode()["metadata"])
    if target.kind.resource == builtin.CRDS and target.name in own:
        raise forbidden(
            f"{target.name} is a kind of this server's own and cannot be removed", builtin.CRDS, target.name
        )
    if target.kind.resource == builtin.NAMESPACES and target.name == "default":
        raise forbidden(
            'namespaces "default" is forbidden: this namespace may not be deleted', "namespaces", "default"
        )
    try:
        return await remove(store, target.kind, entry, policy_of(options), dry=dry)
    except StoreError as error:
        raise from_store(error, target.kind.resource, target.name) from error


def _is_dry(options: Json, request: Request) -> bool:
    wanted = options.get("dryRun") or []
    if wanted not in ([], ["All"]):
        raise bad_request("dryRun: must be empty or [All]")
    return bool(wanted) or writes.dry_run(request)


def _preconditions(target: Target, wanted: Json, live: Json) -> None:
    for field, name in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        if wanted.get(field) and wanted[field] != live[field]:
            why = (
                f"Precondition failed: {name} in precondition: {wanted[field]}, in object meta: {live[field]}"
            )
            raise conflict(target.kind.resource, target.name, why)


async def remove(store: Store, kind: Kind, entry: Entry, policy: str, *, dry: bool = False) -> bytes:
    """Delete an object, or mark it as being deleted while finalizers hold it. Raises StoreError."""
    obj = entry.decode()
    meta = obj["metadata"]
    finalizers = [f for f in meta.get("finalizers") or [] if f not in (FOREGROUND, ORPHAN)]
    if wanted := _FINALIZER_OF[policy]:
        finalizers.append(wanted)
    held = bool(finalizers) or kind.resource in (builtin.NAMESPACES, builtin.CRDS)
    if not held:
        if not dry:
            await store.delete(entry.key, obj, entry.version)
        return orjson.dumps(success(kind, obj))
    before = dict(meta)
    if finalizers:
        meta["finalizers"] = finalizers
    else:
        meta.pop("finalizers", None)
    if "deletionTimestamp" not in meta:
        meta |= {"deletionTimestamp": now(), "deletionGracePeriodSeconds": 0}
        if "generation" in meta:
            meta["generation"] += 1
        if kind.resource == builtin.NAMESPACES:
            obj["status"] = {"phase": "Terminating"}
    if dry or meta == before:
        return orjson.dumps(obj)
    return (await store.write(entry.key, obj, entry.version)).data


def success(kind: Kind, obj: Json) -> Json:
    """The Status that says an object is gone; kubectl waits for its uid to vanish."""
    meta = obj["metadata"]
    details = {"name": meta["name"], "group": kind.group, "kind": kind.plural, "uid": meta["uid"]}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


async def delete_collection(store: Store, kind: Kind, namespace: str | None, request: Request) -> Json:
    """DELETE of everything the selectors choose; those held by finalizers are marked."""
    options = await body.delete_options(request)
    policy, dry = policy_of(options), _is_dry(options, request)
    items: list[Any] = []
    for chosen in reads.entries(store, kind, namespace, request):
        entry = store.latest(chosen.key)
        if entry is None:
            continue
        try:
            await remove(store, kind, entry, policy, dry=dry)
        except StoreError as error:
            raise from_store(error, kind.resource, chosen.key.name) from error
        items.append(reads.listed(kind, chosen.data))
    head = {"kind": f"{kind.name}List", "apiVersion": kind.api_version}
    return head | {"metadata": {"resourceVersion": str(store.version)}, "items": items}
