"""The way to a worker: who may go it, what goes along, where it never leads. The worker is a real server."""

import asyncio
import json
import time
from types import SimpleNamespace

import pytest
from aiohttp import web

from datatunerx.resources.crds import crd_manifests
from datatunerx.runs import Event, EventType, ServingState
from datatunerx.runs.files import EVENTS, TOKEN
from datatunerx.server import proxy
from datatunerx.server.app import create_app
from datatunerx.telemetry.events import encode

BASE = "/apis/datatunerx.io/v1beta1/namespaces/default"
ASK = f"{BASE}/inferenceservices/s/proxy/v1/chat/completions"
BODY = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}
PLAN = "ab" * 10


@pytest.fixture
async def app(state, tmp_path):
    app = create_app(state.store, crd_manifests(), tokens=state.tokens, log_root=tmp_path)
    await app.start()
    yield app
    await app.stop()
    await state.store.close()


@pytest.fixture
async def worker():
    """An endpoint on loopback that notes what reaches it, and answers as it is told to."""
    found = SimpleNamespace(requests=[], dropped=asyncio.Event(), told=[], status=200, slow=False)

    async def answer(request):
        headers = {name.lower(): value for name, value in request.headers.items()}
        found.requests.append((request.path, headers, await request.read()))
        if found.status != 200:
            error = {"message": "no", "code": found.told.pop() if found.told else "overloaded"}
            return web.json_response({"error": error}, status=found.status)
        if b'"stream":true' not in found.requests[-1][2].replace(b" ", b""):
            return web.json_response(
                {"choices": []}, headers={"set-cookie": "x=y", "x-datatunerx-identity": "{}"}
            )
        out = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await out.prepare(request)
        name = json.loads(found.requests[-1][2])["model"]
        try:
            for piece in ("one ", "two"):
                chunk = {"choices": [{"delta": {"content": piece}, "finish_reason": None}]}
                await out.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
                while found.slow:
                    await asyncio.sleep(0.01)
                    await out.write(b": still here\n\n")
            last = {
                "choices": [{"delta": {}, "finish_reason": "stop"}],
                "datatunerx": {
                    "base": "b",
                    "adapter": name,
                    "seconds": 1.0,
                    "tokens": 2,
                    "tokensPerSecond": 2.0,
                },
            }
            await out.write(b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n")
        except ConnectionError:
            found.dropped.set()
        return out

    server = web.Application()
    server.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield found
    await runner.cleanup()


@pytest.fixture
def serve(api, tmp_path):
    """Has service s, whose models are a and b, served at a URL, as controllers and a worker leave it."""

    async def serve(url, *, phase="Running", ready=True, plan=PLAN, reason=None, replicas=1):
        folder = tmp_path / "runs" / plan
        folder.mkdir(parents=True, exist_ok=True)
        state = ServingState(url=url)
        (folder / EVENTS).write_bytes(encode(Event(type=EventType.SERVING, serving=state)))
        (folder / TOKEN).write_text("worker-token")
        ours = {"apiVersion": "datatunerx.io/v1beta1"}
        run = ours | {
            "kind": "Run",
            "metadata": {"name": "r"},
            "spec": {"type": "serve", "planId": plan, "planUri": "file:///etc/x"},
        }
        made = await api.post(f"{BASE}/runs", run)
        assert made.status in (201, 409), made.body
        (await api.patch(f"{BASE}/runs/r/status", {"status": {"phase": phase, "reason": reason}})).ok()
        models = [{"kind": "LLM", "name": name} for name in "ab"]
        spec = {"models": models, "replicas": replicas}
        body = ours | {"kind": "InferenceService", "metadata": {"name": "s"}, "spec": spec}
        assert (await api.post(f"{BASE}/inferenceservices", body)).status in (201, 409)
        said = [model | {"ready": ready, "run": "r", "reason": None if ready else "Idle"} for model in models]
        status = {"phase": "Running" if ready else "Stopped", "models": said, "modelsReady": 2 * ready}
        (await api.patch(f"{BASE}/inferenceservices/s/status", {"status": status})).ok()

    return serve


async def test_the_workers_token_goes_along_and_the_callers_stays(api, worker, serve):
    await serve(worker.url)
    got = await api.call("POST", ASK, BODY, authorization="Bearer mine", cookie="c=1", x_secret="s")

    assert got.ok() == {"choices": []}
    path, headers, body = worker.requests[0]
    assert path == "/v1/chat/completions" and json.loads(body) == BODY
    assert headers["authorization"] == "Bearer worker-token"
    assert not {"cookie", "x-secret"} & headers.keys()
    assert got.headers["x-datatunerx-identity"] == "{}" and "set-cookie" not in got.headers


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/v1", "http://localhost.evil.example/v1", "https://127.0.0.1:1/v1",
        "http://127.0.0.1:1/other", "http://u@127.0.0.1:1/v1", "file:///etc/passwd",
        "http://127.0.0.1:1@10.0.0.1/v1",
    ],
)  # fmt: skip
def test_nothing_but_loopback_is_asked(url):
    assert not proxy.is_loopback(url)
    assert proxy.is_loopback("http://127.0.0.1:41234/v1")


