"""Sets of fields: who owns what in an object, as managedFields records it.

A tree is a dict from path element (`f:name`, `k:{...}`, `v:...`) to the tree below it; the member `.` says
that the place itself is in the set. On the wire (FieldsV1) a place without children is `{}`.
"""

from typing import Any

import orjson

from datatunerx.server.errors import Json
from datatunerx.server.structural import item_key, list_keys

Tree = dict[str, Any]

HERE = "."
_NO_SCHEMA: Json = {}


def leaf() -> Tree:
    return {HERE: {}}


def from_wire(fields: Json) -> Tree:
    """FieldsV1 to a tree."""
    if not fields:
        return leaf()
    return {name: ({} if name == HERE else from_wire(below)) for name, below in fields.items()}


def to_wire(tree: Tree) -> Json:
    """A tree to FieldsV1."""
    if len(tree) == 1 and HERE in tree:
        return {}
    out: Json = {}
    for name in sorted(tree):
        below = tree[name]
        out[name] = {} if not below or (len(below) == 1 and HERE in below) else to_wire(below)
    return out


def _set_key(value: Any) -> str:
    return "v:" + orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _map_key(item: Any, keys: list[str], schema: Json) -> str:
    return "k:" + orjson.dumps(item_key(item, keys, schema), option=orjson.OPT_SORT_KEYS).decode()


def children(value: Any, schema: Json) -> dict[str, tuple[Any, Json]] | None:
    """The members of a value that are owned one by one; None when it is owned as a whole."""
    if isinstance(value, dict):
        if schema.get("x-kubernetes-map-type") == "atomic":
            return None
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties")
        rest = others if isinstance(others, dict) else _NO_SCHEMA
        return {f"f:{name}": (child, properties.get(name, rest)) for name, child in value.items()}
    if isinstance(value, list):
        items = schema.get("items") or _NO_SCHEMA
        if schema.get("x-kubernetes-list-type") == "set":
            return {_set_key(item): (item, _NO_SCHEMA) for item in value}
        keys = list_keys(schema)
        if keys is not None:
            return {_map_key(item, keys, schema): (item, items) for item in value}
    return None


def fields_of(value: Any, schema: Json, *, containers: bool) -> Tree:
    """Every field of a value. `containers`: maps and lists themselves too, not only what is in them."""
    tree: Tree = leaf() if containers else {}
    if value and isinstance(value, dict) and schema.get("x-kubernetes-map-type") != "atomic":
        # As below, without a table of the children: most places are members of plain objects.
        properties, others = schema.get("properties") or _NO_SCHEMA, schema.get("additionalProperties")
        rest = others if isinstance(others, dict) else _NO_SCHEMA
        for name, child in value.items():
            if isinstance(child, dict | list):
                tree["f:" + name] = fields_of(child, properties.get(name, rest), containers=containers)
            else:
                tree["f:" + name] = {HERE: {}}
        return tree
    below = children(value, schema)
    if not below:
        return leaf()
    for name, (child, child_schema) in below.items():
        tree[name] = fields_of(child, child_schema, containers=containers)
        if name.startswith("k:"):
            tree[name][HERE] = {}
    return tree


def changes(old: Any, new: Any, schema: Json) -> tuple[Tree, Tree]:
    """(set, removed): the fields that were added or changed, and the places that are gone with all below."""
    if old == new and type(old) is type(new):
        return {}, {}
    before, after = children(old, schema), children(new, schema)
    if before is None or after is None or type(old) is not type(new):
        return fields_of(new, schema, containers=True), {}
    changed: Tree = {}
    removed: Tree = {name: leaf() for name in before if name not in after}
    for name, (child, child_schema) in after.items():
        if name not in before:
            changed[name] = fields_of(child, child_schema, containers=True)
            if name.startswith("k:"):
                changed[name][HERE] = {}
            continue
        set_below, removed_below = changes(before[name][0], child, child_schema)
        if set_below:
            changed[name] = set_below
        if removed_below:
            removed[name] = removed_below
    return changed, removed


def union(first: Tree, second: Tree) -> Tree:
    """What is in either."""
    if not first or not second:
        return first or second
    out = dict(first)
    for name, below in second.items():
        out[name] = union(out[name], below) if name in out else below
    return out


def minus(tree: Tree, other: Tree) -> Tree:
    """What is in the first and not in the second, place by place; the first itself when that is all of it."""
    if tree.keys().isdisjoint(other):
        return tree
    out: Tree = {}
    for name, below in tree.items():
        if name not in other:
            out[name] = below
        elif name != HERE and (rest := minus(below, other[name])):
            out[name] = rest
    return out


def without(tree: Tree, gone: Tree) -> Tree:
    """The first without the places of the second and everything below; itself when none is in it."""
    if tree.keys().isdisjoint(gone):
        return tree
    out: Tree = {}
    for name, below in tree.items():
        if name == HERE or name not in gone:
            out[name] = below
        elif HERE not in gone[name] and (rest := without(below, gone[name])):
            out[name] = rest
    return out


def common(first: Tree, second: Tree) -> Tree:
    """What is in both."""
    out: Tree = {}
    for name, below in first.items():
        if name == HERE:
            if HERE in second:
                out[HERE] = {}
        elif name in second and (both := common(below, second[name])):
            out[name] = both
    return out


def leaves(tree: Tree) -> list[list[str]]:
    """The paths in a set, containers left out when something in them is listed."""
    found: list[list[str]] = []
    for name, below in tree.items():
        if name != HERE:
            found += [[name, *rest] for rest in leaves(below)]
    return found or ([[]] if HERE in tree else [])


def shown_path(path: list[str]) -> str:
    """.spec.env[name="X"].value"""
    text = ""
    for part in path:
        kind, value = part[:2], part[2:]
        if kind == "f:":
            text += f".{value}"
        elif kind == "v:":
            text += f"[={value}]"
        else:
            pairs = orjson.loads(value).items()
            text += "[" + ",".join(f"{k}={orjson.dumps(v).decode()}" for k, v in pairs) + "]"
    return text
