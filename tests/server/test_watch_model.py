"""Random writes, and many who watch them: replaying any stream equals the list at every version."""

import asyncio
import random

import pytest

from datatunerx.server.app import create_app
from datatunerx.server.state import open_state

ALL = "/apis/example.com/v1/widgets"
HERE = "/apis/example.com/v1/namespaces/default/widgets"
THERE = "/apis/example.com/v1/namespaces/there/widgets"
VIEWS = [
    f"{ALL}?",
    f"{HERE}?",
    f"{HERE}?labelSelector=on%3Dyes",
    f"{ALL}?labelSelector=!on",
    f"{THERE}?fieldSelector=spec.color%3Dgreen",
    f"{ALL}?fieldSelector=metadata.name%3Dw3",
]


async def write_at_random(api, widget, rng, times):
    for _ in range(times):
        name, path = f"w{rng.randrange(6)}", rng.choice([HERE, THERE])
        match rng.randrange(10):
            case 0 | 1:
                await api.delete(f"{path}/{name}")
            case 2 | 3:
                await api.patch(f"{path}/{name}", {"metadata": {"labels": {"on": rng.choice(["yes", None])}}})
            case 4 | 5:
                await api.patch(f"{path}/{name}", {"spec": {"color": rng.choice(["red", "green"])}})
            case 6:
                await api.patch(f"{path}/{name}/status", {"status": {"step": rng.randrange(9)}})
            case _:
                await api.post(path, widget(name, size=rng.randrange(1, 60)))
        await asyncio.sleep(rng.choice([0, 0, 0.002]))


async def listed(api, view, version=None):
    """(version, objects by place) of a list, now or as it was."""
    exact = f"&resourceVersion={version}&resourceVersionMatch=Exact" if version else ""
    found = (await api.get(view + exact)).ok()
    return int(found["metadata"]["resourceVersion"]), {place(item): item for item in found["items"]}


def place(obj):
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


async def everything(stream):
    """What a stream brings until it is silent."""
    events = []
    try:
        while True:
            events.append(await stream.next(0.3))
    except TimeoutError:
        await stream.close()
    return events


def check(start, events, lists):
    """Play the events over the list they start from; it must be each later list in its turn."""
    now = dict(lists[start])
    waiting = list(events)
    for version in range(start, max(lists) + 1):
        while waiting and int(waiting[0]["object"]["metadata"]["resourceVersion"]) <= version:
            event = waiting.pop(0)
            obj = event["object"]
            assert int(obj["metadata"]["resourceVersion"]) == version, "late, twice or out of order"
            assert (place(obj) in now) == (event["type"] != "ADDED")
            if event["type"] == "DELETED":
                del now[place(obj)]
            else:
                now[place(obj)] = obj
        assert now == lists[version], f"another state at version {version}"
    assert not waiting


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_replaying_any_watch_equals_the_list_at_every_version(
    app, api, state, widget, stranger_of, seed
):
    rng = random.Random(seed)
    (await api.post("/api/v1/namespaces", {"metadata": {"name": "there"}})).ok()
    begin = state.store.version
    writers = [
        asyncio.create_task(write_at_random(api, widget, random.Random(seed * 9 + i), 40)) for i in range(6)
    ]
    live, seen = [], {}
    while not all(writer.done() for writer in writers):
        view = rng.choice(VIEWS)
        version, objects = await listed(api, view)
        seen[view, version] = objects
        if len(live) < 12:
            live.append((view, version, await api.watch(f"{view}&watch=1&resourceVersion={version}")))
        await asyncio.sleep(0.005)
    await asyncio.gather(*writers)
    streams = await asyncio.gather(*(everything(stream) for _, _, stream in live))
    end = state.store.version
    assert end - begin > 60

    lists = {
        view: {version: (await listed(api, view, version))[1] for version in range(begin, end + 1)}
        for view in VIEWS
    }
    for (view, version), objects in seen.items():
        assert lists[view][version] == objects, "a list of the past is not what was listed then"
    for (view, version, _), events in zip(live, streams, strict=True):
        check(version, events, lists[view])

    await app.stop()
    await state.store.close()
    again = open_state(state.home)
    reopened = create_app(again.store, app._crds, tokens=again.tokens)
    await reopened.start()
    caller = stranger_of(reopened)
    caller.user = "tester"
    try:
        for view in VIEWS:
            start = rng.randrange(begin, end)
            stream = await caller.watch(f"{view}&watch=1&resourceVersion={start}")
            check(start, await everything(stream), lists[view])
            assert (await listed(caller, view))[1] == lists[view][end]
    finally:
        await reopened.stop()
        await again.store.close()
