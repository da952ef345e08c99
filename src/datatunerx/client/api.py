"""The API in Python: verbs over kinds, typed by a resource model or untyped by plural."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, overload

import orjson

from datatunerx.client.errors import from_answer, from_status
from datatunerx.client.transport import Transport
from datatunerx.resources.kinds import BY_MODEL
from datatunerx.resources.wire import GROUP, VERSION, Resource

Json = dict[str, Any]
Jsons = list[Json]
"""Named out here: inside `Api`, `list` is the verb."""
R = TypeVar("R", bound=Resource)

PAGE = 500
MANAGER = "datatunerx"


class Plural(NamedTuple):
    """A kind by its place in the API; the core group's name is empty."""

    group: str
    version: str
    plural: str
    namespaced: bool = True


EVENTS = Plural("", "v1", "events")
NAMESPACES = Plural("", "v1", "namespaces", namespaced=False)

Target = type[Resource] | Plural


class Listed(NamedTuple):
    items: list[Json]
    version: str
    """What to watch from."""


class Change(NamedTuple):
    type: str
    """ADDED, MODIFIED, DELETED or BOOKMARK."""
    object: Json


def place(target: Target) -> Plural:
    """Where the kind lives."""
    return target if isinstance(target, Plural) else Plural(GROUP, VERSION, BY_MODEL[target].plural)


