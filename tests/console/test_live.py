"""What an open page is told: logs, points and changes by offset, read once, by each visitor's rights."""

import asyncio
import contextlib
import json
import re
import time
from contextlib import asynccontextmanager
from hashlib import sha256
from types import SimpleNamespace

import psutil
import pytest

from datatunerx.client import Api, ApiError, InProcess, Plural
from datatunerx.client.bearer import Bearer
from datatunerx.console import live
from datatunerx.resources import GROUP
from datatunerx.resources.wire import VERSION

RUNS = Plural(GROUP, VERSION, "runs")
ADMIN, VIEWER = "a" * 40, "v" * 40


@pytest.fixture
async def run(console, tmp_path):
    """A run whose worker is this test."""
    folder = tmp_path / "home" / "data" / "runs" / ("e" * 8)
    folder.mkdir(parents=True)
    spec = {"type": "tune", "planId": "e" * 8, "planUri": "file:///plan.json", "serves": ["Finetune/one"]}
    body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Run", "metadata": {"name": "r"}, "spec": spec}
    await console.api.create_raw(RUNS, body)
    log = folder / "worker.log"
    await console.api.patch_status(RUNS, "r", {"status": {"phase": "Running", "logUri": f"file://{log}"}})
    log.touch()
    return SimpleNamespace(log=log, events=folder / "events.jsonl")


class Counted(InProcess):
    """A way to the API that counts what it is asked."""

    asked = 0

    async def request(self, method, path, **options):
        self.asked += path.endswith("/log")
        return await super().request(method, path, **options)


@asynccontextmanager
async def following(console, hub, topic, offset=0, token=ADMIN, transport=None):
    """A reader of a topic: `next` gives its next message."""
    api = Api(Bearer(transport or InProcess(console._app, user=""), token))
    reader = hub.reader("default", api)
    await reader.follow(topic, offset)
    messages = reader.messages()

    async def following_one():
        return json.loads(await asyncio.wait_for(anext(messages), 10))

    reader.next = following_one
    try:
        yield reader
    finally:
        reader.close()


def say(run, text):
    with run.log.open("a") as file:
        file.write(text)


def texts(message):
    return [line[1] for line in message["lines"]]


async def test_a_reader_gets_what_a_log_gains_once_and_can_go_on_from_there(console, run):
    hub = live.Hub()
    say(run, "one\ntwo\n")
    async with following(console, hub, "log:r") as reader:
        first = await reader.next()
        assert (texts(first), first["from"], first["to"]) == (["one", "two"], 0, 8)
        say(run, "three\n")
        second = await reader.next()
        assert (texts(second), second["from"]) == (["three"], 8)
    say(run, "four\n")
    async with following(
        console, live.Hub(), "log:r", second["to"]
    ) as reader:  # another server, the same file
        assert texts(await reader.next()) == ["four"]


async def test_who_comes_late_is_told_all_and_who_was_there_nothing_twice(console, run):
    hub = live.Hub()
    say(run, "".join(f"line {n}\n" for n in range(1000)))
    async with following(console, hub, "log:r") as early:
        assert len(texts(await early.next())) == 1000
        async with following(console, hub, "log:r") as late:
            assert texts(await late.next())[::999] == ["line 0", "line 999"]
            say(run, "now\n")
            assert texts(await early.next()) == texts(await late.next()) == ["now"]


async def test_a_progress_bar_is_one_line_that_changes(console, run):
    async with following(console, live.Hub(), "log:r") as reader:
        say(run, "\r10 %")
        assert (await reader.next())["open"][1] == "10 %"
        say(run, "\r20 %")
        assert (await reader.next())["open"][1] == "20 %"
        say(run, "\r100 %\ndone\n")
        assert texts(await reader.next()) == ["100 %", "done"]


async def test_a_log_is_read_once_however_many_look_at_it(console, run):
    hub, way = live.Hub(), Counted(console._app, user="")
    readers = [following(console, hub, "log:r", transport=way) for _ in range(20)]
    async with asyncio.timeout(20):
        entered = [await each.__aenter__() for each in readers]
        say(run, "first\n")
        assert all([texts(await each.next()) == ["first"] for each in entered])
        way.asked, looks = 0, 5
        for n in range(looks):
            say(run, f"{n}\n")
            assert all([texts(await each.next()) == [str(n)] for each in entered])
        assert looks <= way.asked < 3 * looks + 10
        for each in readers:
            await each.__aexit__(None, None, None)


