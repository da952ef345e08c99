"""What stays secret: values are sealed on disk, shown to who asks by name, and in no list."""

import asyncio
import base64
import contextlib
import json
import sqlite3
import stat

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from datatunerx.client.transport import InProcess
from datatunerx.server.app import create_app
from datatunerx.server.seal import FileKeySeal
from datatunerx.server.state import open_state

SECRETS = "/api/v1/namespaces/default/secrets"
APPLY = "application/apply-patch+yaml"
PLAIN = "correct-horse"
CODED = base64.b64encode(PLAIN.encode()).decode()
LAST = "kubectl.kubernetes.io/last-applied-configuration"
REDACTED = "datatunerx.io/redacted"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIALS = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


def holds(data: bytes) -> bool:
    return PLAIN.encode() in data or CODED.rstrip("=").encode() in data


@pytest.fixture
async def secret(api):
    """As client-side apply makes one: with its manifest, values and all, in an annotation."""
    body = {"metadata": {"name": "s", "annotations": {LAST: f'{{"stringData":"{PLAIN}"}}', "note": "mine"}}}
    return (await api.post(SECRETS, body | {"stringData": {"k": PLAIN, "l": "x"}})).ok()


async def test_who_gets_a_secret_by_name_gets_its_values(api, secret):
    assert (await api.get(f"{SECRETS}/s")).ok()["data"]["k"] == CODED
    assert secret["data"]["k"] == CODED and secret["type"] == "Opaque" and "stringData" not in secret
    assert (await api.patch(f"{SECRETS}/s", {"metadata": {"labels": {"a": "b"}}})).ok()["data"]["k"] == CODED


@pytest.mark.parametrize("accept", ["application/json", TABLE, PARTIALS])
@pytest.mark.parametrize("include", ["Object", "Metadata", "None"])
async def test_a_list_has_names_and_keys_and_no_value(api, secret, accept, include):
    for query in (f"includeObject={include}", f"includeObject={include}&fieldSelector=metadata.name%3Ds"):
        for path in (SECRETS, "/api/v1/secrets"):
            got = await api.get(f"{path}?{query}", accept=accept)
            assert got.status == 200 and b'"s"' in got.body
            assert not holds(got.body), got.body
    listed = (await api.get(SECRETS)).ok()["items"][0]
    assert listed["data"] == {"k": "", "l": ""}
    assert listed["metadata"]["annotations"] == {REDACTED: "true", "note": "mine"}
    assert (await api.get(SECRETS, accept=TABLE)).ok()["rows"][0]["cells"][1:3] == ["Opaque", 2]


@pytest.mark.parametrize("accept", ["application/json", TABLE, PARTIAL])
async def test_a_watch_has_no_value_either(api, accept):
    watches = [
        await api.watch(f"{SECRETS}?watch=1&includeObject=Object", accept=accept),
        await api.watch(f"{SECRETS}?watch=1&labelSelector=on", accept=accept),
        await api.watch(f"{SECRETS}/s?watch=1", accept=accept),
    ]
    labelled = {"metadata": {"name": "s", "labels": {"on": "1"}}}
    (await api.post(SECRETS, labelled | {"stringData": {"k": PLAIN}})).ok()
    (await api.patch(f"{SECRETS}/s", {"stringData": {"k": f"{PLAIN}-2"}})).ok()
    (await api.patch(f"{SECRETS}/s", {"metadata": {"labels": {"on": None}}})).ok()
    (await api.delete(f"{SECRETS}/s")).ok()
    for watch, count in zip(watches, (4, 3, 4), strict=True):
        for _ in range(count):
            assert not holds(str(await watch.next()).encode())
        await watch.close()


async def test_deleting_many_shows_none(api, secret):
    got = await api.call("DELETE", SECRETS)

    assert len(got.ok()["items"]) == 1 and not holds(got.body)


async def test_a_copy_from_a_list_is_not_taken_back(api, secret):
    copy = (await api.get(SECRETS)).ok()["items"][0]
    copy["apiVersion"], copy["kind"] = "v1", "Secret"
    got = await api.put(f"{SECRETS}/s", copy)

    assert got.status == 422 and "get the Secret by name" in got.json["message"]
    assert (await api.get(f"{SECRETS}/s")).ok()["data"]["k"] == CODED


