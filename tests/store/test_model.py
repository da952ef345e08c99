"""Random operations against a dict: the store must agree, live, replayed, and after a restart."""

import json
import random

import pytest

from datatunerx.store import Conflict, Key, Store


@pytest.mark.parametrize("seed", range(5))
async def test_replaying_the_watch_equals_the_list_at_every_version(tmp_path, seed):
    rng = random.Random(seed)
    store = Store.open(tmp_path / "db")
    model: dict[Key, tuple[int, dict]] = {}
    lists: dict[int, dict[str, bytes]] = {0: {}}
    watch = store.watch("r", since=0)
    for step in range(300):
        key = Key(rng.choice(["r", "r", "s"]), rng.choice(["n1", "n2"]), f"o{rng.randrange(8)}")
        have = model.get(key)
        expected = have[0] if have and rng.random() < 0.9 else rng.choice([0, 1, step])
        obj = {"metadata": {"name": key.name}, "step": step}
        deleting = bool(have) and rng.random() < 0.3
        try:
            entry = await (store.delete if deleting else store.write)(key, obj, expected)
        except Conflict:
            assert (have[0] if have else 0) != expected
            continue
        assert (have[0] if have else 0) == expected
        if deleting:
            del model[key]
        else:
            model[key] = (entry.version, obj)
        lists[store.version] = {f"{e.key.namespace}/{e.key.name}": e.data for e in store.entries("r")}
        if step == 150:
            await store.close()
            store = Store.open(tmp_path / "db")
            watch = store.watch("r", since=0)

    replayed: dict[str, bytes] = {}
    last = 0
    for event in await watch.take(0):
        assert event.version > last
        for version in range(last, event.version):
            if version in lists:
                assert replayed == lists[version]
                assert {
                    f"{e.key.namespace}/{e.key.name}": e.data for e in store.entries("r", at=version)
                } == replayed
        name = f"{event.key.namespace}/{event.key.name}"
        assert (event.prev is not None) == (name in replayed)
        if event.type == "DELETED":
            assert replayed.pop(name) == event.prev
        else:
            replayed[name] = event.data
        last = event.version
    assert replayed == {f"{e.key.namespace}/{e.key.name}": e.data for e in store.entries("r")}
    assert {k: v[0] for k, v in model.items() if k.resource == "r"} == {
        e.key: e.version for e in store.entries("r")
    }
    assert all(json.loads(e.data)["step"] == model[e.key][1]["step"] for e in store.entries("r"))
    await store.close()
