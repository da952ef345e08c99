"""OpenAPI v3 documents, one a group version: what kubectl reads for explain and before it writes."""

import copy
import hashlib

import orjson

from datatunerx.server.about import BUILD
from datatunerx.server.errors import Json
from datatunerx.server.kinds import Kind, Registry
from datatunerx.server.structural import METADATA

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_LIST = (
    "allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion",
    "resourceVersionMatch", "sendInitialEvents", "timeoutSeconds", "watch",
)  # fmt: skip
_PATCH_TYPES = ("application/merge-patch+json", "application/json-patch+json", "application/apply-patch+yaml")
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
    schemas: Json = {_META: copy.deepcopy(METADATA) | {"description": "Standard object metadata."}}
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
    item = f"{collection}/{{name}}"
    if "list" in kind.verbs:
        paths.setdefault(collection, {})["get"] = _operation(kind, name, "list", _LIST)
        if kind.namespaced:
            paths[f"{base}/{kind.plural}"] = {"get": _operation(kind, name, "list", _LIST)}
    if "create" in kind.verbs:
        paths.setdefault(collection, {})["post"] = _operation(kind, name, "post", _WRITE, body=True)
    if "deletecollection" in kind.verbs:
        paths[collection]["delete"] = _operation(kind, name, "deletecollection", (*_LIST, "dryRun"))
    if "get" in kind.verbs:
        paths[item] = {"get": _operation(kind, name, "get", ())}
    if "update" not in kind.verbs:
        return
    paths[item] |= _writes(kind, name)
    paths[item]["delete"] = _operation(
        kind, name, "delete", ("dryRun", "gracePeriodSeconds", "propagationPolicy")
    )
    if kind.has_status:
        paths[f"{item}/status"] = {"get": _operation(kind, name, "get", ()), **_writes(kind, name)}


def _writes(kind: Kind, name: str) -> Json:
    return {
        "put": _operation(kind, name, "put", _WRITE, body=True),
        "patch": _operation(kind, name, "patch", (*_WRITE, "force"), body=True),
    }


def _operation(kind: Kind, name: str, action: str, query: tuple[str, ...], *, body: bool = False) -> Json:
    response = f"{name}List" if action == "list" else name
    ref = {"schema": {"$ref": f"#/components/schemas/{response}"}}
    operation: Json = {
        "responses": {"200": {"description": "OK", "content": {"application/json": ref}}},
        "parameters": [_parameter(each) for each in query],
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(kind),
    }
    if body:
        types = _PATCH_TYPES if action == "patch" else ("application/json",)
        operation["requestBody"] = {"required": True, "content": {each: {"schema": {}} for each in types}}
    return operation


def _parameter(name: str) -> Json:
    kind = "boolean" if name in _BOOLEANS else "integer" if name in _NUMBERS else "string"
    return {"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": True}}
