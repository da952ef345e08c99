"""managedFields: one entry per manager, operation, API version and subresource, with the fields it owns."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from datatunerx.server import fieldsets
from datatunerx.server.errors import Json, bad_request
from datatunerx.server.fieldsets import Tree
from datatunerx.server.kinds import Kind

UNOWNED = (
    "name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "generation",
    "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields",
)  # fmt: skip
_WIRE = frozenset(["manager", "operation", "apiVersion", "time", "fieldsType", "fieldsV1"])


@dataclass(frozen=True)
class Manager:
    """One entry."""

    name: str
    operation: str
    """Apply or Update."""
    api_version: str
    subresource: str
    time: str
    fields: Tree
    """Shared: never changed in place."""
    stored: Json | None = None
    """The entry as it was read, when the fields are still those."""

    @property
    def identity(self) -> tuple[str, str, str, str]:
        return self.name, self.operation, self.api_version, self.subresource

    def owning(self, fields: Tree) -> "Manager":
        """The same manager with other fields."""
        return Manager(self.name, self.operation, self.api_version, self.subresource, self.time, fields)

    def wire(self) -> Json:
        if self.stored is not None:
            return self.stored
        entry: Json = {
            "manager": self.name,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": fieldsets.to_wire(self.fields),
        }
        return entry | ({"subresource": self.subresource} if self.subresource else {})


def read(entries: Any) -> list[Manager]:
    """The entries of an object; 400 when a client wrote something else there."""
    if not isinstance(entries, list):
        raise bad_request("metadata.managedFields: must be a list")
    found = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("fieldsV1", {}), dict):
            raise bad_request("metadata.managedFields: each entry needs manager, operation and fieldsV1")
        if not entry:  # [{}] is how some clients say "forget the owners"
            continue
        if entry.get("operation") not in ("Apply", "Update"):
            raise bad_request("metadata.managedFields: operation must be Apply or Update")
        found.append(
            Manager(
                str(entry.get("manager", "")),
                entry["operation"],
                str(entry.get("apiVersion", "")),
                str(entry.get("subresource", "")),
                str(entry.get("time", "")),
                _tree(orjson.dumps(entry["fieldsV1"])) if entry.get("fieldsV1") else {},
                entry if _well_formed(entry) else None,
            )
        )
    return found


def _well_formed(entry: Json) -> bool:
    """Whether this server could have written the entry; others are written anew."""
    return (
        _WIRE <= entry.keys() <= _WIRE | {"subresource"}
        and entry["fieldsType"] == "FieldsV1"
        and all(isinstance(value, str) for name, value in entry.items() if name != "fieldsV1")
    )


@lru_cache(maxsize=512)
def _tree(fields: bytes) -> Tree:
    # From one write to the next almost every entry stays as it was, here and in objects of the same shape.
    return fieldsets.from_wire(orjson.loads(fields))


def view(kind: Kind, obj: Json, subresource: str) -> Json:
    """The part of an object that a writer through this endpoint can own."""
    if subresource == "status":
        return {"status": obj["status"]} if "status" in obj else {}
    left_out = (
        ("apiVersion", "kind", "metadata", "status")
        if kind.has_status
        else ("apiVersion", "kind", "metadata")
    )
    part = {name: value for name, value in obj.items() if name not in left_out}
    metadata = {name: value for name, value in obj["metadata"].items() if name not in UNOWNED}
    return part | ({"metadata": metadata} if metadata else {})


def after_update(
    managers: list[Manager], kind: Kind, live: Json | None, new: Json, writer: Manager
) -> list[Manager]:
    """The entries after `writer` changed `live` into `new`: it owns what it changed, others lose that."""
    old_view = view(kind, live, writer.subresource) if live else {}
    changed, removed = fieldsets.changes(old_view, view(kind, new, writer.subresource), kind.full_schema)
    if not changed and not removed:
        return managers
    out: list[Manager] = []
    mine: Tree = {}
    for manager in managers:
        kept = fieldsets.without(manager.fields, removed)
        if manager.identity == writer.identity:
            mine = kept
            continue
        kept = fieldsets.minus(kept, changed)
        if kept:
            out.append(manager if kept is manager.fields else manager.owning(kept))
    mine = fieldsets.union(mine, changed)
    if mine:
        out.append(writer.owning(mine))
    return out


def write(managers: list[Manager], before: Any) -> list[Json]:
    """The entries to store; one whose fields did not change keeps its time."""
    old = {_identity(e): e for e in before} if isinstance(before, list) else {}
    out = []
    for manager in managers:
        entry = manager.wire()
        known = old.get(manager.identity)
        if known and known.get("fieldsV1") == entry["fieldsV1"]:
            entry["time"] = known.get("time", entry["time"])
        out.append(entry)
    return sorted(out, key=lambda e: (e["operation"] != "Apply", e["time"], e["manager"]))


def _identity(entry: Json) -> tuple[str, str, str, str]:
    return (
        entry.get("manager", ""),
        entry.get("operation", ""),
        entry.get("apiVersion", ""),
        entry.get("subresource", ""),
    )