async def test_a_run_whose_plan_id_is_a_path_leads_nowhere(api, worker, serve, monkeypatch):
    monkeypatch.setattr(proxy, "HOLD_SECONDS", 0.1)
    await serve(worker.url, plan=f"../runs/{PLAN}")

    assert (await api.post(ASK, BODY)).status == 503
    assert not worker.requests


async def test_only_two_paths_go_on_and_models_are_listed_without_the_worker(api, worker, serve):
    await serve(worker.url)
    place = f"{BASE}/inferenceservices/s/proxy"
    for path in ("metrics", "v1/../metrics", "v1/%2e%2e/metrics", "v1/embeddings", "", "v1"):
        assert (await api.post(f"{place}/{path}", BODY)).status in (404, 405), path
    assert (await api.get(f"{place}/v1/chat/completions")).status == 405
    listed = (await api.get(f"{place}/v1/models")).ok()
    assert [model["id"] for model in listed["data"]] == ["a", "b"]
    assert (await api.get(f"{place}/v1/models/zz")).status == 404
    assert not worker.requests


async def test_errors_are_in_the_shape_that_openai_clients_read(api, worker, serve):
    await serve(worker.url)
    unknown = await api.post(ASK, BODY | {"model": "zz"})
    assert unknown.status == 404 and "it has: a, b" in unknown.json["error"]["message"]
    for body in (b"{", b"[]", b'{"messages": []}'):
        assert (await api.call("POST", ASK, body)).json["error"]["type"] == "invalid_request_error"
    assert not worker.requests


async def test_a_viewer_may_not_ask_and_a_stranger_not_even_look(api, caller, stranger, worker, serve, team):
    await serve(worker.url)
    place = "/apis/datatunerx.io/v1beta1/namespaces/team/inferenceservices/s"
    body = {"messages": []}
    viewer, editor = await caller("viewer"), await caller("editor")
    for path in ("proxy/v1/chat/completions", "compare"):
        assert (await viewer("POST", f"{place}/{path}", body)).status == 403
        assert (await editor("POST", f"{place}/{path}", body)).status == 404  # no such service there
        assert (await stranger.call("POST", f"{place}/{path}", body)).status == 401
    assert (await viewer("GET", f"{place}/proxy/v1/models")).status == 403


async def test_an_unloaded_model_is_wished_for_and_the_request_held(api, worker, serve):
    await serve(worker.url, ready=False, phase="Succeeded")
    asking = asyncio.create_task(api.post(ASK, BODY))
    while True:
        meta = (await api.get(f"{BASE}/inferenceservices/s")).ok()["metadata"]
        if wanted := meta.get("annotations", {}).get("datatunerx.io/wanted"):
            break
        await asyncio.sleep(0.01)
    assert abs(float(wanted) - time.time()) < 5 and not asking.done()

    await serve(worker.url)
    assert (await asking).ok() == {"choices": []}


async def test_a_request_in_vain_is_told_when_to_come_again(api, worker, serve, monkeypatch):
    monkeypatch.setattr(proxy, "QUEUED_SECONDS", 0.2)
    await serve(worker.url, ready=False, phase="Pending", reason="Queued")
    got = await api.post(ASK, BODY)

    assert got.status == 503 and got.headers["retry-after"] == "5"
    assert got.json["error"]["code"] == "not_loaded"


