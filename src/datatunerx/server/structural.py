"""Structural schemas: prune what they do not name, fill in defaults, refuse what does not fit.

A schema here is the openAPIV3Schema of a CRD. Walkers change the object in place.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema_rs

from datatunerx.server.errors import Cause, Json, required, shown, wrong

PRESERVE = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"
_WHOLE = "whole schema"
"""In a narrowed schema: the node it was made from."""
_WALKED = ("default", "x-kubernetes-list-type", "x-kubernetes-list-map-keys")

_STRING: Json = {"type": "string"}
_STRINGS: Json = {"type": "object", "additionalProperties": _STRING}
METADATA: Json = {
    "type": "object",
    "properties": {
        "name": _STRING,
        "generateName": _STRING,
        "namespace": _STRING,
        "selfLink": _STRING,
        "uid": _STRING,
        "resourceVersion": _STRING,
        "generation": {"type": "integer"},
        "creationTimestamp": _STRING,
        "deletionTimestamp": _STRING,
        "deletionGracePeriodSeconds": {"type": "integer"},
        "labels": _STRINGS,
        "annotations": _STRINGS,
        "finalizers": {"type": "array", "items": _STRING, "x-kubernetes-list-type": "set"},
        "ownerReferences": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["uid"],
            "items": {
                "type": "object",
                "x-kubernetes-map-type": "atomic",
                "required": ["apiVersion", "kind", "name", "uid"],
                "properties": {
                    "apiVersion": _STRING,
                    "kind": _STRING,
                    "name": _STRING,
                    "uid": _STRING,
                    "controller": {"type": "boolean"},
                    "blockOwnerDeletion": {"type": "boolean"},
                },
            },
        },
        "managedFields": {"type": "array", "items": {"type": "object", PRESERVE: True}},
    },
}


def complete(schema: Json) -> Json:
    """The schema of a kind with apiVersion, kind and metadata as they are for every object."""
    properties = {"apiVersion": _STRING, "kind": _STRING} | schema.get("properties", {})
    return schema | {"type": "object", "properties": properties | {"metadata": METADATA}}


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def prune(value: Any, schema: Json, path: str = "") -> list[str]:
    """Remove fields the schema does not name, and nulls it does not allow; the paths of the unknown ones."""
    unknown: list[str] = []
    _prune(value, schema, path, unknown)
    return unknown


def _prune(value: Any, schema: Json, path: str, unknown: list[str]) -> None:
    if isinstance(value, list):
        items = schema.get("items")
        if items:
            for place, item in enumerate(value):
                if isinstance(item, dict | list):
                    _prune(item, items, f"{path}[{place}]", unknown)
        return
    if not isinstance(value, dict):
        return
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties")
    for name in list(value):
        below = properties.get(name)
        if below is None and isinstance(others, dict):
            below = others
        if below is None:
            keep = schema.get(PRESERVE) or others is True or "type" not in schema
            embedded = schema.get("x-kubernetes-embedded-resource") and name in (
                "apiVersion",
                "kind",
                "metadata",
            )
            if not keep and not embedded:
                unknown.append(join(path, name))
                del value[name]
            continue
        child = value[name]
        if child is None and not below.get("nullable") and not below.get(PRESERVE):
            del value[name]
        elif isinstance(child, dict | list):
            _prune(child, below, join(path, name), unknown)


def default(value: Any, schema: Json) -> None:
    """Fill in the schema's defaults, also inside what is there. Below an absent object nothing is filled."""
    if isinstance(value, list):
        items = schema.get("items")
        if items:
            for item in value:
                default(item, items)
        return
    if not isinstance(value, dict):
        return
    properties = schema.get("properties")
    if properties:
        for name, below in properties.items():
            if name not in value:
                if "default" not in below:
                    continue
                given = below["default"]
                value[name] = copy.deepcopy(given) if isinstance(given, dict | list) else given
            child = value[name]
            if isinstance(child, dict | list):
                default(child, below)
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        for name, child in value.items():
            if not properties or name not in properties:
                default(child, others)


def list_keys(schema: Json) -> list[str] | None:
    """The keys of a list of type map; None for other lists."""
    if schema.get("x-kubernetes-list-type") != "map":
        return None
    keys: list[str] = schema.get("x-kubernetes-list-map-keys", [])
    return keys


def item_key(item: Any, keys: list[str], schema: Json) -> Json:
    """What identifies an item of a map list; absent keys take their defaults."""
    properties = schema.get("items", {}).get("properties", {})
    found: Json = {}
    for key in keys:
        if isinstance(item, dict) and key in item:
            found[key] = item[key]
        elif "default" in properties.get(key, {}):
            found[key] = properties[key]["default"]
    return found


def duplicates(value: Any, schema: Json, path: str = "") -> Iterator[Cause]:
    """Items that stand twice in a set or a map list."""
    if isinstance(value, list):
        items = schema.get("items") or {}
        kind = schema.get("x-kubernetes-list-type")
        if kind in ("set", "map"):
            seen: list[Any] = []
            keys = list_keys(schema)
            for place, item in enumerate(value):
                identity = item if keys is None else item_key(item, keys, schema.get(_WHOLE, schema))
                if identity in seen:
                    text = shown(identity) if keys is None else _shown_key(identity)
                    yield Cause("FieldValueDuplicate", f"{path}[{place}]", f"Duplicate value: {text}")
                seen.append(identity)
        for place, item in enumerate(value):
            yield from duplicates(item, items, f"{path}[{place}]")
    elif isinstance(value, dict):
        properties = schema.get("properties", {})
        for name, below in properties.items():
            if isinstance(value.get(name), dict | list):
                yield from duplicates(value[name], below, join(path, name))
        others = schema.get("additionalProperties")
        if isinstance(others, dict):
            for name, child in value.items():
                if name not in properties:
                    yield from duplicates(child, others, join(path, name))


