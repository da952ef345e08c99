"""Serve runs that fit share a device; nothing else ever does."""

import pytest

from datatunerx.resources.enums import RunPhase, RunType

GB = 1 << 30


async def phases(backend, *runs):
    return [(await backend.phase(run.run)).phase for run in runs]


@pytest.fixture
def shared(place):
    """One device of ten gigabytes."""
    backend = place.backend(memory_bytes=10 * GB, grace_seconds=0.5)
    yield backend
    for record in list(backend._records.values()):
        backend._stop(record.run)
    backend.close()


async def submitted(backend, place, *sizes, type=RunType.SERVE):
    runs = [place.run("sleep", type, memory_bytes=size) for size in sizes]
    for run in runs:
        await backend.submit(run)
    return runs


async def test_services_share_a_device_as_long_as_they_fit(shared, place):
    runs = await submitted(shared, place, 4 * GB, 5 * GB, 2 * GB)

    assert await phases(shared, *runs) == [RunPhase.RUNNING, RunPhase.RUNNING, RunPhase.PENDING]
    assert (await shared.phase(runs[2].run)).position == 1


async def test_a_service_of_unknown_size_has_its_device_alone(shared, place):
    runs = await submitted(shared, place, 0, GB)
    assert await phases(shared, *runs) == [RunPhase.RUNNING, RunPhase.PENDING]


async def test_a_training_and_a_service_never_share(shared, place):
    (training,) = await submitted(shared, place, 0, type=RunType.TUNE)
    (service,) = await submitted(shared, place, GB)
    assert await phases(shared, training, service) == [RunPhase.RUNNING, RunPhase.PENDING]


async def test_a_service_does_not_overtake_a_training_that_waits(shared, place):
    (first,) = await submitted(shared, place, GB)
    (training,) = await submitted(shared, place, 0, type=RunType.TUNE)
    (second,) = await submitted(shared, place, GB)
    assert await phases(shared, first, training, second) == [
        RunPhase.RUNNING, RunPhase.PENDING, RunPhase.PENDING
    ]  # fmt: skip


async def test_without_a_known_memory_nobody_shares(place):
    backend = place.backend(grace_seconds=0.5)
    try:
        runs = await submitted(backend, place, GB, GB)
        assert await phases(backend, *runs) == [RunPhase.RUNNING, RunPhase.PENDING]
    finally:
        for run in runs:
            await backend.stop(run.run)
        backend.close()
