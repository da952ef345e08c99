"""CRD manifests from the pydantic models: structural schemas with no $ref, no union, no null.

What pydantic emits and a structural schema refuses is rewritten here, or refused when the CRDs are made:
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from datatunerx.resources.kinds import CATEGORY, KINDS, Kind, Rule
from datatunerx.resources.wire import GROUP, VERSION, Wire

Schema = dict[str, Any]

KEPT = (
    "type", "description", "default", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern",
    "minItems", "maxItems", "minProperties", "maxProperties",
)  # fmt: skip
OPTIONAL = "x-optional"
"""Marks a field that may be absent, and then means something else than its defaults; in no CRD."""
MAX_PROPERTIES = 256
SCALE = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}


def crd_manifests() -> list[dict[str, Any]]:
    """One CustomResourceDefinition per kind, in the order of `KINDS`."""
    return [crd(kind) for kind in KINDS]


def crd(kind: Kind) -> dict[str, Any]:
    spec, status = _part(kind, "spec"), _without_defaults(_part(kind, "status"))
    spec.pop("default", None)  # a spec is always written, be it empty
    if kind.rules:
        spec["x-kubernetes-validations"] = _validations(kind.rules)
    schema: Schema = {
        "description": kind.model.__doc__,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }
    if kind.object_rules:
        schema["x-kubernetes-validations"] = _validations(kind.object_rules)
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}} | ({"scale": SCALE} if kind.scalable else {}),
        "additionalPrinterColumns": [
            {"name": c.name, "type": c.type, "jsonPath": c.path} | ({"priority": 1} if c.wide else {})
            for c in kind.columns
        ],
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": f".{path}"} for path in kind.selectable]
    singular = kind.name.lower()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": singular,
                "categories": [CATEGORY],
            }
            | ({"shortNames": [kind.short]} if kind.short != singular else {}),
            "versions": [version],
        },
    }


def _validations(rules: Iterable[Rule]) -> list[Schema]:
    return [{"rule": rule.rule, "message": rule.message} for rule in rules]


def _part(kind: Kind, name: str) -> Schema:
    model = kind.model.model_fields[name].annotation
    assert isinstance(model, type) and issubclass(model, Wire), f"{kind.name}.{name} is not a document"
    return structural(model)


def structural(model: type[BaseModel]) -> Schema:
    """The model's schema, rewritten. Raises ValueError, naming the path, for what a CRD cannot say."""
    document = model.model_json_schema(by_alias=True, mode="validation")
    keys = {m.__name__: getattr(m, "list_key", ()) for m in _models(model)}
    return _rewrite(document, document.get("$defs", {}), keys, model.__name__)


def _models(model: type[BaseModel]) -> set[type[BaseModel]]:
    found, todo = set(), [model]
    while todo:
        one = todo.pop()
        if one in found:
            continue
        found.add(one)
        for info in one.model_fields.values():
            todo += _mentioned(info.annotation)
    return found


def _mentioned(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in getattr(annotation, "__args__", ()) for m in _mentioned(arg)]


def _rewrite(
    node: Schema, defs: Mapping[str, Schema], keys: Mapping[str, tuple[str, ...]], path: str
) -> Schema:
    node = _follow(node, defs, path)
    if not node.get("type") and "enum" not in node and "const" not in node:
        return {"x-kubernetes-preserve-unknown-fields": True} | _described(node)
    out: Schema = {key: node[key] for key in KEPT if key in node}
    if "const" in node:
        out["enum"] = [node["const"]]
    _bounds(node, out)
    match node.get("type"):
        case "object":
            _object(node, out, defs, keys, path)
        case "array":
            items = _follow(node["items"], defs, path)
            out["items"] = _rewrite(items, defs, keys, f"{path}[]")
            if found := keys.get(items.get("title", "")):
                out |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(found)}
                required = out["items"].setdefault("required", [])
                for key in found:
                    if key not in required and "default" not in out["items"]["properties"][key]:
                        required.append(key)
    if out.get("default", 0) in (None, [], {}) and "properties" not in out:
        del out["default"]  # an empty list or map says no more than its absence
    return out


def _follow(node: Schema, defs: Mapping[str, Schema], path: str) -> Schema:
    """Inline a reference; turn `X or null` into X."""
    if "anyOf" in node:
        others = [option for option in node["anyOf"] if option.get("type") != "null"]
        if len(others) != 1:
            raise ValueError(f"{path}: a union; write a field per case and a rule instead")
        rest = {k: v for k, v in node.items() if k not in ("anyOf", "default")}
        return _follow(others[0] | rest | {OPTIONAL: True}, defs, path)
    if "$ref" in node:
        target = defs[node["$ref"].removeprefix("#/$defs/")]
        rest = {k: v for k, v in node.items() if k != "$ref"}
        return _follow(target | rest | {"title": target.get("title", "")}, defs, path)
    for word in ("oneOf", "allOf", "prefixItems", "patternProperties", "if"):
        if word in node:
            raise ValueError(f"{path}: {word} cannot stand in a structural schema")
    return node


def _described(node: Schema) -> Schema:
    return {"description": node["description"]} if "description" in node else {}


def _bounds(node: Schema, out: Schema) -> None:
    for exclusive, plain in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in node:
            out[plain], out[exclusive] = node[exclusive], True


def _object(
    node: Schema, out: Schema, defs: Mapping[str, Schema], keys: Mapping[str, tuple[str, ...]], path: str
) -> None:
    if "properties" not in node:
        values = node.get("additionalProperties")
        if isinstance(values, Mapping) and values:
            out["additionalProperties"] = _rewrite(dict(values), defs, keys, f"{path}{{}}")
            out["maxProperties"] = node.get("maxProperties", MAX_PROPERTIES)
        else:
            out["x-kubernetes-preserve-unknown-fields"] = True
        return
    out["properties"] = {
        name: _rewrite(child, defs, keys, f"{path}.{name}") for name, child in node["properties"].items()
    }
    required = [name for name in node.get("required", []) if "default" not in out["properties"][name]]
    if required:
        out["required"] = required
        out.pop("default", None)
    elif not node.get(OPTIONAL) and any("default" in child for child in out["properties"].values()):
        # Kubernetes applies a default inside an object only if the object is there
        out["default"] = {}
    else:
        out.pop("default", None)


def _without_defaults(schema: Schema) -> Schema:
    """A status says what was seen; nothing is made up for it."""
    kept = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in kept:
        kept["properties"] = {name: _without_defaults(child) for name, child in kept["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(kept.get(key), dict):
            kept[key] = _without_defaults(kept[key])
    return kept
