"""A disk without room: nothing acknowledged is lost, reads go on, and writes too once there is room."""

import asyncio
import subprocess
import time

import pytest

from datatunerx.store import DiskFull, Store


@pytest.fixture
def small_disk(tmp_path):
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(where)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield where
    subprocess.run(["umount", str(where)], check=True)


async def test_a_full_disk_fails_the_write_keeps_reads_and_recovers(small_disk, make, key):
    ballast = small_disk / "ballast"
    store = Store.open(small_disk / "db")
    await store.write(key("first"), make("first"), 0)
    ballast.write_bytes(b"x" * 1_400_000)

    acknowledged, refused = ["first"], 0
    for i in range(200):
        try:
            await store.write(key(f"n{i}"), make(f"n{i}", pad="x" * 20_000), 0)
            acknowledged.append(f"n{i}")
        except DiskFull as error:
            assert "free some" in str(error)
            refused += 1
        if refused == 3:
            break
    assert refused == 3
    assert sorted(e.key.name for e in store.entries("things.example.com")) == sorted(acknowledged)

    ballast.unlink()
    await store.write(key("after"), make("after", pad="x" * 20_000), 0)
    await store.close()

    store = Store.open(small_disk / "db")
    assert {e.key.name for e in store.entries("things.example.com")} == {*acknowledged, "after"}
    await store.close()


async def test_what_was_built_on_a_failed_write_fails_with_it(small_disk, make, key):
    store = Store.open(small_disk / "db")
    await store.write(key("a"), make("a"), 0)
    (small_disk / "ballast").write_bytes(b"x" * 1_100_000)

    first = store.stage(key("b"), make("b", pad="x" * 600_000), 0)
    time.sleep(0.5)  # the writer has failed by now, and this loop has not heard of it
    # This one would fit: it needs half the room, the object before it but none after it.
    second = store.stage(key("b"), make("b"), store.latest(key("b")).version)
    third = store.stage(key("c"), make("c"), 0)
    results = await asyncio.gather(first, second, third, return_exceptions=True)

    assert all(isinstance(result, DiskFull) for result in results)
    assert store.get(key("b")) is None is store.latest(key("b"))
    (small_disk / "ballast").unlink()
    await store.write(key("b"), make("b"), 0)
    await store.close()

    store = Store.open(small_disk / "db")
    assert [e.key.name for e in store.entries("things.example.com")] == ["a", "b"], "c was refused"
    await store.close()
