"""OpenAPI v3 documents, one a group version: what kubectl reads for explain and before it writes."""

import copy
import hashlib

import orjson

from datatunerx.server.about import BUILD
from datatunerx.server.errors import Json
from datatunerx.server.kinds import Kind, Registry
from datatunerx.server.structural import METADATA

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_STATUS = "io.k8s.apimachinery.pkg.apis.meta.v1.Status"
_SCALE = "io.k8s.api.autoscaling.v1.Scale"
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_LIST = (
    "allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion",
    "resourceVersionMatch", "sendInitialEvents", "timeoutSeconds", "watch",
)  # fmt: skip
_OBJECT: Json = {"type": "object"}
_PATCHES: Json = {
    "application/merge-patch+json": {"schema": _OBJECT},
    "application/json-patch+json": {
        "schema": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["op", "path"],
                "properties": {
                    "op": {"type": "string", "enum": ["add", "remove", "replace", "move", "copy", "test"]},
                    "path": {"type": "string"},
                    "from": {"type": "string"},
                },
            },
        }
    },
    "application/apply-patch+yaml": {"schema": _OBJECT},
}
_STATUS_SCHEMA: Json = {
    "type": "object",
    "description": "What became of a request.",
    "required": ["kind", "apiVersion", "status"],
    "properties": {
        "kind": {"type": "string", "enum": ["Status"]},
        "apiVersion": {"type": "string", "enum": ["v1"]},
        "metadata": _OBJECT,
        "status": {"type": "string", "enum": ["Success", "Failure"]},
        "message": {"type": "string"},
        "reason": {"type": "string"},
        "details": _OBJECT,
        "code": {"type": "integer"},
    },
}
_REPLICAS: Json = {
    "type": "object",
    "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}},
}
_SCALE_SCHEMA: Json = {
    "type": "object",
    "description": "How many replicas there are and should be.",
    "required": ["kind", "apiVersion", "metadata", "spec", "status"],
    "properties": {
        "kind": {"type": "string", "enum": ["Scale"]},
        "apiVersion": {"type": "string", "enum": ["autoscaling/v1"]},
        "metadata": _OBJECT,
        "spec": _REPLICAS,
        "status": _REPLICAS,
    },
}
_BOOLEANS = ("allowWatchBookmarks", "sendInitialEvents", "watch", "force")
_NUMBERS = ("limit", "timeoutSeconds", "gracePeriodSeconds")


