"""Server-side apply: merge what a manager wants into what there is, without treading on other managers."""

import copy
from dataclasses import replace
from typing import Any

from datatunerx.server import fieldsets, managed
from datatunerx.server.errors import Cause, Json, apply_conflict
from datatunerx.server.fieldsets import HERE, Tree, children
from datatunerx.server.kinds import Kind
from datatunerx.server.managed import Manager
from datatunerx.server.structural import item_key, list_keys

FIRST = "before-first-apply"


def apply(
    kind: Kind, live: Json | None, config: Json, managers: list[Manager], writer: Manager, *, force: bool
) -> tuple[Json, list[Manager]]:
    """(the object after the apply, its managers). 409 when another manager owns what would change."""
    schema = kind.full_schema
    wanted = managed.view(kind, config, writer.subresource)
    owned = fieldsets.fields_of(wanted, schema, containers=False) if wanted else {}
    if live is None:
        return config, [writer.owning(owned)] if owned else []
    current = managed.view(kind, live, writer.subresource)
    if not managers and current:
        everything = fieldsets.fields_of(current, schema, containers=True)
        managers = [replace(writer, name=FIRST, operation="Update", fields=everything)]
    merged = merge(current, wanted, schema)
    changed, _ = fieldsets.changes(current, merged, schema)
    others = [manager for manager in managers if manager.identity != writer.identity]
    conflicts = _conflicts(others, changed)
    if conflicts and not force:
        raise apply_conflict(conflicts)
    if conflicts:
        others = [m.owning(left) for m in others if (left := fieldsets.minus(m.fields, changed))]
    last = next((manager.fields for manager in managers if manager.identity == writer.identity), {})
    kept = owned
    for manager in others:
        kept = fieldsets.union(kept, manager.fields)
    merged = remove(merged, fieldsets.minus(last, owned), kept, schema)
    removed = fieldsets.changes(current, merged, schema)[1]
    others = [m.owning(left) for m in others if (left := fieldsets.without(m.fields, removed))]
    new = _back(kind, live, merged or {}, writer.subresource)
    return new, [*others, writer.owning(owned)] if owned else others


def _conflicts(others: list[Manager], changed: Tree) -> list[Cause]:
    found = []
    for manager in others:
        version = (
            f" using {manager.api_version}" if manager.operation == "Update" or manager.subresource else ""
        )
        for path in fieldsets.leaves(fieldsets.common(manager.fields, changed)):
            message = f'conflict with "{manager.name}"{version}'
            found.append(Cause("FieldManagerConflict", fieldsets.shown_path(path), message))
    return found


def _back(kind: Kind, live: Json, part: Json, subresource: str) -> Json:
    """Put the merged part back into the object it was taken from."""
    if subresource == "status":
        new = {name: value for name, value in live.items() if name != "status"}
        return new | part
    new = {name: live[name] for name in ("apiVersion", "kind") if name in live}
    unowned = {n: v for n, v in live["metadata"].items() if n in managed.UNOWNED}
    new["metadata"] = unowned | part.get("metadata", {})
    new |= {name: value for name, value in part.items() if name != "metadata"}
    if kind.has_status and "status" in live:
        new["status"] = live["status"]
    return new


def merge(live: Any, wanted: Any, schema: Json) -> Any:
    """`live` with everything `wanted` says; what it does not mention stays."""
    have, want = children(live, schema), children(wanted, schema)
    if have is None or want is None or type(live) is not type(wanted):
        return copy.deepcopy(wanted)
    if isinstance(wanted, dict):
        out = dict(live)
        for name, (child, below) in want.items():
            plain = name[2:]
            out[plain] = merge(have[name][0], child, below) if name in have else copy.deepcopy(child)
        return out
    keys = list_keys(schema)
    merged = []
    for name in _in_order(list(have), list(want)):
        if name not in want:
            merged.append(have[name][0])
        elif name in have:
            merged.append(merge(have[name][0], *want[name]))
        else:
            child = want[name][0]
            # The keys are written out, so that an item which left one to its default is found again.
            merged.append(
                item_key(child, keys, schema) | child if keys and isinstance(child, dict) else child
            )
    return merged


def _in_order(have: list[str], want: list[str]) -> list[str]:
    """All names once: those of `want` in its order, what only `have` has between them where it stood."""
    there, wanted = set(have), set(want)
    shared = [name for name in want if name in there]
    out: list[str] = []
    left, right = list(reversed(have)), list(reversed(want))
    while left or right:
        if left and left[-1] not in wanted:
            out.append(left.pop())
        elif left and (not shared or left[-1] != shared[0]):
            left.pop()  # its place is where `want` has it
        else:
            name = right.pop()
            out.append(name)
            if left and left[-1] == name:
                left.pop()
            if shared and shared[0] == name:
                shared.pop(0)
    return out


def remove(value: Any, lost: Tree, kept: Tree, schema: Json) -> Any:
    """`value` without the fields in `lost` that nobody in `kept` owns; None when nothing is left of it.

    Items of lists go before their members: without its key members an item could not be found again.
    """
    below = children(value, schema)
    if below is None or not lost:
        return value
    gone: set[str] = set()
    new: dict[str, Any] = {}
    for name, (child, child_schema) in below.items():
        if name not in lost:
            continue
        if name not in kept and HERE in lost[name]:
            gone.add(name)
            continue
        rest = remove(child, lost[name], kept.get(name, {}), child_schema)
        if rest is None and name not in kept:
            gone.add(name)
        else:
            new[name] = {} if rest is None else rest
    if isinstance(value, dict):
        out: Any = {n: new.get(f"f:{n}", child) for n, child in value.items() if f"f:{n}" not in gone}
    else:
        out = [new.get(name, child) for name, (child, _) in below.items() if name not in gone]
    return out if out or not gone or HERE in kept else None
