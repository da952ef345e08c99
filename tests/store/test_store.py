import asyncio
import os
import sqlite3
import subprocess
import sys

import pytest

from datatunerx.store import Broken, Conflict, Expired, Key, Locked, Store, StoreError, database

THINGS = "things.example.com"


async def test_a_write_takes_the_next_version_and_is_read_back(store, make, key):
    first = await store.write(key("a"), make("a", x=1), 0)
    second = await store.write(key("a"), make("a", x=2), first.version)

    assert second.version == first.version + 1 == store.version
    assert store.get(key("a")).decode() == {"metadata": {"name": "a", "resourceVersion": "2"}, "x": 2}


async def test_a_write_against_an_old_version_is_refused_and_changes_nothing(store, make, key):
    first = await store.write(key("a"), make("a"), 0)
    second = await store.write(key("a"), make("a", x=1), first.version)

    with pytest.raises(Conflict):
        await store.write(key("a"), make("a", x=2), first.version)
    with pytest.raises(Conflict):
        await store.write(key("a"), make("a"), 0)
    with pytest.raises(Conflict):
        await store.delete(key("b"), make("b"), 7)

    assert store.get(key("a")) == second


async def test_of_many_writers_from_one_version_exactly_one_wins(store, make, key):
    first = await store.write(key("a"), make("a"), 0)
    writes = [store.write(key("a"), make("a", by=i), first.version) for i in range(20)]
    results = await asyncio.gather(*writes, return_exceptions=True)

    assert sum(isinstance(result, Conflict) for result in results) == 19


async def test_one_counter_serves_all_resources(store, make, key):
    await store.write(key("a"), make("a"), 0)
    other = await store.write(key("a", resource="others"), make("a"), 0)

    assert other.version == 2
    assert [entry.key.name for entry in store.entries(THINGS)] == ["a"]


async def test_the_writer_syncs_every_commit(store):
    assert store.pragma("synchronous") == 2, "FULL: without the fsync an acknowledged write can be lost"
    assert store.pragma("journal_mode") == "wal"


async def test_an_answer_waits_for_the_commit_and_readers_see_nothing_before(store, make, key, tmp_path):
    other = sqlite3.connect(tmp_path / "db" / "objects.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # the writer thread cannot commit while this lasts
    write = asyncio.ensure_future(store.write(key("a"), make("a"), 0))
    await asyncio.sleep(0.2)

    assert not write.done()
    assert store.get(key("a")) is None
    assert store.version == 0
    assert store.latest(key("a")) is not None, "the next writer must see it"

    other.execute("ROLLBACK")
    other.close()
    await write
    assert store.get(key("a")) is not None


async def test_everything_survives_a_restart_and_versions_go_on(tmp_path, make, key):
    store = Store.open(tmp_path / "db")
    for name in "abc":
        await store.write(key(name), make(name), 0)
    await store.delete(key("b"), make("b"), store.get(key("b")).version)
    await store.close()

    store = Store.open(tmp_path / "db")
    assert [entry.key.name for entry in store.entries(THINGS)] == ["a", "c"]
    assert (await store.write(key("d"), make("d"), 0)).version == 5
    events = await store.watch(THINGS, since=2).take(0)
    assert [(event.version, event.type, event.key.name) for event in events] == [
        (3, "ADDED", "c"),
        (4, "DELETED", "b"),
        (5, "ADDED", "d"),
    ]
    await store.close()


async def test_a_second_store_on_the_same_data_is_refused_with_the_pid(tmp_path, store):
    code = "import sys, pathlib, datatunerx.store as s; s.Store.open(pathlib.Path(sys.argv[1]))"
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code, str(tmp_path / "db")], capture_output=True, text=True
    )

    assert done.returncode != 0
    assert f"in use by another server (pid {os.getpid()})" in done.stderr

    with pytest.raises(Locked, match="another data directory"):
        Store.open(tmp_path / "db")


