"""Who may ask, and what stays secret."""

import os
import stat

import pytest

from datatunerx.server.app import create_app
from datatunerx.server.reviews import Access
from datatunerx.server.seal import FileKeySeal
from datatunerx.server.state import open_state
from datatunerx.server.tokens import Tokens, User

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


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8443"}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "[::1]:8443"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": ""}, 403),
        ({"host": "127.0.0.1", "origin": "https://localhost:1"}, 200),
        ({"host": "127.0.0.1", "origin": "https://evil.example"}, 403),
        ({"host": "127.0.0.1", "origin": "null"}, 403),
    ],
)
async def test_a_page_of_another_site_cannot_use_the_server(stranger, state, headers, status):
    got = await stranger.get("/version", authorization=f"Bearer {state.token}", **headers)

    assert got.status == status


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


async def test_roles_have_a_seam(api, app, state, widget):
    def only_reading(user: User, access: Access) -> bool:
        return access.verb in ("get", "list", "watch")

    limited = create_app(state.store, app._crds, tokens=state.tokens, authorize=only_reading)
    api.app = limited
    assert (await api.get(WIDGETS)).status == 200
    got = await api.post(WIDGETS, widget("a"))
    assert got.status == 403 and 'User "tester" cannot create' in got.json["message"]
    review = {
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "create", "group": "example.com", "resource": "widgets"}},
    }  # fmt: skip
    answer = (await api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)).ok()
    assert answer["status"]["allowed"] is False


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
    assert state.token not in (tmp_path / "home" / "tokens.json").read_text()


async def test_certificates_are_kept_and_made_anew_for_a_new_name(tmp_path):
    state = open_state(tmp_path / "home")
    first = state.tls().certificate.read_bytes()
    assert state.tls().certificate.read_bytes() == first
    authority = state.tls().ca.read_bytes()
    assert state.tls("box.example").certificate.read_bytes() != first
    assert state.tls().ca.read_bytes() == authority
    await state.store.close()


async def test_a_secret_is_plain_to_its_reader_and_to_nobody_on_disk(api, state, tmp_path):
    path = "/api/v1/namespaces/default/secrets"
    made = (await api.post(path, {"metadata": {"name": "s"}, "stringData": {"k": "correct-horse"}})).ok()
    assert (
        made["data"] == {"k": "Y29ycmVjdC1ob3JzZQ=="}
        and made["type"] == "Opaque"
        and "stringData" not in made
    )
    await api.patch(f"{path}/s", {"stringData": {"k": "battery-staple"}})
    await api.delete(f"{path}/s")

    for file in (tmp_path / "home" / "db").iterdir():
        for needle in (b"correct-horse", b"Y29ycmVjdC1ob3JzZQ", b"YmF0dGVyeS1zdGFwbGU", b"battery-staple"):
            assert needle not in file.read_bytes()
    assert (await api.post(path, {"metadata": {"name": "t"}, "data": {"k": "not base64!"}})).status == 422


def test_a_sealed_value_opens_with_its_own_key_only(tmp_path):
    one, two = FileKeySeal(tmp_path / "one"), FileKeySeal(tmp_path / "two")
    sealed = one.seal(b"data")

    assert FileKeySeal(tmp_path / "one").unseal(sealed) == b"data"
    assert one.seal(b"data") != sealed
    with pytest.raises(ValueError, match="put back the key"):
        two.unseal(sealed)


def test_tokens_are_told_apart():
    tokens = Tokens.of({"aaa": User("ann"), "bbb": User("bob")})

    assert tokens.user("Bearer aaa") == User("ann")
    assert tokens.user("bearer bbb") == User("bob")
    assert tokens.user("Bearer aa") is None
