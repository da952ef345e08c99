"""From a service's place in the API to the worker that serves it: with the caller's rights, as it comes.

Where a worker listens and its token are read from its run's own folder, found by plan id under our root, and
must be loopback: nothing that a user can write decides where a request goes. Of the request only the body,
Accept and Content-Type go on; the caller's token stays here.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from datatunerx.resources.wire import WANTED
from datatunerx.runs import files
from datatunerx.server import writes
from datatunerx.server.errors import ApiError, Json, not_found
from datatunerx.server.http import Message, Request
from datatunerx.server.writes import Target
from datatunerx.store import Key, Store
from datatunerx.telemetry.events import read_page

RUNS = "runs.datatunerx.io"
HOLD_SECONDS = 60.0
"""So long a request waits for its model to be loaded; a queue for the device is not waited for so long."""
QUEUED_SECONDS = 8.0
SETTLE_SECONDS = 5.0
"""What cannot be served for another reason is given so long: a wish may have it tried again."""
RETRY_SECONDS = 5
LOOK_SECONDS = 0.05
MARK_SECONDS = 2.0
"""Between two marks of a wish for one service."""
CONNECT_SECONDS = 5.0
SILENT_SECONDS = 600.0
"""A worker that says nothing for so long in the middle of an answer has lost it."""
FORWARDED = ("v1/chat/completions", "v1/completions")
STOPPING = "stopping"
"""What a worker says that takes no more requests: the next one of the model will."""
_ANSWERED = ("content-type", "retry-after", "x-datatunerx-identity")
_PLAN_ID = re.compile(r"[0-9a-f]{8,64}")
_COMING = frozenset({"", "Idle", "Loading", "Replaced", "Starting", "Stopped", "Stopping", "Yielded"})
"""Reasons of a model that is loaded when it is asked for, or is being loaded."""
_NOT_THERE = frozenset({"LLMNotFound", "LLMCheckpointNotFound", "NameTaken"})


class Refused(Exception):
    """An answer that OpenAI's clients understand."""

    def __init__(self, status: int, code: str, message: str, retry: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry = status, code, message, retry

    @property
    def document(self) -> Json:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": None, "code": self.code}}


@dataclass(frozen=True)
class Worker:
    """A process that serves, and how to speak to it."""

    url: str
    """Ends with /v1."""
    token: str
    run: str


class Proxy:
    def __init__(self, store: Store, log_root: Path | None) -> None:
        self._store = store
        self._root = log_root
        self._session: aiohttp.ClientSession | None = None
        self._said: dict[Path, tuple[int, str]] = {}
        """Of each run's events: how far they are read, and the URL said last."""
        self._marked: dict[Key, float] = {}

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def answer(self, target: Target, rest: list[str], request: Request) -> None:
        """Answer `.../proxy/REST`; what is refused here is refused in OpenAI's shape."""
        try:
            await self._answer(target, "/".join(rest), request)
        except Refused as error:
            await refuse(request, error)

    async def _answer(self, target: Target, path: str, request: Request) -> None:
        service = self.service(target)
        if request.method in ("GET", "HEAD") and path == "health":
            ready = (service.get("status") or {}).get("modelsReady", 0)
            return await request.json(200, {"status": "ok" if ready else "not loaded", "modelsReady": ready})
        if request.method in ("GET", "HEAD") and path == "v1/models":
            return await request.json(200, {"object": "list", "data": [_listed(m) for m in models(service)]})
        if request.method in ("GET", "HEAD") and path.startswith("v1/models/"):
            return await request.json(200, _listed(named(service, path.removeprefix("v1/models/"))))
        if path not in FORWARDED:
            raise Refused(
                404, "not_found", f"no such path: {path}; there are v1/models, {', '.join(FORWARDED)}"
            )
        if request.method != "POST":
            raise Refused(405, "method_not_allowed", f"{path} takes POST")
        body = await request.body()
        model = model_of(body)
        async with (
            until_gone(request),
            self.ask(target, model, path, body, request.header("accept")) as answer,
        ):
            await _relay(answer, request)

    # The worker

    def service(self, target: Target) -> Json:
        entry = self._store.latest(target.key)
        if entry is None:
            raise not_found(target.kind.resource, target.name)
        found: Json = orjson.loads(entry.data)
        return found

    @asynccontextmanager
    async def ask(
        self, target: Target, model: str, path: str, body: bytes, accept: str = ""
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The worker's answer, as soon as it begins. Waits for the model to be loaded; Refused if in vain."""
        began, avoided = time.monotonic(), ""
        while True:
            worker = await self._worker(target, model, began, avoided)
            headers = {"authorization": f"Bearer {worker.token}", "content-type": "application/json"}
            headers |= {"accept": accept} if accept else {}
            url = worker.url + path.removeprefix("v1")
            try:
                answer = await self._open().post(url, data=body, headers=headers, allow_redirects=False)
            except aiohttp.ClientConnectionError:
                avoided = worker.run  # it has just gone, and its Run does not say so yet
                continue
            except TimeoutError:
                raise Refused(504, "timeout", f"the worker of {model} did not answer in time") from None
            if answer.status == 503:
                error = await _refusal(answer)
                if error.code != STOPPING:
                    raise error
                avoided = worker.run
                continue
            try:
                yield answer
            finally:
                answer.close()  # not released: what is left of a dropped answer is not to be made
            return

    async def _worker(self, target: Target, model: str, began: float, avoided: str) -> Worker:
        """Who serves the model, loaded if it is not; a run that proved dead is not asked again."""
        while True:
            service = self.service(target)
            entry = named(service, model)
            run = str(entry.get("run") or "")
            found = self._endpoint(target.namespace, run) if entry.get("ready") and run != avoided else None
            if found:
                return found
            if service["spec"].get("replicas", 1) == 0:
                raise Refused(
                    503, "unloaded", f"{target.name} is unloaded: spec.replicas is 0; scale it to 1"
                )
            if (service.get("status") or {}).get("phase") in ("Stopped", "Failed") or run == avoided:
                await self._mark(target)
            if time.monotonic() - began > self._patience(entry, target.namespace):
                why = entry.get("message") or "its worker is being started"
                raise Refused(503, "not_loaded", f"model {model} is not served now: {why}", RETRY_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    def _patience(self, entry: Json, namespace: str) -> float:
        """Seconds that a request waits for a model that stands as it does."""
        reason = entry.get("reason") or ""
        if reason in _NOT_THERE:
            return 0.0
        run = self._store.latest(Key(RUNS, namespace, str(entry.get("run") or "")))
        if run is not None and (run.decode().get("status") or {}).get("reason") == "Queued":
            return QUEUED_SECONDS
        return HOLD_SECONDS if reason in _COMING or entry.get("ready") else SETTLE_SECONDS

    def _endpoint(self, namespace: str, run: str) -> Worker | None:
        """Where the run's worker listens, by its own files; None if it does not, or did not say so."""
        entry = self._store.latest(Key(RUNS, namespace, run))
        if entry is None or self._root is None:
            return None
        found: Json = orjson.loads(entry.data)
        plan_id = str(found["spec"].get("planId", ""))
        if (found.get("status") or {}).get("phase") != "Running" or not _PLAN_ID.fullmatch(plan_id):
            return None
        folder = self._root / "runs" / plan_id
        url = self._url(folder)
        try:
            token = (folder / files.TOKEN).read_text().strip()
        except OSError:
            return None
        return Worker(url, token, run) if url and is_loopback(url) else None

    def _url(self, folder: Path) -> str:
        offset, url = self._said.pop(folder, (0, ""))
        while True:
            page = read_page(folder / files.EVENTS, offset)
            for event in page.events:
                url = (event.serving.url if event.serving else None) or url
            if page.offset == offset:
                break
            offset = page.offset
        self._said[folder] = (offset, url)
        while len(self._said) > 256:
            del self._said[next(iter(self._said))]
        return url

    async def _mark(self, target: Target) -> None:
        """Leave the wish for the controller: an annotation with the time."""
        now = time.monotonic()
        if now - self._marked.get(target.key, -MARK_SECONDS) < MARK_SECONDS:
            return
        self._marked[target.key] = now
        note = orjson.dumps({"metadata": {"annotations": {WANTED: f"{time.time():.3f}"}}})
        try:
            await writes.patch(self._store, target, _own_request(note))
        except ApiError as error:
            if error.code != 409:
                raise

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS
            )
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, trust_env=False, auto_decompress=False
            )
        return self._session


# What a service says of its models


def models(service: Json) -> list[Json]:
    """One entry per model of the spec, with what the status says of it."""
    said = {(m["kind"], m["name"]): m for m in (service.get("status") or {}).get("models") or []}
    refs = service["spec"].get("models") or []
    return [said.get((ref.get("kind", "LLMCheckpoint"), ref["name"]), ref) for ref in refs]


def named(service: Json, model: str) -> Json:
    """The entry of the model. Refused, with the names there are, if the service has none of that name."""
    found = [entry for entry in models(service) if entry["name"] == model]
    if not found:
        names = ", ".join(entry["name"] for entry in models(service))
        raise Refused(
            404,
            "model_not_found",
            f"{service['metadata']['name']} serves no model {model!r}; it has: {names}",
        )
    return next((entry for entry in found if entry.get("ready")), found[0])


def _listed(entry: Json) -> Json:
    identity = {"base": entry.get("baseDigest", ""), "adapter": entry.get("adapterDigest") or None}
    return {
        "id": entry["name"], "object": "model", "created": 0, "owned_by": "datatunerx",
        "datatunerx": {"ready": bool(entry.get("ready")), "reason": entry.get("reason"), **identity},
    }  # fmt: skip


def model_of(body: bytes) -> str:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, "invalid_json", f"the body is not JSON: {error}") from None
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(model, str):
        raise Refused(400, "invalid_value", "model: must be the name of a model; see v1/models")
    return model