def path_of(target: Target, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
    """The URL path of an object, or of a collection; namespace None is all namespaces."""
    at = place(target)
    parts = [f"/apis/{at.group}/{at.version}" if at.group else f"/api/{at.version}"]
    if at.namespaced and namespace is not None:
        parts.append(f"namespaces/{namespace}")
    return "/".join([*parts, at.plural, *(part for part in (name, subresource) if part)])


class Api:
    """All verbs raise ApiError and its kin (`errors.py`). A resource model in, that model out; else JSON."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    @overload
    async def get(self, target: type[R], name: str, namespace: str = ...) -> R: ...
    @overload
    async def get(self, target: Plural, name: str, namespace: str = ...) -> Json: ...
    async def get(self, target: Target, name: str, namespace: str = "default") -> Resource | Json:
        return _typed(target, await self._json("GET", path_of(target, namespace, name)))

    @overload
    async def list(self, target: type[R], namespace: str | None = ..., *, labels: str = ...) -> list[R]: ...
    @overload
    async def list(self, target: Plural, namespace: str | None = ..., *, labels: str = ...) -> Jsons: ...
    async def list(self, target: Target, namespace: str | None = None, *, labels: str = "") -> Any:
        listed = await self.list_raw(target, namespace, labels=labels)
        return [_typed(target, item) for item in listed.items]

    async def list_raw(
        self, target: Target, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> Listed:
        """The whole list, in chunks of one version, with the version to watch from."""
        query = {"limit": str(PAGE)}
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = fields
        items: Jsons = []
        while True:
            page = await self._json("GET", path_of(target, namespace), query=query)
            items += page.get("items") or []
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return Listed(items, str(metadata.get("resourceVersion", "")))
            query["continue"] = metadata["continue"]

    async def create(self, obj: R, *, dry_run: bool = False) -> R:
        """Create a typed object in the namespace it names."""
        made = await self.create_raw(type(obj), document(obj), obj.metadata.namespace, dry_run=dry_run)
        return type(obj).parse(made)

    async def create_raw(
        self, target: Target, obj: Json, namespace: str = "default", *, dry_run: bool = False
    ) -> Json:
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict"} | _dry(dry_run)
        return await self._json("POST", path_of(target, namespace), query=query, body=obj)

    async def replace(self, obj: R) -> R:
        """Put the object in place of the version it was read at; Conflict if that is no longer the newest."""
        where = path_of(type(obj), obj.metadata.namespace, obj.metadata.name)
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
        return type(obj).parse(await self._json("PUT", where, query=query, body=document(obj)))

    async def patch(
        self, target: Target, name: str, patch: Mapping[str, Any], namespace: str = "default",
        *, subresource: str = "",
    ) -> Json:  # fmt: skip
        """Merge patch: null removes. A resourceVersion in the patch's metadata is a precondition."""
        where = path_of(target, namespace, name, subresource)
        return await self._send_patch(where, "merge-patch+json", patch)

    async def patch_json(
        self, target: Target, name: str, operations: Sequence[Json], namespace: str = "default",
        *, subresource: str = "",
    ) -> Json:  # fmt: skip
        """JSON patch (RFC 6902)."""
        where = path_of(target, namespace, name, subresource)
        return await self._send_patch(where, "json-patch+json", operations)

    async def patch_status(
        self, target: Target, name: str, patch: Mapping[str, Any], namespace: str = "default"
    ) -> Json:
        """Merge patch of the status alone; `patch` is {"status": ..., "metadata": ...}."""
        return await self.patch(target, name, patch, namespace, subresource="status")

    async def apply(
        self, target: Target, name: str, obj: Mapping[str, Any], namespace: str = "default",
        *, manager: str = MANAGER, force: bool = True, dry_run: bool = False,
    ) -> Json:  # fmt: skip
        """Server-side apply: create it, or make the fields given here so; repeating it changes nothing."""
        query = {"fieldManager": manager, "force": str(force).lower(), "fieldValidation": "Strict"}
        return await self._send_patch(
            path_of(target, namespace, name), "apply-patch+yaml", obj, query | _dry(dry_run)
        )

    async def delete(
        self, target: Target, name: str, namespace: str = "default",
        *, propagation: str = "Background", uid: str | None = None, version: str | None = None,
    ) -> Json:  # fmt: skip
        """Delete; with `uid` and `version`, only that very object as it was then (else Conflict)."""
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        wanted = {"uid": uid, "resourceVersion": version}
        options["preconditions"] = {name: value for name, value in wanted.items() if value}
        return await self._json("DELETE", path_of(target, namespace, name), body=options)

    async def watch(
        self, target: Target, namespace: str | None = None, *, version: str = "", fields: str = "",
        labels: str = "", timeout_seconds: int | None = None,
    ) -> AsyncIterator[Change]:  # fmt: skip
        """Changes after `version` (empty: all objects first) until the server ends the stream.

        Raises Gone when the version is forgotten: list again.
        """
        query = {"watch": "true", "allowWatchBookmarks": "true"}
        given = {"resourceVersion": version, "fieldSelector": fields, "labelSelector": labels}
        query |= {name: value for name, value in given.items() if value}
        if timeout_seconds:
            query["timeoutSeconds"] = str(timeout_seconds)
        async for line in self.transport.stream(path_of(target, namespace), query=query, headers=_ACCEPT):
            if not line.strip():
                continue
            event = json.loads(line)
            if event["type"] == "ERROR":
                raise from_status(event["object"])
            yield Change(event["type"], event["object"])

    async def events(self, kind: str, name: str, namespace: str = "default") -> Sequence[Json]:
        """The Kubernetes Events about one object, oldest first."""
        fields = f"involvedObject.kind={kind},involvedObject.name={name}"
        found = (await self.list_raw(EVENTS, namespace, fields=fields)).items
        return sorted(found, key=lambda event: str(event.get("lastTimestamp") or ""))

    async def raw(self, path: str) -> bytes:
        """GET of any path, as text or JSON bytes."""
        answer = await self.transport.request("GET", path)
        if answer.status >= 300:
            raise from_answer(answer.status, answer.body)
        return answer.body

    async def _send_patch(
        self, where: str, form: str, patch: Any, query: Mapping[str, str] | None = None
    ) -> Json:
        query = query or {"fieldManager": MANAGER, "fieldValidation": "Strict"}
        return await self._json("PATCH", where, query=query, body=patch, form=f"application/{form}")

    async def _json(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Any = None,
        form: str = "application/json",
    ) -> Json:  # fmt: skip
        data = json.dumps(body, separators=(",", ":")).encode() if body is not None else None
        headers = _ACCEPT | ({"content-type": form} if data is not None else {})
        answer = await self.transport.request(method, path, query=query, body=data, headers=headers)
        if answer.status >= 300:
            raise from_answer(answer.status, answer.body)
        found: Json = orjson.loads(answer.body)  # a list of a thousand objects is some megabytes
        return found


_ACCEPT = {"accept": "application/json"}


def document(obj: Resource) -> Json:
    """The object as it is sent: without metadata that only the server sets."""
    body = obj.dump()
    metadata = {key: value for key, value in body["metadata"].items() if value not in ("", 0, [], {})}
    return body | {"metadata": metadata}


def _typed(target: Target, obj: Json) -> Resource | Json:
    return obj if isinstance(target, Plural) else target.parse(obj)


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}