async def test_a_closed_store_lets_the_next_one_in_and_takes_no_writes(tmp_path, make, key):
    store = Store.open(tmp_path / "db")
    await store.close()

    with pytest.raises(StoreError, match="stopping"):
        await store.write(key("a"), make("a"), 0)
    await Store.open(tmp_path / "db").close()


async def test_a_list_can_be_taken_as_it_was(store, make, key):
    await store.write(key("a"), make("a", x=1), 0)
    await store.write(key("b"), make("b"), 0)
    before = store.version
    was = [(entry.key.name, entry.decode()) for entry in store.entries(THINGS)]
    await store.write(key("a"), make("a", x=2), 1)
    await store.delete(key("b"), make("b"), 2)
    await store.write(key("c"), make("c"), 0)

    assert [(entry.key.name, entry.decode()) for entry in store.entries(THINGS, at=before)] == was


async def test_history_is_bounded_and_what_is_forgotten_is_said(tmp_path, make, key):
    store = Store.open(tmp_path / "db", history_bytes=20_000)
    for i in range(200):
        await store.write(key(f"n{i}"), make(f"n{i}", pad="x" * 200), 0)

    assert 0 < store.floor < 200
    with pytest.raises(Expired):
        store.watch(THINGS, since=store.floor - 1)
    with pytest.raises(Expired):
        store.entries(THINGS, at=store.floor - 1)
    assert len(await store.watch(THINGS, since=store.floor).take(0)) == 200 - store.floor
    with pytest.raises(Expired, match="not from this database"):
        store.watch(THINGS, since=store.version + 1)
    await store.close()


async def test_the_log_on_disk_is_compacted_with_the_history(tmp_path, make, key, monkeypatch):
    monkeypatch.setattr("datatunerx.store.store.COMPACT_EVERY", 50)
    store = Store.open(tmp_path / "db", history_bytes=20_000)
    for i in range(300):
        await store.write(key("a"), make("a", pad="x" * 200, i=i), i)
    floor = store.floor
    await store.close()

    db = sqlite3.connect(tmp_path / "db" / "objects.db")
    rows = db.execute("SELECT COUNT(*) FROM log").fetchone()[0]
    db.close()
    assert rows < 150
    store = Store.open(tmp_path / "db", history_bytes=20_000)
    assert store.get(key("a")).decode()["i"] == 299
    assert store.floor >= floor - 60
    await store.close()


async def test_a_reader_who_never_reads_is_cut_off_and_not_fed_for_ever(store, make, key, monkeypatch):
    monkeypatch.setattr("datatunerx.store.watch.LIMIT_BYTES", 5_000)
    watch = store.watch(THINGS)
    for i in range(30):
        await store.write(key(f"n{i}"), make(f"n{i}"), 0)

    assert watch.overflowed and watch.closed
    assert await watch.take() == []


async def test_a_watch_sees_only_its_namespace(store, make, key):
    watch = store.watch(THINGS, "one")
    await store.write(key("a", namespace="one"), make("a"), 0)
    await store.write(key("a", namespace="two"), make("a"), 0)

    assert [event.key.namespace for event in await watch.take(0.1)] == ["one"]
    assert await watch.take(0.01) == []


async def test_a_write_is_published_before_its_own_answer(store, make, key):
    watch = store.watch(THINGS)
    await store.write(key("a"), make("a"), 0)

    assert [event.key.name for event in await watch.take(0)] == ["a"]


async def test_sealed_resources_are_not_readable_on_disk(tmp_path, make):
    class Rot:
        def seal(self, data: bytes, place: bytes) -> bytes:
            return bytes(byte ^ 0x5A for byte in data)

        unseal = seal

        def is_unbound(self, data: bytes) -> bool:
            return False

    store = Store.open(tmp_path / "db", seals={"secrets": Rot()})
    secret = Key("secrets", "default", "s")
    await store.write(secret, make("s", data="correct-horse"), 0)
    await store.write(secret, make("s", data="battery-staple"), 1)
    for file in (tmp_path / "db").iterdir():
        assert b"correct-horse" not in file.read_bytes()
        assert b"battery-staple" not in file.read_bytes()
    await store.close()

    store = Store.open(tmp_path / "db", seals={"secrets": Rot()})
    assert store.get(secret).decode()["data"] == "battery-staple"
    [event] = await store.watch("secrets", since=1).take(0)
    assert b"correct-horse" in event.prev
    await store.close()


