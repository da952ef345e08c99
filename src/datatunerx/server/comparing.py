"""One question to many models of a service at once, the answers side by side as they are made.

POST `.../inferenceservices/NAME/compare` with the body of a chat completion and `models` in place of `model`
(left out: all of the service). The answer is a stream of server-sent events:
`{"model": M, "delta": TEXT}` as text comes; `{"model": M, "answer": {...}}` or `{"model": M, "error": {...}}`
once each; then `[DONE]`. With `"stream": false` it is one document `{"answers": [...]}`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import orjson

from datatunerx.server.errors import Json
from datatunerx.server.http import Request
from datatunerx.server.proxy import Proxy, Refused, models, named, refuse, until_gone
from datatunerx.server.writes import Target

MAX_MODELS = 64
LINE_BYTES = 4 << 20
Tell = Callable[[Json], Awaitable[None]]


async def compare(proxy: Proxy, target: Target, request: Request) -> None:
    """Answer the call; what is refused is refused in OpenAI's shape."""
    try:
        asked = _asked(await request.body())
        service = proxy.service(target)
        names = _names(service, asked.pop("models", None))
        stream = asked.pop("stream", True)
        async with until_gone(request):
            await (_streamed if stream else _whole)(proxy, target, names, asked, request)
    except Refused as error:
        await refuse(request, error)


def _asked(body: bytes) -> Json:
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, "invalid_json", f"the body is not JSON: {error}") from None
    if not isinstance(asked, dict) or not isinstance(asked.get("messages"), list):
        raise Refused(400, "invalid_value", "messages: must be a list of {role, content}")
    if "model" in asked:
        raise Refused(400, "invalid_value", "model: name several as models, or use proxy/v1/chat/completions")
    if asked.get("n", 1) != 1:
        raise Refused(400, "invalid_value", "n: a comparison has one answer of each model")
    return asked


def _names(service: Json, wanted: Any) -> list[str]:
    """The models to ask, each once. Refused for a name that the service does not have."""
    if wanted is None:
        wanted = [entry["name"] for entry in models(service)]
    if not isinstance(wanted, list) or not wanted or not all(isinstance(name, str) for name in wanted):
        raise Refused(400, "invalid_value", "models: must be a list of names; leave it out for all")
    names = list(dict.fromkeys(wanted))
    if len(names) > MAX_MODELS:
        raise Refused(400, "invalid_value", f"models: at most {MAX_MODELS} at once, not {len(names)}")
    for name in names:
        named(service, name)
    return names


async def _streamed(proxy: Proxy, target: Target, names: list[str], asked: Json, request: Request) -> None:
    await request.start(200, "text/event-stream")
    lock = asyncio.Lock()

    async def tell(event: Json) -> None:
        async with lock:
            await request.chunk(b"data: " + orjson.dumps(event) + b"\n\n")

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(_ask(proxy, target, name, asked, tell))
    await request.chunk(b"data: [DONE]\n\n", more=False)


async def _whole(proxy: Proxy, target: Target, names: list[str], asked: Json, request: Request) -> None:
    found: dict[str, Json] = {}

    async def tell(event: Json) -> None:
        if "delta" not in event:
            found[event["model"]] = event

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(_ask(proxy, target, name, asked, tell))
    await request.json(200, {"answers": [found[name] for name in names]})


async def _ask(proxy: Proxy, target: Target, model: str, asked: Json, tell: Tell) -> None:
    """One model's answer, told as it comes; whatever goes wrong is told of this model alone."""
    began = time.perf_counter()
    body = orjson.dumps(asked | {"model": model, "stream": True, "stream_options": {"include_usage": True}})
    try:
        async with proxy.ask(target, model, "v1/chat/completions", body) as answer:
            if answer.status != 200:
                await tell({"model": model, "error": _error_of(await answer.read(), answer.status)})
                return
            await tell({"model": model, **await _read(answer, model, tell, began)})
    except Refused as error:
        await tell({"model": model, "error": error.document["error"]})
    except (aiohttp.ClientError, TimeoutError) as error:
        said = f"the worker went in the middle of the answer: {error or type(error).__name__}"
        await tell(
            {"model": model, "error": {"message": said, "code": "worker_lost", "type": "server_error"}}
        )


async def _read(answer: aiohttp.ClientResponse, model: str, tell: Tell, began: float) -> Json:
    """Tell the text as it comes; the answer as a whole, or the error in its place."""
    text: list[str] = []
    whole: Json = {"identity": {}, "finishReason": None}
    async for line in _lines(answer):
        if not line.startswith(b"data:") or line.strip() == b"data: [DONE]":
            continue
        chunk = orjson.loads(line[5:])
        if "error" in chunk:
            return {"error": chunk["error"]}
        for choice in chunk.get("choices") or []:
            if piece := (choice.get("delta") or {}).get("content"):
                text.append(piece)
                await tell({"model": model, "delta": piece})
            whole["finishReason"] = choice.get("finish_reason") or whole["finishReason"]
        if usage := chunk.get("usage"):
            whole["promptTokens"], whole["tokens"] = usage["prompt_tokens"], usage["completion_tokens"]
        whole["identity"] = chunk.get("datatunerx") or whole["identity"]
    if whole["finishReason"] is None:
        return {"error": {"message": "the answer broke off", "code": "worker_lost", "type": "server_error"}}
    seconds = time.perf_counter() - began
    timing = {"seconds": round(seconds, 4)}
    for fact in ("seconds", "firstTokenSeconds", "tokens", "tokensPerSecond", "notes"):
        if fact in whole["identity"]:  # as the worker measured it; ours has the waiting for a load in it
            timing[fact] = whole["identity"].pop(fact)
    timing.setdefault("tokensPerSecond", round(whole.get("tokens", 0) / max(seconds, 1e-9), 3))
    return {"answer": {"text": "".join(text), **whole, **timing}}


async def _lines(answer: aiohttp.ClientResponse) -> Any:
    rest = b""
    async for piece in answer.content.iter_any():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > LINE_BYTES:
            raise Refused(502, "worker_lost", "the worker sent a line without end")


def _error_of(body: bytes, status: int) -> Json:
    try:
        found: Json = orjson.loads(body)["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return {"message": f"the worker answered {status}", "code": "worker_failed", "type": "server_error"}
    return found
