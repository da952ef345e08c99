"""Who may ask, and what stays secret."""

import os
import stat

import pytest

from datatunerx.server.app import create_app
from datatunerx.server.state import open_state
from datatunerx.server.tokens import Tokens, User
from datatunerx.store import StoreError

WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"
PATHS = [
    *("/", "/version", "/api", "/apis", "/api/v1", "/apis/example.com/v1", "/openapi/v3", "/openapi/v2"),
    *(WIDGETS, f"{WIDGETS}/a", "/api/v1/namespaces/default/pods/a/log", "/console", "/nothing"),
]


async def test_every_path_wants_the_token(stranger):
    wrong = (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic abc"},
        {"authorization": "Bearer "},
    )
    for path in PATHS:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            for header in wrong:
                got = await stranger.call(method, path, **header)
                assert (got.status, got.json["reason"]) == (401, "Unauthorized"), (method, path, header)


@pytest.mark.parametrize("path", ["/readyz", "/livez", "/healthz"])
async def test_probes_are_open(stranger, path):
    got = await stranger.get(path)

    assert (got.status, got.body) == (200, b"ok")


async def test_the_token_lets_in_under_its_name(stranger, state):
    header = {"authorization": f"Bearer {state.token}"}
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "metadata": {}}
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    got = await stranger.call("POST", path, review, **header)

    assert got.status == 201
    assert got.json["status"]["userInfo"]["username"] == "datatunerx:admin"


MINE = "https://127.0.0.1:8443"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8443"}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "LocalHost:8443"}, 200),
        ({"host": "[::1]:8443"}, 200),
        ({"host": "box.example:8443"}, 200),
        ({"host": "a.many.example"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "a.b.many.example"}, 403),
        ({"host": "many.example"}, 403),
        ({"host": "*.many.example"}, 403),
        ({"host": "evil.example@127.0.0.1"}, 403),
        ({"host": "[::1"}, 403),
        ({"host": ""}, 403),
        ({"host": "127.0.0.1:8443", "origin": MINE}, 200),
        ({"host": "127.0.0.1:8443", "origin": "https://127.0.0.1:9000"}, 403),
        ({"host": "127.0.0.1:8443", "origin": "http://127.0.0.1:8443"}, 403),
        ({"host": "127.0.0.1:8443", "origin": "https://localhost:8443"}, 403),
        ({"host": "127.0.0.1:8443", "origin": "https://evil.example"}, 403),
        ({"host": "127.0.0.1:8443", "origin": "null"}, 403),
        ({"host": "localhost", "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, 200),
        ({"host": "localhost", "sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, 200),
        ({"host": "localhost", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
        ({"host": "localhost", "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"host": "localhost", "sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, 403),
    ],
)
async def test_a_page_of_another_site_cannot_use_the_server(stranger_of, state, headers, status):
    app = create_app(state.store, [], tokens=state.tokens, hosts=["box.example", "*.many.example"])
    sent = {"authorization": f"Bearer {state.token}", **headers}
    got = await stranger_of(app).get("/version", **sent)

    assert got.status == status


async def test_a_form_of_another_site_cannot_post_even_as_a_navigation(stranger, state):
    sent = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    got = await stranger.call("POST", WIDGETS, {}, authorization=f"Bearer {state.token}", **sent)

    assert got.status == 403


async def test_a_websocket_of_another_site_is_closed_before_it_opens(app):
    async def page(scope, receive, send):
        await send({"type": "websocket.accept"})

    app._mounts["/console"] = page
    said = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        said.append(message)

    headers = [(b"host", b"evil.example")]
    scope = {"type": "websocket", "path": "/console/ws", "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    await app({**scope, "extensions": {"datatunerx.user": "tester"}}, receive, send)

    assert said == [{"type": "websocket.close", "code": 1008}, {"type": "websocket.accept"}]


async def test_mounted_apps_are_behind_the_token_too(api, stranger, app):
    seen = []

    async def page(scope, receive, send):
        seen.append((scope["path"], scope["user"].name))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    app._mounts["/console"] = page
    assert (await stranger.get("/console/x")).status == 401
    assert (await api.get("/console/x")).body == b"hello"
    assert (await api.get("/consoles")).status == 404
    assert seen == [("/console/x", "tester")]


async def test_the_token_is_kept_and_nothing_in_the_home_is_for_others(tmp_path):
    state = open_state(tmp_path / "home")
    state.tls()
    state.write_kubeconfig(1234)
    await state.store.close()
    again = open_state(tmp_path / "home")
    await again.store.close()

    assert again.token == state.token
    for directory, _, names in os.walk(tmp_path / "home"):
        for name in names:
            assert stat.S_IMODE(os.stat(os.path.join(directory, name)).st_mode) == 0o600, name
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700


async def test_an_administrators_token_that_could_be_guessed_is_refused_with_its_file(tmp_path):
    (tmp_path / "token").write_text("hunter2")

    with pytest.raises(StoreError, match="token: shorter than 32 characters; delete it"):
        open_state(tmp_path)


def test_tokens_are_told_apart():
    tokens = Tokens.of({"aaa": User("ann"), "bbb": User("bob")})

    assert tokens.user("Bearer aaa") == User("ann")
    assert tokens.user("bearer bbb") == User("bob")
    assert tokens.user("Bearer aa") is None
