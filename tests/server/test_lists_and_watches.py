"""Lists, selectors, chunks, tables and watches."""

import asyncio
import random

import pytest

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


@pytest.fixture
async def five(api, widgets, widget):
    for i in range(5):
        labels = {"n": str(i), "even": "yes"} if i % 2 == 0 else {"n": str(i)}
        color = "green" if i == 3 else "red"
        (await api.post(widgets, widget(f"w{i}", size=i + 1, meta={"labels": labels}, color=color))).ok()


async def names(api, path):
    return [item["metadata"]["name"] for item in (await api.get(path)).ok()["items"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("labelSelector=n%3D3", "w3"),
        ("labelSelector=n%3D%3D3", "w3"),
        ("labelSelector=n!%3D3", "w0 w1 w2 w4"),
        ("labelSelector=n+in+(1,2)", "w1 w2"),
        ("labelSelector=n+notin+(1,2)", "w0 w3 w4"),
        ("labelSelector=even", "w0 w2 w4"),
        ("labelSelector=!even", "w1 w3"),
        ("labelSelector=even,n+in+(0,1)", "w0"),
        ("fieldSelector=metadata.name%3Dw2", "w2"),
        ("fieldSelector=metadata.name!%3Dw2", "w0 w1 w3 w4"),
        ("fieldSelector=spec.color%3Dgreen", "w3"),
        ("fieldSelector=spec.color%3Dred&labelSelector=even", "w0 w2 w4"),
        ("fieldSelector=metadata.namespace%3Dother", ""),
    ],
)
async def test_selectors_choose(api, widgets, five, query, expected):
    assert await names(api, f"{widgets}?{query}") == expected.split()


@pytest.mark.parametrize(
    "query", ["fieldSelector=spec.size%3D1", "labelSelector=a+b", "labelSelector=n+in+1"]
)
async def test_selectors_we_cannot_answer_are_refused(api, widgets, query):
    got = await api.get(f"{widgets}?{query}")

    assert got.status == 400 and got.json["reason"] == "BadRequest"


async def test_a_list_in_chunks_stays_at_one_version(api, widgets, widget, five):
    first = (await api.get(f"{widgets}?limit=2")).ok()
    await api.delete(f"{widgets}/w3")
    await api.patch(f"{widgets}/w4", {"spec": {"size": 60}})
    await api.post(widgets, widget("w2a"))
    second = (await api.get(f"{widgets}?limit=2&continue={first['metadata']['continue']}")).ok()
    third = (await api.get(f"{widgets}?limit=2&continue={second['metadata']['continue']}")).ok()

    items = [*first["items"], *second["items"], *third["items"]]
    assert [item["metadata"]["name"] for item in items] == ["w0", "w1", "w2", "w3", "w4"]
    assert items[4]["spec"]["size"] == 5
    versions = {page["metadata"]["resourceVersion"] for page in (first, second, third)}
    assert len(versions) == 1 and "continue" not in third["metadata"]
    assert first["metadata"]["remainingItemCount"] == 3
    assert (await api.get(f"{widgets}?continue=nonsense")).status == 400


async def test_a_list_from_the_future_or_the_past_says_so(api, widgets, five, state):
    future = await api.get(f"{widgets}?resourceVersion={state.store.version + 100}")
    assert future.status == 504
    assert future.json["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    version = state.store.version
    await api.delete(f"{widgets}/w0")
    query = f"{widgets}?resourceVersion={version}&resourceVersionMatch=Exact"
    assert await names(api, query) == ["w0", "w1", "w2", "w3", "w4"]


async def test_tables_carry_the_printer_columns(api, widgets, five):
    status = {
        "status": {"conditions": [{"type": "Other", "status": "x"}, {"type": "Ready", "status": "True"}]}
    }
    await api.patch(f"{widgets}/w1/status", status)
    table = (await api.get(widgets, accept=TABLE)).ok()

    assert table["kind"] == "Table"
    heads = [(head["name"], head["priority"]) for head in table["columnDefinitions"]]
    assert heads == [("Name", 0), ("Size", 0), ("Ready", 0), ("Color", 1), ("Age", 0)]
    row = table["rows"][1]
    assert row["cells"][:4] == ["w1", 2, "True", "red"] and row["cells"][4].endswith("s")
    assert row["object"]["kind"] == "PartialObjectMetadata" and "spec" not in row["object"]
    whole = (await api.get(f"{widgets}/w1?includeObject=Object", accept=TABLE)).ok()
    assert whole["rows"][0]["object"]["spec"]["size"] == 2


async def test_metadata_alone_can_be_asked_for(api, widgets, five):
    one = (await api.get(f"{widgets}/w1", accept=PARTIAL)).ok()
    many = (await api.get(widgets, accept=PARTIAL.replace("Metadata;", "MetadataList;"))).ok()

    assert set(one) == {"kind", "apiVersion", "metadata"}
    assert many["kind"] == "PartialObjectMetadataList" and len(many["items"]) == 5


async def test_a_watch_begins_with_what_there_is(api, widgets, five):
    watch = await api.watch(f"{widgets}?watch=1")
    assert await watch.names(5) == [("ADDED", f"w{i}") for i in range(5)]
    await api.delete(f"{widgets}/w0")
    deleted = await watch.next()
    assert deleted["type"] == "DELETED"
    await watch.close()


async def test_a_watch_resumes_after_a_version_without_gap_or_repeat(api, widgets, widget, five, state):
    version = state.store.version
    await api.patch(f"{widgets}/w1", {"spec": {"size": 9}})
    await api.delete(f"{widgets}/w2")
    watch = await api.watch(f"{widgets}?watch=1&resourceVersion={version}")
    await api.post(widgets, widget("w9"))

    assert await watch.names(3) == [("MODIFIED", "w1"), ("DELETED", "w2"), ("ADDED", "w9")]
    await watch.close()


@pytest.mark.parametrize("offset", [-3, 1000])
async def test_a_version_too_old_or_from_nowhere_is_410_inside_a_good_answer(
    api, widgets, five, state, offset
):
    state.store._history.floor = state.store.version - 1  # as if all before were forgotten
    got = await api.get(f"{widgets}?watch=1&resourceVersion={state.store.version + offset}")

    assert got.status == 200
    assert got.json["type"] == "ERROR"
    assert (got.json["object"]["code"], got.json["object"]["reason"]) == (410, "Expired")


async def test_a_selector_watch_tells_of_entering_and_leaving(api, widgets, five):
    watch = await api.watch(f"{widgets}?watch=1&labelSelector=on%3Dyes")
    await api.patch(f"{widgets}/w1", {"metadata": {"labels": {"on": "yes"}}})
    await api.patch(f"{widgets}/w1", {"spec": {"size": 9}})
    await api.patch(f"{widgets}/w1", {"metadata": {"labels": {"on": "no"}}})
    await api.patch(f"{widgets}/w1", {"spec": {"size": 8}})
    await api.patch(f"{widgets}/w2", {"metadata": {"labels": {"on": "yes"}}})
    await api.delete(f"{widgets}/w2")

    events = [await watch.next() for _ in range(5)]
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in events] == [
        ("ADDED", "w1"), ("MODIFIED", "w1"), ("DELETED", "w1"), ("ADDED", "w2"), ("DELETED", "w2"),
    ]  # fmt: skip
    versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in events]
    assert versions == sorted(versions) and len(set(versions)) == 5
    await watch.close()