def _shown_key(identity: Json) -> str:
    return "{" + ", ".join(f'"{key}":{shown(value)}' for key, value in identity.items()) + "}"


def narrowed(schema: Json, wanted: Callable[[Json], bool]) -> Json | None:
    """The schema with only the branches that lead to a wanted node; None when there is none.

    Walkers that act on a few places of a big schema need not visit the rest.
    """
    out: Json = {name: schema[name] for name in _WALKED if name in schema}
    properties = {name: narrowed(below, wanted) for name, below in schema.get("properties", {}).items()}
    found: Json = {"properties": {name: below for name, below in properties.items() if below is not None}}
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict) and (below := narrowed(schema[word], wanted)) is not None:
            found[word] = below
    if not found["properties"]:
        del found["properties"]
    if not found and not wanted(schema):
        return None
    return out | found | {_WHOLE: schema}


def is_keyed_list(schema: Json) -> bool:
    return schema.get("x-kubernetes-list-type") in ("set", "map")


def has_default(schema: Json) -> bool:
    return "default" in schema


_KEPT = (
    "enum", "minimum", "maximum", "multipleOf", "minLength", "maxLength", "pattern", "minItems", "maxItems",
    "uniqueItems", "minProperties", "maxProperties", "required",
)  # fmt: skip


def to_json_schema(schema: Json) -> Json:
    """The same limits in JSON Schema 2020-12, which the validator speaks."""
    out: Json = {name: schema[name] for name in _KEPT if name in schema}
    kind = schema.get("type")
    if schema.get(INT_OR_STRING):
        kind = ["integer", "string"]
    if kind:
        nullable = bool(schema.get("nullable"))
        kinds = kind if isinstance(kind, list) else [kind]
        out["type"] = [*kinds, "null"] if nullable else kind
        if nullable and "enum" in out:
            out["enum"] = [*out["enum"], None]
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if schema.get(exclusive) is True and bound in out:
            out[exclusive] = out.pop(bound)
    if kind == "integer":  # as Kubernetes has them: 64 bits; what is beyond was read as a float, and rounded
        out.setdefault("minimum", -(2**63))
        out.setdefault("maximum", 2**63 - 1)
    if properties := schema.get("properties"):
        out["properties"] = {name: to_json_schema(below) for name, below in properties.items()}
    if isinstance(schema.get("additionalProperties"), dict):
        out["additionalProperties"] = to_json_schema(schema["additionalProperties"])
    if isinstance(schema.get("items"), dict):
        out["items"] = to_json_schema(schema["items"])
    for word in ("allOf", "anyOf", "oneOf"):
        if word in schema and not schema.get(INT_OR_STRING):
            out[word] = [to_json_schema(part) for part in schema[word]]
    if "not" in schema:
        out["not"] = to_json_schema(schema["not"])
    return out


Validator = jsonschema_rs.Draft202012Validator


def compile_schema(schema: Json) -> Validator:
    """A validator for objects of the schema; ValueError when the schema itself is wrong."""
    return Validator(to_json_schema(schema))


def causes(validator: Validator, obj: Json) -> Iterator[Cause]:
    """What does not fit, worded as Kubernetes does."""
    for error in validator.iter_errors(obj):
        yield _cause(error)


def dotted(path: list[str | int]) -> str:
    """spec.env[0].name"""
    text = ""
    for part in path:
        text = f"{text}[{part}]" if isinstance(part, int) else join(text, part)
    return text


_BOUNDS = {
    "Minimum": ("greater than or equal to", "limit"),
    "Maximum": ("less than or equal to", "limit"),
    "ExclusiveMinimum": ("greater than", "limit"),
    "ExclusiveMaximum": ("less than", "limit"),
}


def _cause(error: jsonschema_rs.ValidationError) -> Cause:
    path, value, kind = dotted(list(error.instance_path)), error.instance, type(error.kind).__name__
    details: Any = error.kind
    if kind == "Required":
        return required(join(path, details.property))
    if kind == "Enum":
        options = ", ".join(shown(option) for option in details.options)
        return Cause(
            "FieldValueNotSupported", path, f"Unsupported value: {shown(value)}: supported values: {options}"
        )
    if kind == "Type":
        wanted = "/".join(t for t in details.types if t != "null")
        found = _type_name(value)
        message = f'Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"'
        return Cause("FieldValueTypeInvalid", path, message)
    if kind in _BOUNDS:
        word, limit = _BOUNDS[kind]
        return wrong(path, value, f"{path} in body should be {word} {getattr(details, limit)}")
    if kind in ("MaxLength", "MaxItems", "MaxProperties"):
        return Cause("FieldValueTooLong", path, f"Too long: may not be more than {details.limit}")
    return wrong(path, value, f"{path} in body: {error.message}")


def _type_name(value: object) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "null")