async def test_who_is_too_far_behind_is_told_of_the_gap_and_sees_the_end(console, run):
    hub = live.Hub()
    say(run, "first\n")
    async with following(console, hub, "log:r") as quick, following(console, hub, "log:r") as slow:
        await quick.next()
        await slow.next()
        for n in range(8):
            say(run, f"{n} {'x' * 100}\n" * 3000)
            while quick.offsets["log:r"] < run.log.stat().st_size:
                await quick.next()
        gap = await slow.next()
        assert gap["gap"] == gap["to"] - gap["from"] > live.BEHIND
        lines = texts(await slow.next())
        assert len(lines) == 200 and lines[-1].startswith("7 ")


async def test_who_asks_for_a_long_history_is_sent_it_in_pieces_as_it_takes_them(console, run):
    """Most who vanish do so at once: they must not have cost what the whole of it costs."""
    say(run, "".join(f"{n} {'x' * 100}\n" for n in range(6000)))
    async with following(console, live.Hub(), "log:r") as reader:
        first = await reader.next()
        assert first["from"] == 0 and 0 < first["to"] <= live.PIECE
        told = texts(first)
        while reader.offsets["log:r"] < run.log.stat().st_size:
            told += texts(await reader.next())
    assert [int(line.split()[0]) for line in told] == list(range(6000))


@pytest.mark.parametrize("others", [0, 1])
async def test_who_knows_a_longer_log_than_there_is_gets_the_new_one(console, run, others):
    hub = live.Hub()
    say(run, "one\n")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(others):
            early = await stack.enter_async_context(following(console, hub, "log:r"))
            await early.next()
        late = await stack.enter_async_context(following(console, hub, "log:r", 1000))
        assert texts(await late.next()) == ["one"]


async def test_points_come_by_job_in_columns(console, run):
    event = {
        "time": 5.0,
        "type": "metrics",
        "job": "one",
        "step": 3,
        "values": {"loss": 0.5, "learningRate": 0.1},
    }
    async with following(console, live.Hub(), "points:r") as reader:
        run.events.write_text(json.dumps(event) + "\n" + '{"time":6,"type":"heartbeat"}\n{"torn')
        told = await reader.next()
    assert told["jobs"] == {"one": {"loss": [[3], [5.0], [0.5]], "learningRate": [[3], [5.0], [0.1]]}}


async def test_a_change_of_an_object_is_told_by_its_name(console, run):
    async with following(console, live.Hub(), "status:Run") as reader:
        assert (await reader.next())["names"] is None  # whatever was before the page
        await console.api.patch_status(RUNS, "r", {"status": {"phase": "Succeeded"}})
        told = await reader.next()
        assert told["names"] == ["r"] and told["to"] > told["from"]


async def test_a_page_hears_of_what_has_changed_since_it_was_read_and_of_nothing_else(console, run):
    before = await live.newest(console.api, "Run", "default")
    await console.api.patch_status(RUNS, "r", {"status": {"phase": "Succeeded"}})
    now = await live.newest(console.api, "Run", "default")
    hub = live.Hub()
    async with following(console, hub, "status:Run", before) as early:
        told = await early.next()
        assert (told["names"], told["from"], told["to"]) == (["r"], before, now)
        async with following(console, hub, "status:Run", now) as late:
            await console.api.patch_status(RUNS, "r", {"status": {"reason": "Done"}})
            for reader in (early, late):
                told = await reader.next()
                assert told["names"] == ["r"] and told["from"] == now < told["to"]


async def test_who_followed_too_long_ago_is_told_that_anything_may_have_changed(console, run, monkeypatch):
    monkeypatch.setattr(live, "REPLAYED", 1)
    before = await live.newest(console.api, "Run", "default")
    await console.api.patch_status(RUNS, "r", {"status": {"phase": "Succeeded"}})
    async with following(console, live.Hub(), "status:Run", before) as reader:
        assert (await reader.next())["names"] is None


@pytest.mark.parametrize("topic", ["log:r", "points:r", "status:Run"])
async def test_what_a_visitor_may_not_see_is_refused(console, run, topic):
    api = Api(Bearer(InProcess(console._app, user=""), VIEWER))
    reader = live.Hub().reader("kube-system", api)
    await reader.follow(topic, 0)
    assert json.loads(await anext(reader.messages()))["refused"] == "Forbidden"
    assert not reader.offsets


@pytest.mark.parametrize("topic", ["log:nobody", "status:Nothing", "what", "log:"])
async def test_a_topic_that_is_none_is_refused(console, topic):
    async with following(console, live.Hub(), topic) as reader:
        assert (await reader.next())["refused"] == "NotFound"