async def test_what_is_unloaded_by_hand_is_not_wished_for(api, worker, serve):
    await serve(worker.url, ready=False, phase="Succeeded", replicas=0)
    got = await api.post(ASK, BODY)

    assert got.status == 503 and "replicas" in got.json["error"]["message"]
    assert "annotations" not in (await api.get(f"{BASE}/inferenceservices/s")).ok()["metadata"]


async def test_a_worker_that_is_leaving_is_waited_out(api, worker, serve, monkeypatch):
    monkeypatch.setattr(proxy, "HOLD_SECONDS", 0.5)
    await serve(worker.url)
    worker.status, worker.told = 503, ["stopping"]
    assert (await api.post(ASK, BODY)).json["error"]["code"] == "not_loaded"
    worker.told = []
    busy = await api.post(ASK, BODY)
    assert busy.json["error"]["code"] == "overloaded"  # that one is the client's to wait for


async def test_a_client_that_hangs_up_is_dropped_at_the_worker(app, worker, serve):
    await serve(worker.url)
    worker.slow = True
    left, begun = asyncio.Event(), asyncio.Event()
    given = [{"type": "http.request", "body": json.dumps(BODY | {"stream": True}).encode()}]

    async def receive():
        if given:
            return given.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message.get("body"):
            begun.set()

    scope = {
        "type": "http", "method": "POST", "path": ASK, "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")], "extensions": {"datatunerx.user": "tester"},
    }  # fmt: skip
    asking = asyncio.create_task(app(scope, receive, send))
    await asyncio.wait_for(begun.wait(), 60)  # it comes while the worker still works on it
    left.set()
    done, _ = await asyncio.wait({asking}, timeout=60)  # by itself: nobody cancels it
    assert done
    await asyncio.wait_for(worker.dropped.wait(), 60)


async def test_a_comparison_asks_all_at_once_and_says_what_made_each_answer(api, worker, serve):
    await serve(worker.url)
    body = {"models": ["a", "b"], "messages": BODY["messages"], "stream": False, "seed": 3}
    answers = (await api.post(f"{BASE}/inferenceservices/s/compare", body)).ok()["answers"]

    assert [one["model"] for one in answers] == ["a", "b"]
    for one in answers:
        assert one["answer"]["text"] == "one two" and one["answer"]["identity"]["adapter"] == one["model"]
        assert (one["answer"]["seconds"], one["answer"]["tokens"], one["answer"]["tokensPerSecond"]) == (
            1.0,
            2,
            2.0,
        )
    assert all(json.loads(body)["seed"] == 3 for _, _, body in worker.requests)


async def test_a_comparison_streams_and_one_failure_is_that_models_alone(api, worker, serve):
    await serve(worker.url)
    gone = {"kind": "LLM", "name": "b", "ready": False, "reason": "LLMNotFound", "message": "gone"}
    status = {"models": [{"kind": "LLM", "name": "a", "ready": True, "run": "r"}, gone]}
    (await api.patch(f"{BASE}/inferenceservices/s/status", {"status": status})).ok()
    got = await api.post(f"{BASE}/inferenceservices/s/compare", {"messages": BODY["messages"]})

    events = [json.loads(line[6:]) for line in got.body.splitlines() if line.startswith(b"data: {")]
    assert [e["delta"] for e in events if "delta" in e] == ["one ", "two"]
    assert next(e for e in events if e["model"] == "b")["error"]["message"].endswith("gone")
    assert next(e["answer"] for e in events if "answer" in e)["text"] == "one two"
    assert got.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"messages": [], "models": ["a", "zz"]}, "it has: a, b"),
        ({"messages": [], "models": []}, "models"),
        ({"models": ["a"]}, "messages"),
        ({"messages": [], "model": "a"}, "model:"),
        ({"messages": [], "n": 2}, "n:"),
    ],
)
async def test_a_comparison_that_cannot_be_is_refused_by_field(api, worker, serve, body, said):
    await serve(worker.url)
    got = await api.post(f"{BASE}/inferenceservices/s/compare", body)
    assert got.status in (400, 404) and said in got.json["error"]["message"]
    assert not worker.requests