async def test_a_table_watch_names_its_columns_once(api, widgets, five):
    watch = await api.watch(f"{widgets}?watch=1&fieldSelector=metadata.name%3Dw1", accept=TABLE)
    await api.patch(f"{widgets}/w1", {"spec": {"size": 9}})
    first, second = await watch.next(), await watch.next()

    assert first["object"]["columnDefinitions"] and not second["object"]["columnDefinitions"]
    assert second["object"]["rows"][0]["cells"][:2] == ["w1", 9]
    await watch.close()


async def test_initial_events_end_with_a_marked_bookmark(api, widgets, five, state):
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    watch = await api.watch(f"{widgets}?{query}")
    await watch.names(5)
    mark = await watch.next()

    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert mark["object"]["metadata"]["resourceVersion"] == str(state.store.version)
    await watch.close()


async def test_bookmarks_move_the_version_of_a_quiet_watch(api, widgets, five, state, monkeypatch):
    monkeypatch.setattr("datatunerx.server.watch.BOOKMARK_SECONDS", 0.05)
    version = state.store.version
    watch = await api.watch(f"{widgets}?watch=1&resourceVersion={version}&allowWatchBookmarks=true")
    await api.post("/api/v1/namespaces", {"metadata": {"name": "elsewhere"}})
    mark = await watch.next()

    while int(mark["object"]["metadata"]["resourceVersion"]) == version:
        mark = await watch.next()
    assert mark["type"] == "BOOKMARK"
    await watch.close()


async def test_a_watch_ends_when_its_time_is_over_and_when_the_server_stops(api, widgets, app):
    timed = await api.watch(f"{widgets}?watch=1&timeoutSeconds=1")
    endless = await api.watch(f"{widgets}?watch=1")
    assert await timed.ended(20)
    app.watches.end_all()
    assert await endless.ended(10)
    assert len(app.watches) == 0


async def test_the_old_watch_path_and_the_watch_of_one_name_work(api, widgets, five):
    prefix = widgets.replace("/v1/", "/v1/watch/")
    for path in (f"{prefix}?timeoutSeconds=1", f"{widgets}?watch=1&fieldSelector=metadata.name%3Dw1"):
        watch = await api.watch(path)
        assert (await watch.next())["type"] == "ADDED"
        await watch.close()


async def test_clients_that_come_and_go_while_all_changes_agree_with_the_list(api, widgets, widget, state):
    rng = random.Random(7)
    seen: dict[str, dict] = {}
    version = state.store.version
    done = asyncio.Event()

    async def writer() -> None:
        for i in range(150):
            name = f"o{rng.randrange(6)}"
            choice = rng.random()
            if choice < 0.4:
                await api.post(widgets, widget(name))
            elif choice < 0.8:
                await api.patch(f"{widgets}/{name}", {"spec": {"size": i % 60 + 1}})
            else:
                await api.delete(f"{widgets}/{name}")
        done.set()

    writing = asyncio.ensure_future(writer())
    while not done.is_set() or version < state.store.version:
        watch = await api.watch(f"{widgets}?watch=1&resourceVersion={version}")
        for _ in range(rng.randrange(1, 9)):
            try:
                event = await watch.next(0.2)
            except TimeoutError:
                break
            meta = event["object"]["metadata"]
            assert int(meta["resourceVersion"]) > version
            version = int(meta["resourceVersion"])
            if event["type"] == "DELETED":
                del seen[meta["name"]]
            else:
                assert (event["type"] == "ADDED") == (meta["name"] not in seen)
                seen[meta["name"]] = event["object"]
        await watch.close()
    await writing
    listed = (await api.get(widgets)).ok()["items"]
    assert {item["metadata"]["name"]: item for item in listed} == seen