@pytest.mark.parametrize(
    "body",
    [
        {"stringData": {"k": [PLAIN]}},
        {"stringData": PLAIN},
        {"stringData": [PLAIN]},
        {"data": {"k": PLAIN}},
        {"data": PLAIN},
        {"data": {"k": {"deep": PLAIN}}},
        {"data": {"k": PLAIN}, "immutable": PLAIN},
        {"type": {"x": PLAIN}},
        {"stringdata": {"k": PLAIN}},
    ],
)
@pytest.mark.parametrize("how", ["create", "strict", "merge", "apply"])
async def test_a_refusal_does_not_quote_the_value(api, secret, body, how, caplog):
    head = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s" if how in ("merge", "apply") else "t"},
    }
    if how in ("create", "strict"):
        query = "?fieldValidation=Strict" if how == "strict" else ""
        got = await api.post(SECRETS + query, head | body)
    elif how == "merge":
        got = await api.patch(f"{SECRETS}/s?fieldValidation=Strict", body)
    else:
        got = await api.apply(f"{SECRETS}/s", head | body, "me", force=True)
    assert got.status in (201, 200, 400, 422), got.body
    if got.status >= 400:
        assert not holds(got.body), got.body
    assert not holds(str(got.headers).encode()) and PLAIN not in caplog.text


async def test_a_patch_that_fails_and_a_conflict_do_not_quote_it(api, secret):
    test = [{"op": "test", "path": "/data/k", "value": "other"}]
    got = await api.patch(f"{SECRETS}/s", test, "application/json-patch+json")
    assert got.status == 422 and not holds(got.body)
    head = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    (await api.apply(f"{SECRETS}/s", head | {"data": {"k": CODED}}, "one", force=True)).ok()
    got = await api.apply(f"{SECRETS}/s", head | {"data": {"k": "b3RoZXI="}}, "two")
    assert got.status == 409 and not holds(got.body)


async def test_the_bookkeeping_of_owners_names_keys_not_values(api, secret):
    head = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    applied = (await api.apply(f"{SECRETS}/s", head | {"stringData": {"m": PLAIN}}, "me", force=True)).ok()

    assert not holds(str(applied["metadata"]["managedFields"]).encode())


async def test_nothing_of_it_is_on_disk_in_plain(api, secret, tmp_path):
    await api.patch(f"{SECRETS}/s", {"stringData": {"k": "battery-staple"}})
    await api.delete(f"{SECRETS}/s")
    for file in (tmp_path / "home").rglob("*"):
        if file.is_file():
            assert not holds(file.read_bytes()) and b"YmF0dGVyeS1zdGFwbGU" not in file.read_bytes(), file
    assert stat.S_IMODE((tmp_path / "home" / "secret.key").stat().st_mode) == 0o600


def test_a_sealed_value_opens_with_its_own_key_only(tmp_path):
    one, two = FileKeySeal(tmp_path / "one"), FileKeySeal(tmp_path / "two")
    sealed = one.seal(b"data")
    two.seal(b"")

    assert FileKeySeal(tmp_path / "one").unseal(sealed) == b"data"
    assert one.seal(b"data") != sealed
    with pytest.raises(ValueError, match="put back the key"):
        two.unseal(sealed)


def test_sealed_bytes_open_where_they_belong_and_nowhere_else(tmp_path):
    seal = FileKeySeal(tmp_path / "key")
    sealed = seal.seal(b"data", b"secrets\0team\0a")
    assert seal.unseal(sealed, b"secrets\0team\0a") == b"data"
    for place in (b"secrets\0other\0a", b"secrets\0team\0b", b""):
        with pytest.raises(ValueError, match="put back the key"):
            seal.unseal(sealed, place)


