"""Leader election against a real server: one acts, another follows in time, never two at once."""

import asyncio
import random
import time
from contextlib import suppress

import pytest

from datatunerx.client import Api, InProcess, Unreachable
from datatunerx.client.lease import LEASES, Fenced, Lease, NotLeading, Pace

QUICK = Pace(lease=1, renew=0.6, retry=0.05)
STEADY = Pace(lease=3, renew=2, retry=0.1)
"""For what must not be taken for dead where the machine is slow."""
LONG = Pace(lease=60, renew=40, retry=0.05)


class Line:
    """A transport that can be cut; requests then fail, or hang."""

    def __init__(self, inner):
        self.inner, self.cut, self.hangs = inner, False, False

    async def request(self, *args, **kwargs):
        if self.cut and self.hangs:
            await asyncio.Event().wait()
        if self.cut:
            raise Unreachable(0, "Unreachable", "cut")
        return await self.inner.request(*args, **kwargs)


class Candidate:
    """Acquires, keeps, and acquires again, as an operator does."""

    def __init__(self, server, name, pace=QUICK):
        self.line = Line(InProcess(server))
        self.lease = Lease(Api(self.line), "operator", "default", name, pace)
        self.task = asyncio.create_task(self.run())

    async def run(self):
        while True:
            await self.lease.acquire()
            await self.lease.keep()

    async def die(self):
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


@pytest.fixture
async def candidate(server):
    made = []

    def make(name, pace=QUICK):
        made.append(Candidate(server, name, pace))
        return made[-1]

    yield make
    for one in made:
        await one.die()


async def until(look, seconds=60):
    """Seconds until it was so."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(seconds):
        while not look():
            await asyncio.sleep(0.005)
    return loop.time() - began


async def test_of_two_one_leads_and_is_written_down_as_kubernetes_does(api, candidate):
    first = candidate("first", STEADY)
    await until(lambda: first.lease.held)
    second = candidate("second", STEADY)
    await until(lambda: second.lease.holder == "first")
    await asyncio.sleep(3.3)  # longer than the lease: it is renewed
    assert first.lease.held and not second.lease.held
    spec = (await api.get(LEASES, "operator"))["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("first", 3, 0)
    assert spec["renewTime"] > spec["acquireTime"] and spec["renewTime"].endswith("Z")


async def test_when_the_leader_dies_another_leads_after_the_lease_and_not_before(api, candidate):
    first = candidate("first")
    await until(lambda: first.lease.held)
    second = candidate("second")
    await until(lambda: second.lease.holder == "first")
    await first.die()
    took = await until(lambda: second.lease.held)
    assert took > 0.8
    assert (await api.get(LEASES, "operator"))["spec"]["leaseTransitions"] == 1


async def test_one_that_gives_it_back_is_followed_at_once(api, candidate):
    first = candidate("first", LONG)
    await until(lambda: first.lease.held)
    second = candidate("second", LONG)
    await until(lambda: second.lease.holder == "first")
    await first.die()
    await first.lease.release()
    assert not first.lease.held
    await until(lambda: second.lease.held)


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_leader_that_cannot_renew_stops_before_another_begins(candidate, hangs):
    first = candidate("first")
    await until(lambda: first.lease.held)
    second = candidate("second")
    await until(lambda: second.lease.holder == "first")
    first.line.hangs, first.line.cut = hangs, True
    await until(lambda: not first.lease.held)
    assert not second.lease.held
    await until(lambda: second.lease.held)
    first.line.cut = False
    await asyncio.sleep(0.2)
    assert not first.lease.held, "it comes back as a standby"


async def test_one_whose_lease_was_taken_away_stops_at_the_next_renewal(api, candidate):
    first = candidate("first", LONG)
    await until(lambda: first.lease.held)
    await api.patch(LEASES, "operator", {"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 60}})
    await until(lambda: not first.lease.held)


async def test_one_that_slept_past_its_deadline_stands_down_even_if_nobody_followed(server):
    lease = Lease(Api(InProcess(server)), "operator", "default", "sleeper", QUICK)
    await lease.acquire()
    keeping = asyncio.create_task(lease.keep())
    await asyncio.sleep(0.1)
    time.sleep(0.7)  # the whole process
    await asyncio.wait_for(keeping, 60)


async def test_nothing_is_sent_by_one_that_does_not_lead(api, candidate):
    first = candidate("first")
    fenced = Api(Fenced(api.transport, first.lease))
    await until(lambda: first.lease.held)
    await fenced.get(LEASES, "operator")
    first.line.cut = True
    await until(lambda: not first.lease.held)
    with pytest.raises(NotLeading):
        await fenced.get(LEASES, "operator")
    with pytest.raises(NotLeading):
        await anext(fenced.watch(LEASES))


async def test_one_that_is_not_ready_only_looks_and_follows_in_time_once_it_is(server, candidate):
    first = candidate("first", STEADY)
    await until(lambda: first.lease.held)
    ready = False
    late = Lease(Api(InProcess(server)), "operator", "default", "late", STEADY)
    waiting = asyncio.create_task(late.acquire(lambda: ready))
    await until(lambda: late.holder == "first")
    await first.die()
    await asyncio.sleep(3.2)
    assert not late.held
    ready = True
    # Its clock for the lease has run all the time: it need not wait for a whole one now.
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.wait_for(waiting, 60)
    assert loop.time() - began < 2


@pytest.mark.slow
async def test_never_do_two_lead_while_each_leader_is_cut_off_in_turn(candidate):
    rng = random.Random(3)
    all_of_them = [candidate(name) for name in "abc"]

    def leader():
        holders = [one for one in all_of_them if one.lease.held]
        assert len(holders) <= 1
        return holders[0] if holders else None

    await until(leader)
    for _ in range(4):
        before = await next_leader(leader, None)
        for one in all_of_them:
            one.line.cut = one is before
            one.line.hangs = rng.random() < 0.5
        assert await next_leader(leader, before) is not before


async def next_leader(leader, before):
    async with asyncio.timeout(20):
        while (found := leader()) in (None, before):
            await asyncio.sleep(0.002)
    return found


@pytest.mark.parametrize("pace", [(10, 15, 2), (15, 10, 10), (0.5, 0.4, 0.1), (15, 10, 0)])
def test_a_pace_at_which_two_could_lead_is_refused(pace):
    with pytest.raises(ValueError, match="retry < renew < lease"):
        Pace(*pace)
