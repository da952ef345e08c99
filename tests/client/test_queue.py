"""The keyed queue, with a clock of our own where time matters."""

import asyncio

from datatunerx.client.queue import LONGEST_SECONDS, Queue, backoff_seconds


async def test_a_name_waits_at_most_once():
    queue: Queue[str] = Queue()
    for _ in range(3):
        queue.add("a")
    queue.add("b")
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    queue.close()
    assert await queue.get() is None


async def test_two_workers_never_have_one_name_and_it_comes_again_if_added_meanwhile():
    queue: Queue[str] = Queue()
    busy: set[str] = set()
    seen: list[str] = []

    async def work() -> None:
        while (key := await queue.get()) is not None:
            assert key not in busy
            busy.add(key)
            await asyncio.sleep(0.01)  # longer than it takes until the name is added again
            seen.append(key)
            busy.remove(key)
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(4)]
    for _ in range(20):
        for key in "abc":
            queue.add(key)
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    queue.close()
    await asyncio.gather(*workers)
    assert len(seen) > 3 and set(seen) == set("abc")


async def test_a_name_added_while_busy_is_not_lost():
    queue: Queue[str] = Queue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.done("a")
    assert await asyncio.wait_for(queue.get(), 1) == "a"


async def test_the_earliest_of_several_wishes_holds():
    now = 0.0
    queue: Queue[str] = Queue(lambda: now)
    queue.add_after("a", 10)
    queue.add_after("a", 1)
    queue.add_after("a", 5)
    now = 1.0
    assert await queue.get() == "a"
    queue.done("a")
    now = 20.0
    queue.add("b")
    assert await queue.get() == "b"  # the later wishes for a are spent


async def test_failures_wait_longer_each_time_up_to_a_minute_and_success_forgets_them():
    assert [backoff_seconds(n) for n in (1, 2, 3)] == [0.005, 0.01, 0.02]
    assert backoff_seconds(50) == LONGEST_SECONDS
    queue: Queue[str] = Queue()
    assert [queue.failed("a") for _ in range(3)] == [0.005, 0.01, 0.02]
    queue.succeeded("a")
    assert queue.failed("a") == 0.005