async def swapped(home, *, as_of_old=False):
    """A home with two Secrets, whose stored bytes are exchanged, or are as an older release wrote them."""
    state = open_state(home)
    app = create_app(state.store, [], tokens=state.tokens)
    await app.start()
    for name in ("mine", "yours"):
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"k": name}}
        request = InProcess(app).request("POST", SECRETS, body=json.dumps(body).encode())
        assert (await request).status == 201
    await app.stop()
    await state.store.close()
    seal = FileKeySeal(home / "secret.key")
    with contextlib.closing(sqlite3.connect(home / "db" / "objects.db")) as db:
        stored = dict(db.execute("SELECT name, data FROM current WHERE resource = 'secrets'"))
        for name, other in (("mine", "yours"), ("yours", "mine")):
            data = stored[other]
            if as_of_old:
                plain = seal.unseal(stored[name], f"secrets\0default\0{name}".encode())
                nonce = bytes(12)
                data = b"s1" + nonce + AESGCM((home / "secret.key").read_bytes()).encrypt(nonce, plain, b"s1")
            for table in ("current", "log"):
                put = f"UPDATE {table} SET data = ? WHERE resource = 'secrets' AND name = ?"
                db.execute(put, (data, name))
        db.commit()


async def test_a_secret_whose_stored_bytes_are_anothers_is_not_given_out(tmp_path):
    await swapped(tmp_path / "home")
    state = open_state(tmp_path / "home")
    assert "put there from elsewhere" in state.store.locked["secrets"]
    await state.store.close()


async def test_secrets_of_an_older_release_are_bound_to_their_place_when_the_store_is_opened(tmp_path):
    await swapped(tmp_path / "home", as_of_old=True)
    state = open_state(tmp_path / "home")
    assert state.store.locked == {}
    found = {e.key.name: e.decode()["data"]["k"] for e in state.store.entries("secrets")}
    await state.store.close()
    assert {name: base64.b64decode(value).decode() for name, value in found.items()} == {
        "mine": "mine",
        "yours": "yours",
    }
    with contextlib.closing(sqlite3.connect(tmp_path / "home" / "db" / "objects.db")) as db:
        for table in ("current", "log"):
            rows = db.execute(f"SELECT data FROM {table} WHERE resource = 'secrets'").fetchall()
            assert len(rows) == 2 and all(data.startswith(b"s2") for (data,) in rows)


def lose(key):
    key.unlink()


def replace(key):
    key.write_bytes(bytes(32))


def damage(key):
    key.write_bytes(b"not a key")


@pytest.mark.parametrize(
    ("harm", "told"), [(lose, "is missing"), (replace, "is not the key"), (damage, "holds no key")]
)
async def test_without_the_right_key_secrets_are_shut_and_all_else_works(api, secret, tmp_path, harm, told):
    await api.app.stop()
    await api.app.store.close()
    key = tmp_path / "home" / "secret.key"
    right = key.read_bytes()
    harm(key)
    state = open_state(tmp_path / "home")
    api.app = create_app(state.store, [], tokens=state.tokens)
    await api.app.start()
    body = {"metadata": {"name": "t"}, "stringData": {"k": "v"}}
    calls = [("GET", SECRETS), ("GET", f"{SECRETS}/s"), ("POST", SECRETS), ("DELETE", f"{SECRETS}/s")]
    for method, path in (*calls, ("GET", f"{SECRETS}?watch=1")):
        got = await api.call(method, path, body if method == "POST" else None)
        assert got.status == 503 and str(key) in got.json["message"] and told in got.json["message"]
        assert "put back" in got.json["message"]
    configs = "/api/v1/namespaces/default/configmaps"
    (await api.post(configs, {"metadata": {"name": "c"}})).ok()
    (await api.post("/api/v1/namespaces", {"metadata": {"name": "n"}})).ok()
    await api.delete("/api/v1/namespaces/n")
    await asyncio.sleep(0.1)
    assert (await api.get("/api/v1/namespaces/n")).status == 200, "it may hold Secrets that nobody can see"
    await api.app.stop()
    await state.store.close()

    key.write_bytes(right)
    state = open_state(tmp_path / "home")
    api.app = create_app(state.store, [], tokens=state.tokens)
    await api.app.start()
    assert (await api.get(f"{SECRETS}/s")).ok()["data"]["k"] == CODED
    assert (await api.get(f"{configs}/c")).status == 200
    await api.app.stop()
    await state.store.close()
