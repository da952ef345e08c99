"""The server as one ASGI app: who may ask, which path means what, and which part answers it."""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from datatunerx.server import builtin, discovery, events, kinds, origin, pods, roles, watch, writes
from datatunerx.server.about import BUILD
from datatunerx.server.collector import Collector
from datatunerx.server.errors import (
    ApiError,
    Json,
    bad_request,
    forbidden,
    internal_error,
    no_such_path,
    not_allowed,
    unauthorized,
)
from datatunerx.server.http import ASGIApp, ClientGone, Receive, Request, Scope, Send
from datatunerx.server.kinds import Kind, Registry
from datatunerx.server.negotiate import discovery as discovery_version
from datatunerx.server.openapi import Documents
from datatunerx.server.proxy import Proxy
from datatunerx.server.resource_paths import ResourcePaths
from datatunerx.server.roles import Access
from datatunerx.server.tokens import Tokens, User, administrator
from datatunerx.store import Event, Key, Store

log = logging.getLogger(__name__)

RUNS = "runs.datatunerx.io"
PROBES = ("/readyz", "/livez", "/healthz")
USER_EXTENSION = "datatunerx.user"


class KubeApp:
    """Answers the Kubernetes protocol; hands other paths to what is mounted there; see `create_app`."""

    def __init__(
        self,
        store: Store,
        crds: Sequence[Json],
        tokens: Tokens,
        hosts: Collection[str],
        mounts: Mapping[str, ASGIApp],
        log_root: Path | None,
        pages: Mapping[str, ASGIApp],
        allow_paths: Sequence[Path],
    ) -> None:
        self.store = store
        self._allow_paths = tuple(allow_paths)
        self.tokens = tokens
        self.watches = watch.Watches(tokens.valid)
        self._crds = crds
        self._names = origin.names(hosts)
        self._mounts = dict(mounts)
        self._pages = dict(pages)
        self._registry = Registry()
        self._documents = Documents(self._registry)
        self._collector = Collector(store, self._registry)
        self._collecting: asyncio.Task[None] | None = None
        own = frozenset(crd["metadata"]["name"] for crd in crds)
        self._proxy = Proxy(store, log_root)
        self._paths = ResourcePaths(store, self._registry, self.watches, log_root, own, self._proxy)
        self._load_kinds()

    # Life

    def _load_kinds(self) -> None:
        core = [*builtin.core_kinds(), events.newer_kind(), pods.pod_kind(RUNS)]
        for kind in [*core, *discovery.review_kinds()]:
            self._registry.add(kind)
        for crd in self._crds:
            self._registry.add(kinds.from_crd(crd))
        for entry in self.store.entries(builtin.CRDS):
            if entry.key.name not in {crd["metadata"]["name"] for crd in self._crds}:
                self._registry.add(kinds.from_crd(entry.decode()))
        for entry in self.store.entries(builtin.TOKENS):
            self.tokens.learn(entry.decode())
        self.store.listen(self._on_event)

    def _on_event(self, event: Event) -> None:
        if event.key.resource == builtin.TOKENS:
            self._on_token(event)
        if event.key.resource != builtin.CRDS:
            return
        self._registry.remove(event.key.name)
        if event.type != "DELETED":
            self._registry.add(kinds.from_crd(orjson.loads(event.data)))

    def _on_token(self, event: Event) -> None:
        obj = orjson.loads(event.data)
        if event.type == "DELETED" or "deletionTimestamp" in obj["metadata"]:  # held or not, it is revoked
            self.tokens.forget(event.key.name)
        else:
            self.tokens.learn(obj)
        self.watches.end_refused()

    async def start(self) -> None:
        """Make what must always be there and begin collecting garbage. Doing it again does nothing."""
        if self._collecting is not None:
            return
        for crd in self._crds:
            await self._ensure(builtin.CRDS, crd)
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
        await self._ensure(builtin.NAMESPACES, namespace)
        for resource, why in self.store.locked.items():
            log.error("not served until the server is started anew", extra={"kind": resource, "why": why})
        stored = [kind.resource for kind in self._registry if kind.facade is None and "list" in kind.verbs]
        stored = [resource for resource in stored if resource not in self.store.locked]
        self._collector.load(stored)
        self._collecting = asyncio.create_task(self._collector.run(), name="garbage-collector")
        self._collecting.add_done_callback(_tell_if_failed)

    async def stop(self) -> None:
        """End all watches and the collector. The store stays open: it belongs to who opened it."""
        self.watches.end_all()
        await self._proxy.close()
        if self._collecting is not None:
            self._collecting.cancel()
            await asyncio.gather(self._collecting, return_exceptions=True)
            self._collecting = None

    async def _ensure(self, resource: str, manifest: Json) -> None:
        """Create or update an object of the server's own; nothing is written when it is as it should be."""
        kind = self._registry.of_resource(resource)
        assert kind is not None
        entry = self.store.latest(Key(resource, "", manifest["metadata"]["name"]))
        await writes.ensure(self.store, kind, entry, manifest)

    # ASGI

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._lifespan(receive, send)
        if scope["type"] == "websocket":
            return await self._websocket(scope, receive, send)
        request = Request(scope, receive, send)
        try:
            await self._answer(request, scope, receive, send)
        except ApiError as error:
            await request.refuse(error)
        except ClientGone:
            return
        except RecursionError:
            await request.refuse(bad_request("the body is nested too deeply"))
        except Exception:
            # Whatever it is: clients understand a Status only, and what went wrong is for the log alone.
            log.exception("unforeseen error", extra={"method": request.method, "path": request.path})
            if request.started:
                raise
            await request.refuse(internal_error())

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.stop()
                return await send({"type": "lifespan.shutdown.complete"})

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        mounted = _under(self._mounts, scope["path"])
        request = Request({**scope, "method": "GET"}, receive, send)
        try:
            if pages := _under(self._pages, scope["path"]):
                origin.check(request, self._names)
                return await pages(scope, receive, send)
            user = self._user(scope, request)
        except ApiError:
            user = None
        if mounted is None or user is None:
            await receive()
            return await send({"type": "websocket.close", "code": 1008})
        await mounted({**scope, "user": user}, receive, send)

    def _user(self, scope: Scope, request: Request) -> User | None:
        # Only a caller in this process can put this here: from the network the listener makes the scope.
        name = (scope.get("extensions") or {}).get(USER_EXTENSION)
        if name:
            return name if isinstance(name, User) else administrator(str(name))
        origin.check(request, self._names)
        return self.tokens.user(request.header("authorization"))

    async def _answer(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        path = request.path.rstrip("/") or "/"
        if path in PROBES:
            return await request.answer(200, b"ok", "text/plain; charset=utf-8")
        if await self._page(path, request, scope, receive, send):
            return
        user = self._user(scope, request)
        if user is None:
            raise unauthorized()
        request.user, request.allowed_paths = user, self._allow_paths
        if request.header("impersonate-user"):
            why = "this server knows no impersonation; use a token of that user"
            raise forbidden(f'User "{user.name}" cannot impersonate anyone: {why}')
        if mounted := _under(self._mounts, path):
            request.started = True  # what becomes of it is the mounted app's affair
            return await mounted({**scope, "user": user}, receive, send)
        parts = path.strip("/").split("/")
        if parts[0] in ("api", "apis") and await self._paths.answer(parts, request):
            return
        access = Access(request.method.lower(), path=path)
        if not roles.authorize(user, access):
            raise roles.refusal(user, access)
        if request.method not in ("GET", "HEAD"):
            raise not_allowed(f"{request.method} is not possible here")
        await self._documents_of(parts, request)

    async def _page(self, path: str, request: Request, scope: Scope, receive: Receive, send: Send) -> bool:
        """Hand a request for a page to the app that has it, which knows its visitors itself."""
        if pages := _under(self._pages, path):
            origin.check(request, self._names)
            request.started = True
            await pages(scope, receive, send)
            return True
        browser = request.header("accept").startswith("text/html") and not request.header("authorization")
        if path == "/" and browser and self._pages:
            origin.check(request, self._names)
            await request.start(303, "text/plain", {"location": f"{next(iter(self._pages))}/"})
            await request.chunk(b"", more=False)
            return True
        return False

    async def _documents_of(self, parts: list[str], request: Request) -> None:
        """What describes the server itself."""
        match parts:
            case ["version"]:
                return await request.json(200, dict(BUILD))
            case ["api" | "apis"]:
                return await self._discovery(parts[0], request)
            case ["api", version]:
                return await self._resources("", version, request)
            case ["apis", group]:
                versions = self._registry.groups().get(group)
                if group and versions:
                    return await request.json(200, discovery.group(group, versions))
            case ["apis", group, version]:
                return await self._resources(group, version, request)
            case ["openapi", "v3"]:
                return await request.json(200, self._documents.index())
            case ["openapi", "v3", *rest]:
                if data := self._documents.get("/".join(rest)):
                    return await request.answer(200, data)
            case ["openapi", "v2"]:
                # Old clients die without this document and are content with an empty one. Its name on the
                # wire was "...v2@v1.0" once, which Go cannot parse.
                media = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
                return await request.answer(200, b"", media)
            case [""]:
                return await request.json(
                    200, {"paths": ["/api", "/apis", "/openapi/v3", "/version", *PROBES]}
                )
        raise no_such_path()

    async def _discovery(self, root: str, request: Request) -> None:
        if version := discovery_version(request.header("accept")):
            document = discovery.aggregated(self._registry, core=root == "api", version=version)
            media = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
            return await request.answer(200, orjson.dumps(document), media)
        legacy: Json = discovery.api_versions() if root == "api" else discovery.groups(self._registry)
        await request.json(200, legacy)

    async def _resources(self, group: str, version: str, request: Request) -> None:
        found: list[Kind] = [k for k in self._registry if k.group == group and k.version == version]
        if not found:
            raise no_such_path()
        await request.json(200, discovery.resource_list(group, version, found))


def _under(apps: Mapping[str, ASGIApp], path: str) -> ASGIApp | None:
    """The app whose prefix is the longest that the path begins with."""
    found = [at for at in apps if path == at or path.startswith(at.rstrip("/") + "/")]
    return apps[max(found, key=len)] if found else None


def _tell_if_failed(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.critical("garbage collector ended; restart the server", exc_info=error)


def create_app(
    store: Store,
    crds: Sequence[Mapping[str, Any]],
    *,
    tokens: Tokens,
    hosts: Collection[str] = (),
    mounts: Mapping[str, ASGIApp] | None = None,
    log_root: Path | None = None,
    pages: Mapping[str, ASGIApp] | None = None,
    allow_paths: Sequence[Path] = (),
) -> KubeApp:
    """An ASGI app that serves the kinds of `crds` from `store`.

    `tokens` are those that stay; the ones of Token objects are added as these come and go.
    `hosts` are the names of the certificate: further names the server may be called by.
    `mounts` are apps for other path prefixes; they get `scope["user"]`, and only with a token.
    `pages` are apps for path prefixes that know their visitors by themselves; they get everything from this
    origin, with or without a token. A browser that asks for / is led to the first of them.
    `allow_paths`: folders of this machine below which others than its owner may name files, too.
    `log_root`: worker logs outside it are not served.
    A call with `scope["extensions"]["datatunerx.user"]`, which only this process can make, is that user's:
    a `User` with its own rights, or the name of an administrator.
    Start it by the lifespan protocol, or with `start` and `stop`.
    """
    own = [dict(crd) for crd in crds]
    return KubeApp(store, own, tokens, hosts, mounts or {}, log_root, pages or {}, allow_paths)