async def test_many_writers_share_commits(store, make, key, monkeypatch):
    sizes = []
    apply = database.apply
    monkeypatch.setattr(database, "apply", lambda db, *rest: (sizes.append(len(rest[0])), apply(db, *rest)))
    await asyncio.gather(*(store.write(key(f"n{i}"), make(f"n{i}"), 0) for i in range(32)))
    again = [store.write(key(f"n{i}"), make(f"n{i}", x=1), i + 1) for i in range(32)]
    await asyncio.gather(*again)

    assert sizes == [32, 32], "whoever writes in the same turn of the loop waits for the same fsync"


async def test_a_batch_may_write_one_object_many_times_and_keeps_the_last(tmp_path, make, key):
    store = Store.open(tmp_path / "db")
    writes = [store.stage(key("a"), make("a", x=i), i) for i in range(5)]
    writes.append(store.stage(key("b"), make("b"), 0))
    writes.append(store.stage(key("b"), make("b"), 6, delete=True))
    writes.append(store.stage(key("a"), make("a"), 5, delete=True))
    writes.append(store.stage(key("a"), make("a", x="new"), 0))
    with pytest.raises(Conflict):
        store.stage(key("b"), make("b"), 6)
    await asyncio.gather(*writes)
    await store.close()

    store = Store.open(tmp_path / "db")
    assert [(e.key.name, e.decode().get("x"), e.version) for e in store.entries(THINGS)] == [("a", "new", 9)]
    assert store.version == 9
    await store.close()


async def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path):
    path = tmp_path / "db" / "objects.db"
    path.parent.mkdir()
    path.write_bytes(b"not a database, but somebody's only copy" * 100)

    for _ in range(2):  # the second time shows that the lock was let go
        with pytest.raises(Broken, match="objects.db cannot be opened: file is not a database"):
            Store.open(tmp_path / "db")
    assert path.read_bytes().startswith(b"not a database")


async def test_a_database_of_a_newer_release_is_not_touched(tmp_path):
    await Store.open(tmp_path / "db").close()
    with sqlite3.connect(tmp_path / "db" / "objects.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()

    with pytest.raises(Broken, match="schema 99.*newer release"):
        Store.open(tmp_path / "db")


async def test_a_lost_key_is_said_and_the_rest_goes_on(tmp_path, make, key):
    class Other:
        def seal(self, data: bytes, place: bytes) -> bytes:
            return b"sealed" + data

        def unseal(self, data: bytes, place: bytes) -> bytes:
            raise ValueError("put back the key")

        def is_unbound(self, data: bytes) -> bool:
            return True

    store = Store.open(tmp_path / "db", seals={"secrets": Other()})
    secret = Key("secrets", "default", "s")
    await store.write(secret, make("s"), 0)
    await store.close()

    store = Store.open(tmp_path / "db", seals={"secrets": Other()})
    assert store.locked == {"secrets": "put back the key"}
    for refused in (lambda: store.entries("secrets"), lambda: store.stage(secret, make("s"), 0)):
        with pytest.raises(StoreError, match="put back the key"):
            refused()
    assert (await store.write(key("a"), make("a"), 0)).version == 2
    assert [event.key.name for event in await store.watch(THINGS, since=1).take(0)] == ["a"]
    await store.close()
    with sqlite3.connect(tmp_path / "db" / "objects.db") as db:  # and nothing of it is lost
        assert db.execute("SELECT count(*) FROM current WHERE resource = 'secrets'").fetchone() == (1,)
    db.close()
