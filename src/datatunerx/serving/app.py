"""The endpoint: routes, the token, errors in one shape, and answers whole or as they come."""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tokenizers import Tokenizer

from datatunerx.serving.answers import Reply
from datatunerx.serving.asking import Prepared, chat_prompts, prepare, text_prompts
from datatunerx.serving.catalogue import Catalogue, Model
from datatunerx.serving.engine import Engine, Piece, Request
from datatunerx.serving.errors import ApiError
from datatunerx.serving.metrics import Metrics
from datatunerx.serving.requests import ChatRequest, Common, CompletionRequest, parse

log = logging.getLogger(__name__)

BODY_BYTES = 8 << 20
STALL_SECONDS = 30.0
"""A client that takes nothing for so long is let go of."""
IDENTITY = "x-datatunerx-identity"

T = TypeVar("T")


@dataclass
class Service:
    """What the routes work with."""

    engine: Engine
    catalogue: Catalogue
    tokenizer: Tokenizer
    metrics: Metrics = field(init=False)
    completed: int = 0
    last_request: float | None = None
    """Seconds since 1970 at which a request last came or ended."""

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.engine)

    async def chat(self, http: HttpRequest) -> Response:
        asked = parse(ChatRequest, await _body(http))
        model = self.catalogue.find(asked.model)

        def work() -> Prepared:
            prompts = chat_prompts(model, asked)
            return prepare(
                self.engine, self.tokenizer, model, asked, prompts, asked.limit, asked.likeliest, "messages"
            )

        return await self._answer(http, model, asked, work, chat=True)

    async def completion(self, http: HttpRequest) -> Response:
        asked = parse(CompletionRequest, await _body(http))
        model = self.catalogue.find(asked.model)
        limit = asked.max_tokens or 16  # what OpenAI takes for a completion

        def work() -> Prepared:
            prompts = text_prompts(model, asked)
            return prepare(
                self.engine, self.tokenizer, model, asked, prompts, limit, asked.logprobs, "prompt"
            )

        return await self._answer(http, model, asked, work, chat=False)

    async def models(self, http: HttpRequest) -> Response:
        name = http.path_params.get("name")
        if name is not None:
            return JSONResponse(_listed(self.catalogue.find(name)))
        return JSONResponse({"object": "list", "data": [_listed(model) for model in self.catalogue.models]})

    async def health(self, http: HttpRequest) -> Response:
        return JSONResponse({"status": "ok"})

    async def metrics_text(self, http: HttpRequest) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    # -- answers

    async def _answer(
        self, http: HttpRequest, model: Model, asked: Common, work: Callable[[], Prepared], *, chat: bool
    ) -> Response:
        self.last_request = time.time()
        started = time.perf_counter()
        # rendering and tokenising wait for another process, and must not keep the other clients waiting
        try:
            prepared = await asyncio.to_thread(work)
        except ApiError as error:
            self.metrics.ended(model.name, error.status)
            raise
        request = Request(prepared.choices, asked=started)
        reply = Reply(
            f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}", chat, model, request, self.tokenizer,
            prepared.prompt_tokens, prepared.settings, prepared.notes,
        )  # fmt: skip
        headers = {IDENTITY: json.dumps(reply.made_by)}
        self.engine.submit(request)
        if asked.stream:
            return EventStream(self._chunks(reply, asked.wants_usage), self._ending(reply), headers)
        try:
            pieces = await _while_connected(http.receive, _all(request))
        finally:
            self._ending(reply)()
        if pieces is None:
            return Response(status_code=499)
        return Response(orjson.dumps(reply.whole(pieces)), media_type="application/json", headers=headers)

    async def _chunks(self, reply: Reply, usage: bool) -> AsyncIterator[bytes]:
        request = reply.request
        left = len(request.choices)
        for chunk in reply.opening():
            yield _event(chunk)
        try:
            while left:
                for piece in await request.pieces():
                    left -= piece.finish is not None
                    told = reply.chunk(piece, last=not left)
                    if told is not None:
                        yield _event(told | ({"usage": None} if usage else {}))
        except ApiError as error:
            yield _event(error.document)
            return
        if usage:
            yield _event(reply.closing())
        yield b"data: [DONE]\n\n"

    def _ending(self, reply: Reply) -> Callable[[], None]:
        def end() -> None:
            whole = all(choice.row.finish or choice.text.stopped for choice in reply.request.choices)
            self.engine.drop(reply.request)
            self.completed += 1
            self.last_request = time.time()
            status = 200 if whole else reply.request.error.status if reply.request.error else 499
            self.metrics.ended(reply.model.name, status, reply)

        return end