class Documents:
    """The documents of a registry, made when first asked for and again after it changed."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._made_for = ""
        self._bytes: dict[str, bytes] = {}

    def _refresh(self) -> None:
        if self._made_for == self._registry.digest:
            return
        found: dict[str, list[Kind]] = {}
        for kind in self._registry:
            found.setdefault(_place(kind), []).append(kind)
        self._bytes = {place: orjson.dumps(document(kinds)) for place, kinds in found.items()}
        self._made_for = self._registry.digest

    def index(self) -> Json:
        """Which documents there are; the hash in each URL lets clients keep them."""
        self._refresh()
        paths = {
            place: {"serverRelativeURL": f"/openapi/v3/{place}?hash={_hash(data)}"}
            for place, data in self._bytes.items()
        }
        return {"paths": paths}

    def get(self, place: str) -> bytes | None:
        """The document of apis/GROUP/VERSION or api/v1."""
        self._refresh()
        return self._bytes.get(place)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest().upper()[:32]


def _place(kind: Kind) -> str:
    return f"apis/{kind.group}/{kind.version}" if kind.group else f"api/{kind.version}"


def document(kinds: list[Kind]) -> Json:
    """Paths and schemas of the kinds of one group version."""
    paths: Json = {}
    schemas: Json = {
        _META: copy.deepcopy(METADATA) | {"description": "Standard object metadata."},
        _STATUS: _STATUS_SCHEMA,
        _SCALE: _SCALE_SCHEMA,
    }
    for kind in kinds:
        name = _schema_name(kind)
        schemas[name] = _schema(kind)
        schemas[f"{name}List"] = _list_schema(kind, name)
        _add_paths(paths, kind, name)
    return {
        "openapi": "3.0.0",
        "info": {"title": "datatunerx", "version": BUILD["gitVersion"]},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _schema_name(kind: Kind) -> str:
    domain = ".".join(reversed((kind.group or "core.k8s.io").split(".")))
    return f"{domain}.{kind.version}.{kind.name}"


def _gvk(kind: Kind, suffix: str = "") -> Json:
    return {"group": kind.group, "kind": kind.name + suffix, "version": kind.version}


def _schema(kind: Kind) -> Json:
    schema: Json = {"type": "object", **kind.schema}
    properties = schema.get("properties", {})
    schema["properties"] = {
        **properties,
        "apiVersion": {"type": "string", "description": "The version of the kind's schema."},
        "kind": {"type": "string", "description": "The kind."},
        "metadata": {
            "allOf": [{"$ref": f"#/components/schemas/{_META}"}],
            "default": {},
            "description": "Standard object metadata.",
        },
    }
    schema["x-kubernetes-group-version-kind"] = [_gvk(kind)]
    return schema


def _list_schema(kind: Kind, name: str) -> Json:
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}
    return {
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "items": items,
        },
        "x-kubernetes-group-version-kind": [_gvk(kind, "List")],
    }


def _add_paths(paths: Json, kind: Kind, name: str) -> None:
    base = f"/{_place(kind)}"
    collection = (
        f"{base}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{base}/{kind.plural}"
    )
    many: Json = {}
    if "list" in kind.verbs:
        many["get"] = _operation(kind, f"{name}List", "list", _LIST)
        if kind.namespaced:
            paths[f"{base}/{kind.plural}"] = {"get": _operation(kind, f"{name}List", "list", _LIST)}
    if "create" in kind.verbs:
        body = {"application/json": {"schema": _ref(name)}}
        many["post"] = _operation(kind, name, "post", _WRITE, body)
    if "deletecollection" in kind.verbs:
        many["delete"] = _operation(kind, f"{name}List", "deletecollection", (*_LIST, "dryRun"))
    paths[collection] = _in_path("namespace") | many if kind.namespaced else many
    one: Json = {}
    if "get" in kind.verbs:
        one["get"] = _operation(kind, name, "get", ())
    if "update" in kind.verbs:
        one |= _writes(kind, name)
    if "delete" in kind.verbs:
        query = ("dryRun", "gracePeriodSeconds", "propagationPolicy")
        one["delete"] = _operation(kind, "", "delete", query)
    if not one:
        return
    item = f"{collection}/{{name}}"
    place = _in_path(*(("namespace", "name") if kind.namespaced else ("name",)))
    paths[item] = place | one
    if kind.has_status:
        paths[f"{item}/status"] = {**place, "get": _operation(kind, name, "get", ()), **_writes(kind, name)}
    if kind.scale:
        paths[f"{item}/scale"] = {
            **place,
            "get": _operation(kind, _SCALE, "get", ()),
            **_writes(kind, _SCALE),
        }


def _in_path(*names: str) -> Json:
    found = [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]
    return {"parameters": found}


def _ref(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def _writes(kind: Kind, name: str) -> Json:
    body = {"application/json": {"schema": _ref(name)}}
    return {
        "put": _operation(kind, name, "put", _WRITE, body),
        "patch": _operation(kind, name, "patch", (*_WRITE, "force"), _PATCHES),
    }


def _operation(
    kind: Kind, answer: str, action: str, query: tuple[str, ...], body: Json | None = None
) -> Json:
    """`answer` names the schema of a good answer; empty when it may be the object or a Status."""
    good = {
        "description": "OK",
        "content": {"application/json": {"schema": _ref(answer) if answer else _OBJECT}},
    }
    refused = {"description": "Refused", "content": {"application/json": {"schema": _ref(_STATUS)}}}
    codes = {"post": ("201",), "patch": ("200", "201")}.get(action, ("200",))
    operation: Json = {
        "responses": {**dict.fromkeys(codes, good), "default": refused},
        "parameters": [_parameter(each) for each in query],
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(kind),
    }
    if body:
        operation["requestBody"] = {"required": True, "content": body}
    return operation


_WORDS = {
    "dryRun": ["All"],
    "fieldValidation": ["Strict", "Warn", "Ignore"],
    "propagationPolicy": ["Background", "Foreground", "Orphan"],
    "resourceVersionMatch": ["Exact", "NotOlderThan"],
}


def _parameter(name: str) -> Json:
    kind = "boolean" if name in _BOOLEANS else "integer" if name in _NUMBERS else "string"
    schema: Json = {"type": kind, "uniqueItems": True}
    return {
        "name": name,
        "in": "query",
        "schema": schema | ({"enum": _WORDS[name]} if name in _WORDS else {}),
    }
