"""From a path below /api or /apis and a method to the operation that answers."""

from pathlib import Path
from urllib.parse import unquote

import orjson

from datatunerx.server import (
    body,
    comparing,
    deletes,
    export_files,
    negotiate,
    pods,
    reads,
    reports,
    reviews,
    roles,
    told,
    watch,
    writes,
)
from datatunerx.server.errors import ApiError, no_such_path, not_allowed
from datatunerx.server.http import Request
from datatunerx.server.kinds import Kind, Registry
from datatunerx.server.proxy import Proxy
from datatunerx.server.roles import Access
from datatunerx.server.watch import Watches
from datatunerx.server.writes import Target
from datatunerx.store import Store

_VERBS = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}


class ResourcePaths:
    """Answers `[namespaces/NS/]RESOURCE[/NAME[/SUBRESOURCE]]` of every group version."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        watches: Watches,
        log_root: Path | None,
        own: frozenset[str],
        proxy: Proxy,
    ) -> None:
        self._store = store
        self._registry = registry
        self._watches = watches
        self._log_root = log_root
        self._own = own
        self._proxy = proxy
        self._told = told.Told(store, log_root)

    async def answer(self, parts: list[str], request: Request) -> bool:
        """Answer the request; False when the path is not below a group version."""
        depth = 2 if parts[0] == "api" else 3
        if len(parts) <= depth:
            return False
        group, version = ("", parts[1]) if parts[0] == "api" else (parts[1], parts[2])
        rest = [unquote(part) for part in parts[depth:]]
        watching = rest[0] == "watch" and len(rest) > 1
        if watching:  # the old form of watching
            rest = rest[1:]
        namespace: str | None = None
        if (
            rest[0] == "namespaces"
            and len(rest) > 2
            and not (group == "" and rest[2] in ("status", "finalize"))
        ):
            namespace, rest = rest[1], rest[2:]
        kind = self._registry.find(group, version, rest[0])
        proxied: list[str] = []
        if len(rest) > 3 and kind is not None and kind.serves and rest[2] == "proxy":
            rest, proxied = rest[:3], rest[3:]
        if kind is None or len(rest) > 3 or (namespace is not None and not kind.namespaced):
            raise no_such_path()
        name = rest[1] if len(rest) > 1 else ""
        subresource = rest[2] if len(rest) > 2 else ""
        watching = watching or (request.method == "GET" and not subresource and request.flag("watch"))
        if watching and name:
            chosen = f"metadata.name={name}"
            request.query["fieldSelector"] = ",".join(
                filter(None, (request.query.get("fieldSelector"), chosen))
            )
            name = ""
        self._check(Target(kind, namespace or "", name, subresource), request, watching)
        if not name:
            await self._collection(kind, namespace, request, watching)
        elif kind.namespaced and namespace is None:
            raise no_such_path()
        else:
            await self._object(Target(kind, namespace or "", name, subresource), request, proxied)
        return True

    def _check(self, target: Target, request: Request, watching: bool) -> None:
        kind, verb = target.kind, _VERBS.get(request.method)
        if verb is None:
            raise not_allowed(f"{request.method} is not possible here")
        if not target.name:
            verb = {"get": "watch" if watching else "list", "delete": "deletecollection"}.get(verb, verb)
        if verb not in kind.verbs:
            why = kind.facade.refusal if kind.facade else f"{verb} is not possible for {kind.plural}"
            raise not_allowed(why)
        self._allow(target, request, verb)
        applied = verb == "patch" and negotiate.content_type(request.header("content-type")) == body.APPLY
        if applied and not target.subresource and self._store.latest(target.key) is None:
            self._allow(target, request, "create")

        if locked := self._store.locked.get(kind.stored_as):
            raise ApiError(503, "ServiceUnavailable", f"{kind.resource}: {locked}")

    def _allow(self, target: Target, request: Request, verb: str) -> None:
        kind = target.kind
        resource = f"{kind.plural}/{target.subresource}" if target.subresource else kind.plural
        access = Access(verb, kind.group, resource, target.namespace, target.name)
        if not roles.authorize(request.user, access):
            raise roles.refusal(request.user, access)

    async def _collection(self, kind: Kind, namespace: str | None, request: Request, watching: bool) -> None:
        if watching:
            return await watch.serve(self._store, self._watches, kind, namespace, request)
        if request.method in ("GET", "HEAD"):
            return await reads.list_objects(self._store, kind, namespace, request)
        if request.method not in ("POST", "DELETE"):
            raise not_allowed(f"{request.method} needs the name of an object in the path")
        if kind.verbs == ("create",):
            return await request.json(201, await reviews.answer(kind, request))
        if kind.namespaced and namespace is None:
            raise not_allowed("name the namespace in the path: namespaces/NAMESPACE/" + kind.plural)
        if request.method == "POST":
            data = await writes.create(self._store, kind, namespace or "", request)
            return await reads.answer_object(request, kind, data, 201)
        await request.json(200, await deletes.delete_collection(self._store, kind, namespace, request))

    async def _object(self, target: Target, request: Request, proxied: list[str]) -> None:
        match target.subresource:
            case "":
                await self._main(target, request)
            case "status" if target.kind.has_status:
                await self._write_or_get(target, request)
            case "scale" if target.kind.scale:
                await self._scale(target, request)
            case "proxy" if target.kind.serves:
                await self._proxy.answer(target, proxied, request)
            case "compare" if target.kind.serves and request.method == "POST":
                await comparing.compare(self._proxy, target, request)
            case "report" if target.kind.plural == "datasets" and request.method == "GET":
                await reports.serve_report(self._store, target, request, self._log_root)
            case "files" if target.kind.plural == "llmcheckpoints" and request.method in ("GET", "HEAD"):
                await export_files.serve(self._store, target, request, self._log_root)
            case "log" | "events" | "points" if target.kind.plural == "runs" and request.method == "GET":
                await self._told.answer(target, request)
            case "predictions" if target.kind.plural == "scorings" and request.method == "GET":
                await self._told.predictions(target, request)
            case "log" if target.kind.plural == "pods" and request.method == "GET":
                place = (target.kind, target.namespace, target.name)
                await pods.serve_log(
                    self._store, place, request, self._log_root, lambda: self._watches.over(request.user)
                )
            case _:
                raise no_such_path()

    async def _main(self, target: Target, request: Request) -> None:
        if request.method != "DELETE":
            return await self._write_or_get(target, request)
        data = await deletes.delete(self._store, target, request, self._own)
        await request.answer(200, data)

    async def _write_or_get(self, target: Target, request: Request) -> None:
        code = 200
        if request.method in ("GET", "HEAD"):
            data = reads.find(self._store, target.kind, target.namespace, target.name).data
        elif request.method == "PUT":
            data = await writes.replace(self._store, target, request)
        elif request.method == "PATCH":
            code, data = await writes.patch(self._store, target, request)
        else:
            raise not_allowed(f"{request.method} is not possible for an object")
        await reads.answer_object(request, target.kind, data, code)

    async def _scale(self, target: Target, request: Request) -> None:
        if request.method == "GET":
            entry = reads.find(self._store, target.kind, target.namespace, target.name)
            return await request.json(200, writes.scale_of(target.kind, orjson.loads(entry.data)))
        if request.method not in ("PUT", "PATCH"):
            raise not_allowed(f"{request.method} is not possible for scale")
        await request.json(200, await writes.write_scale(self._store, target, request))