async def test_a_revoked_token_ends_the_reading(console, run):
    made = Plural("auth.datatunerx.io", "v1", "tokens", namespaced=False)
    body = {"apiVersion": "auth.datatunerx.io/v1", "kind": "Token", "metadata": {"name": "guest"}}
    secret = "g" * 40
    spec = {
        "user": "gus",
        "role": "viewer",
        "namespaces": ["default"],
        "sha256": sha256(secret.encode()).hexdigest(),
    }
    await console.api.create_raw(made, body | {"spec": spec})
    async with following(console, live.Hub(), "log:r", token=secret) as reader:
        await reader.check()
        await console.api.delete(made, "guest")
        with pytest.raises(ApiError) as refused:
            await reader.check()
        assert refused.value.status == 401


async def test_long_polling_gives_the_same(filled, run):
    say(run, "one\n")
    asked = json.dumps({"log:r": 0})
    found = json.loads(await filled.get(f"live?topics={asked}"))
    assert [texts(each) for each in found] == [["one"]]
    later = asyncio.create_task(filled.get(f"live?topics={json.dumps({'log:r': found[0]['to']})}"))
    await asyncio.sleep(0.3)
    say(run, "two\n")
    assert texts(json.loads(await later)[0]) == ["two"]


async def test_parts_of_a_log_are_found_by_offset_words_and_level(filled, run):
    say(run, "".join(f"step {n}\n" for n in range(2000)) + "ValueError: bad Row\nwarning: slow\n")
    end = json.loads(await filled.get("logs/r"))
    assert len(end["lines"]) == 500 and end["lines"][-1][1:3] == ["warning: slow", "warning"]
    older = json.loads(await filled.get(f"logs/r?before={end['start']}"))
    assert older["end"] == end["start"] and older["lines"][-1][1] == "step 1501"
    found = json.loads(await filled.get("logs/r?search=STEP 177"))
    assert [line[1] for line in found["lines"]] == [f"step {n}" for n in (177, 1177, *range(1770, 1780))]
    assert [line[1] for line in json.loads(await filled.get("logs/r?level=error"))["lines"]] == [
        "ValueError: bad Row"
    ]
    assert len(json.loads(await filled.get("logs/r?level=warning"))["lines"]) == 2
    around = json.loads(await filled.get(f"logs/r?around={found['lines'][0][0]}"))
    assert found["lines"][0] in around["lines"]
    first = json.loads(await filled.get("logs/r?around=0"))
    assert first["start"] == 0 and first["lines"][0][:2] == [0, "step 0"]
    assert len(first["lines"]) == 500 and first["end"] < first["size"]
    assert await filled.get("logs/r/file") == run.log.read_text()


async def test_a_run_that_waits_has_an_empty_log(filled):
    assert json.loads(await filled.get("logs/run-c"))["lines"] == []


async def test_what_charts_and_logs_load_is_packed_and_small(filled):
    page = await filled.get("experiments/support-tickets?tab=charts")
    sizes = [len(page)]
    for place in re.findall(r'(?:src|href)="(/console/static/[^"#]+)', page):
        async with filled.http.stream("GET", place) as answer:
            sizes.append(sum([len(part) async for part in answer.aiter_raw()]))
            assert answer.headers.get("content-encoding") == "gzip" or sizes[-1] < 500
    assert len(sizes) > 9 and sum(sizes) < 150_000


@pytest.mark.slow
async def test_a_log_of_a_gigabyte_opens_within_a_second(filled, run):
    """R29: neither opening it, nor paging back, nor a search holds it in memory."""
    line = b"08:00:00 step 123 of 456 loss 0.789 and some more words that a worker might say\n"
    block = line * (1 + (4 << 20) // len(line))
    with run.log.open("wb") as file:
        for _ in range(256):
            file.write(block)
        file.write(b"the end\n")
    before = psutil.Process().memory_info().rss
    for path in ("logs/r", "logs/r?before=500000000", "logs/r?around=250000000", "logs/r?search=nowhere"):
        began = time.perf_counter()
        found = json.loads(await filled.get(path))
        took = time.perf_counter() - began
        print(f"{path} {took:.3f} s")
        assert took < 1, path
    assert 0 < found["before"] < found["size"]  # a search is answered in parts
    assert json.loads(await filled.get("logs/r"))["lines"][-1][1] == "the end"
    assert psutil.Process().memory_info().rss - before < 50 << 20
    run.log.unlink()