class EventStream(Response):
    """Server-sent events to a client that may vanish, or stop reading."""

    def __init__(
        self, chunks: AsyncIterator[bytes], end: Callable[[], None], headers: dict[str, str]
    ) -> None:
        super().__init__(headers=headers | {"cache-control": "no-cache"}, media_type="text/event-stream")
        del self.headers["content-length"]
        self._chunks, self._end = chunks, end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await _while_connected(receive, self._send(send))
        except TimeoutError:  # it reads nothing: who called us closes the connection
            log.warning("a client took nothing", extra={"seconds": STALL_SECONDS})
        finally:
            self._end()

    async def _send(self, send: Send) -> None:
        async def give(message: Message) -> None:
            async with asyncio.timeout(STALL_SECONDS):
                await send(message)

        await give({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for chunk in self._chunks:
            await give({"type": "http.response.body", "body": chunk, "more_body": True})
        await give({"type": "http.response.body", "body": b"", "more_body": False})


def create_app(service: Service, token: str) -> ASGIApp:
    """The endpoint for whoever has the token; only /health tells anything without it."""
    app = Starlette(
        routes=[
            Route("/health", service.health),
            Route("/metrics", service.metrics_text),
            Route("/v1/models", service.models),
            Route("/v1/models/{name:path}", service.models),
            Route("/v1/chat/completions", service.chat, methods=["POST"]),
            Route("/v1/completions", service.completion, methods=["POST"]),
        ],
        exception_handlers={ApiError: _on_error, HTTPException: _on_http, Exception: _on_bug},
    )
    return _Guarded(app, token)


class _Guarded:
    """Asks for the token before anything else is looked at."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._wanted = app, f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not secrets.compare_digest(given, self._wanted):
                error = ApiError(401, "the token is missing or wrong", "invalid_api_key")
                return await JSONResponse(error.document, error.status)(scope, receive, send)
        await self._app(scope, receive, send)


async def _all(request: Request) -> list[Piece]:
    """Every piece of every answer."""
    found: list[Piece] = []
    left = len(request.choices)
    while left:
        new = await request.pieces()
        left -= sum(piece.finish is not None for piece in new)
        found += new
    return found


async def _while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` returns; None if the client went before it was done, and the work with it."""
    doing, gone = asyncio.create_task(work), asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({doing, gone}, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        for task in (doing, gone):
            task.cancel()
        await asyncio.gather(doing, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(http: HttpRequest) -> bytes:
    found = bytearray()
    async for part in http.stream():
        found += part
        if len(found) > BODY_BYTES:
            raise ApiError(413, f"the body is larger than {BODY_BYTES:,} bytes", "request_too_large")
    return bytes(found)


def _listed(model: Model) -> dict[str, Any]:
    identity = model.identity
    return {
        "id": model.name, "object": "model", "created": model.since, "owned_by": "datatunerx",
        "datatunerx": {"base": identity.base, "adapter": identity.adapter, "template": identity.template},
    }  # fmt: skip


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


async def _on_error(http: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    headers = {"retry-after": str(error.retry_after)} if error.retry_after else None
    return JSONResponse(error.document, error.status, headers)


async def _on_http(http: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = f"{http.method} {http.url.path}: {error.detail}"
    return JSONResponse(ApiError(error.status_code, said, "not_found").document, error.status_code)


async def _on_bug(http: HttpRequest, error: Exception) -> Response:
    return JSONResponse(ApiError(500, "the service failed; its log says why", "failed").document, 500)