def is_loopback(url: str) -> bool:
    """Whether it is plain HTTP on this machine and below /v1."""
    parts = urlsplit(url)
    return (
        parts.scheme == "http"
        and parts.hostname in ("127.0.0.1", "::1")
        and parts.username is None
        and parts.path == "/v1"
        and not parts.query
    )


# The exchange


async def refuse(request: Request, error: Refused) -> None:
    headers = {"retry-after": str(error.retry)} if error.retry else None
    await request.answer(error.status, orjson.dumps(error.document), headers=headers)


async def _refusal(answer: aiohttp.ClientResponse) -> Refused:
    """What a worker that takes no request says."""
    try:
        said = orjson.loads(await answer.read())["error"]
        return Refused(503, str(said.get("code")), str(said["message"]), RETRY_SECONDS)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return Refused(503, "unavailable", "the worker takes no request now", RETRY_SECONDS)


async def _relay(answer: aiohttp.ClientResponse, request: Request) -> None:
    """Head and pieces as they come; the client's pace is the worker's."""
    told = {name: answer.headers[name] for name in _ANSWERED if name in answer.headers}
    form = told.pop("content-type", "application/json")
    await request.start(answer.status, form, told)
    try:
        async for piece in answer.content.iter_any():
            await request.chunk(piece)
    except (aiohttp.ClientError, TimeoutError) as error:
        if not form.startswith("text/event-stream"):
            raise
        lost = Refused(502, "worker_lost", f"the worker went in the middle of the answer: {error}")
        await request.chunk(b"data: " + orjson.dumps(lost.document) + b"\n\n")
    await request.chunk(b"", more=False)


@asynccontextmanager
async def until_gone(request: Request) -> AsyncIterator[None]:
    """The block is left, by cancelling it, as soon as the client hangs up."""
    block = asyncio.current_task()
    assert block
    hung_up = False

    async def watch() -> None:
        nonlocal hung_up
        await request.gone()
        hung_up = True
        block.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not hung_up or block.uncancel():  # somebody else cancelled it, too
            raise
    finally:
        watching.cancel()


def _own_request(patch: bytes) -> Request:
    """A merge patch of the server's own."""

    async def receive() -> Message:
        return {"type": "http.request", "body": patch, "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        raise AssertionError("a patch of the server's own is answered to nobody")

    scope = {
        "method": "PATCH",
        "path": "",
        "query_string": b"fieldManager=datatunerx-proxy",
        "headers": [(b"content-type", b"application/merge-patch+json")],
    }
    return Request(scope, receive, send)
