"""Tokens of others: objects that hold a hash; revoked, they and what they follow are gone."""

import asyncio

import pytest

from datatunerx.server.app import create_app

TOKENS = "/apis/auth.datatunerx.io/v1/tokens"
RUNS = "/apis/datatunerx.io/v1/namespaces/team/runs"
CONFIGS = "/api/v1/namespaces/team/configmaps"


async def test_nobody_passes_for_somebody_else(caller):
    call = await caller("admin", "*")
    got = await call("GET", "/version", impersonate_user="bob")

    assert got.status == 403 and "no impersonation" in got.json["message"]


async def test_only_the_hash_of_a_token_is_at_rest(make_token, state, tmp_path):
    token, _ = await make_token("editor")
    for file in (tmp_path / "home").rglob("*"):
        assert not file.is_file() or token.encode() not in file.read_bytes(), file


async def test_tokens_are_known_again_after_a_restart(api, caller, state, stranger):
    call = await caller("viewer")
    fresh = create_app(state.store, [], tokens=type(state.tokens)({}))
    stranger.app = fresh

    assert (await call("GET", CONFIGS)).status == 200


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"user": "system:masters"}, "spec.user"),
        ({"user": "datatunerx:admin"}, "spec.user"),
        ({"user": ""}, "spec.user"),
        ({"role": "boss"}, "spec.role"),
        ({"namespaces": []}, "spec.namespaces"),
        ({"namespaces": None}, "spec.namespaces"),
        ({"sha256": "plain-token"}, "spec.sha256"),
        ({"expires": "tomorrow"}, "spec.expires"),
        ({"expires": ""}, "spec.expires"),
        ({"expires": "2030-13-01T00:00:00Z"}, "spec.expires"),
        ({"expires": "2030-01-01T00:00:00"}, "spec.expires"),
    ],
)
async def test_a_token_that_says_too_little_or_too_much_is_refused(api, spec, field):
    whole = {"user": "ann", "role": "viewer", "namespaces": ["team"], "sha256": "0" * 64}
    spec = {name: value for name, value in (whole | spec).items() if value is not None}
    got = await api.post(TOKENS, {"metadata": {"name": "t"}, "spec": spec})

    assert got.status == 422 and field in got.json["message"], got.body


async def test_whom_a_token_stands_for_cannot_be_changed(api, make_token):
    _, name = await make_token("viewer")
    for change in ({"user": "bob"}, {"sha256": "0" * 64}):
        got = await api.patch(f"{TOKENS}/{name}", {"spec": change})
        assert got.status == 422 and "immutable" in got.json["message"]


async def revoke(api, name):
    (await api.delete(f"{TOKENS}/{name}")).ok()


async def demote(api, name):
    (await api.patch(f"{TOKENS}/{name}", {"spec": {"namespaces": ["other"]}})).ok()


@pytest.mark.parametrize("end", [revoke, demote])
async def test_what_a_token_follows_ends_with_it_at_once(api, make_token, stranger, tmp_path, end):
    token, name = await make_token("viewer")
    run = {"apiVersion": "datatunerx.io/v1", "kind": "Run", "metadata": {"name": "r"}}
    (await api.post(RUNS, run)).ok()
    log = tmp_path / "log"
    log.write_text("first\n")
    status = {"status": {"phase": "Running", "logUri": log.as_uri()}}
    (await api.patch(f"{RUNS}/r/status", status)).ok()
    header = {"authorization": f"Bearer {token}"}
    watch = await stranger.watch(f"{CONFIGS}?watch=1", **header)
    following = asyncio.ensure_future(
        stranger.get("/api/v1/namespaces/team/pods/r/log?follow=true", **header)
    )
    mine = await api.watch(f"{CONFIGS}?watch=1")
    await asyncio.sleep(0.3)
    assert not following.done()
    await end(api, name)

    assert await watch.ended(10)
    assert (await asyncio.wait_for(following, 10)).body == b"first\n"
    (await api.post(CONFIGS, {"metadata": {"name": "c"}})).ok()
    assert await mine.names(1) == [("ADDED", "c")], "others go on"
    await mine.close()
    assert (await stranger.get(CONFIGS, **header)).status in (401, 403)


async def test_what_a_token_follows_ends_when_its_time_is_over(make_token, stranger):
    token, _ = await make_token("viewer", seconds=3)
    header = {"authorization": f"Bearer {token}"}
    watch = await stranger.watch(f"{CONFIGS}?watch=1", **header)

    assert await watch.ended(20)
    assert (await stranger.get(CONFIGS, **header)).status == 401
