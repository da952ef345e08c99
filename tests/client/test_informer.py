"""The informer against a real server: nothing is missed, whatever happens in between."""

import asyncio
import json
from typing import Any

import pytest

from datatunerx.client import Api, Informer, InProcess, Key, Unreachable
from datatunerx.resources import LLM, Finetune, Hyperparameter


def llm(name: str, **spec: Any) -> LLM:
    return LLM.parse({"metadata": {"name": name}, "spec": {"source": f"file:///{name}"} | spec})


async def until(look: Any, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not look():
            await asyncio.sleep(0.005)


class Cutter:
    """A transport whose streams can be cut, and kept from coming back."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.open = asyncio.Event()
        self.open.set()
        self.cut = asyncio.Event()

    async def request(self, *args: Any, **kwargs: Any) -> Any:
        await self.open.wait()
        return await self.inner.request(*args, **kwargs)

    async def stream(self, *args: Any, **kwargs: Any) -> Any:
        await self.open.wait()
        lines = self.inner.stream(*args, **kwargs)
        while True:
            line = asyncio.ensure_future(anext(lines))
            stop = asyncio.ensure_future(self.cut.wait())
            await asyncio.wait({line, stop}, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if self.cut.is_set():
                line.cancel()
                await asyncio.gather(line, return_exceptions=True)
                await lines.aclose()
                return
            try:
                yield line.result()
            except StopAsyncIteration:
                return

    def break_off(self) -> None:
        self.open.clear()
        self.cut.set()

    def come_back(self) -> None:
        self.cut.clear()
        self.open.set()


@pytest.fixture
async def running():
    tasks = []
    yield lambda informer: tasks.append(asyncio.create_task(informer.run()))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def cutter(server):
    return Cutter(InProcess(server))


@pytest.fixture
async def informer(cutter):
    changes: list[tuple[str, str]] = []

    def note(old: Any, new: Any) -> None:
        what = "added" if old is None else "deleted" if new is None else "changed"
        changes.append((what, (new or old).metadata.name))

    made = Informer(Api(cutter), LLM, note)
    made.changes = changes
    task = asyncio.create_task(made.run())
    await asyncio.wait_for(made.synced.wait(), 5)
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_sees_what_comes_changes_and_goes(api, informer):
    await api.create(llm("a"))
    await api.patch(LLM, "a", {"spec": {"license": "mit"}})
    await until(lambda: (got := informer.get(Key("default", "a"))) and got.spec.license == "mit")
    await api.delete(LLM, "a")
    await until(lambda: informer.get(Key("default", "a")) is None)
    assert informer.changes == [("added", "a"), ("changed", "a"), ("deleted", "a")]


async def test_a_deletion_missed_in_a_gap_arrives(api, informer, cutter):
    await api.create(llm("a"))
    await until(lambda: informer.get(Key("default", "a")))
    cutter.break_off()
    await api.delete(LLM, "a")
    await api.create(llm("b"))
    cutter.come_back()
    await until(lambda: informer.get(Key("default", "b")))
    assert informer.get(Key("default", "a")) is None
    assert ("deleted", "a") in informer.changes


async def test_after_a_gap_that_the_server_forgot_it_lists_again_and_finds_the_deletion(tmp_path, server):
    await server.stop()
    server.history_bytes = 20_000
    await server.start()
    cutter = Cutter(InProcess(server))
    api, gone = Api(InProcess(server)), []
    informer = Informer(
        Api(cutter), LLM, lambda old, new: gone.append(old.metadata.name) if new is None else 0
    )
    task = asyncio.create_task(informer.run())
    await api.create(llm("a"))
    await until(lambda: informer.get(Key("default", "a")))
    cutter.break_off()
    await api.delete(LLM, "a")
    for number in range(60):  # more than the history holds
        await api.create(llm(f"filler-{number}", card="x" * 500))
    cutter.come_back()
    await until(lambda: len(informer.all("default")) == 60)
    assert informer.relists == 2 and gone == ["a"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_object_made_again_under_its_old_name_is_another_object(api, informer, cutter):
    await api.create(llm("a"))
    await until(lambda: informer.get(Key("default", "a")))
    first = informer.get(Key("default", "a")).metadata.uid
    cutter.break_off()
    await api.delete(LLM, "a")
    await api.create(llm("a"))
    cutter.come_back()
    await until(lambda: informer.get(Key("default", "a")).metadata.uid != first)
    assert informer.changes[-1] == ("added", "a") and ("deleted", "a") in informer.changes


async def test_it_survives_a_restart_of_the_server(api, informer, server):
    await api.create(llm("a"))
    await until(lambda: informer.get(Key("default", "a")))
    await server.stop()
    await server.start()
    await api.create(llm("b"))
    await until(lambda: informer.get(Key("default", "b")))
    assert informer.get(Key("default", "a"))
    assert informer.relists == 1  # versions survive a restart: no need to list again


async def test_it_knows_what_belongs_to_whom(api):
    parent = await api.create(llm("parent"))
    child = Finetune.parse(
        {"metadata": {"name": "child"}, "spec": {"llm": "a", "dataset": "b", "hyperparameter": {"ref": "c"}}}
    )
    child.metadata.owner_references = [parent.owner_reference()]
    await api.create(child)
    informer = Informer(api, Finetune)
    task = asyncio.create_task(informer.run())
    await informer.synced.wait()
    assert [c.metadata.name for c in informer.owned(parent.metadata.uid)] == ["child"]
    await api.delete(LLM, "parent")  # the server takes the child along
    await until(lambda: informer.owned(parent.metadata.uid) == [])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


OF_A_LATER_VERSION = {"baseModel": "x"}


class Newer:
    """A transport to a server whose LLMs have a field that we do not know, once `on`."""

    def __init__(self, inner):
        self.inner, self.on = inner, False

    def changed(self, obj):
        if self.on and obj.get("metadata", {}).get("name") == "new":
            obj.setdefault("spec", {}).update(OF_A_LATER_VERSION)
        return obj

    async def request(self, *args, **kwargs):
        answer = await self.inner.request(*args, **kwargs)
        listed = json.loads(answer.body)
        listed["items"] = [self.changed(item) for item in listed.get("items", [])]
        return answer._replace(body=json.dumps(listed).encode())

    async def stream(self, *args, **kwargs):
        async for line in self.inner.stream(*args, **kwargs):
            event = json.loads(line)
            yield json.dumps(event | {"object": self.changed(event["object"])}).encode()


async def test_one_that_our_model_refuses_is_told_and_stays_as_it_was_until_it_goes(
    server, api, running, caplog
):
    newer, refused = Newer(Cutter(InProcess(server))), []
    informer = Informer(Api(newer), LLM, on_refused=lambda obj, why: refused.append((obj["kind"], why)))
    running(informer)
    await api.create(llm("new"))
    await until(lambda: informer.get(Key("default", "new")))
    newer.on = True
    await api.patch(LLM, "new", {"spec": {"license": "mit"}})
    await api.create(llm("other"))
    await until(lambda: informer.get(Key("default", "other")))
    assert refused == [("LLM", "spec.baseModel: Extra inputs are not permitted")]
    assert informer.get(Key("default", "new")).spec.license is None, "as it was before"
    [line] = caplog.records
    assert line.levelname == "WARNING" and line.object == "LLM/new"
    await informer._relist()
    assert len(refused) == 2 and informer.get(Key("default", "new"))
    await api.delete(LLM, "new")
    await until(lambda: informer.get(Key("default", "new")) is None)


async def test_bookmarks_spare_a_quiet_kind_a_new_list(server, monkeypatch, running):
    monkeypatch.setattr("datatunerx.server.watch.BOOKMARK_SECONDS", 0.05)
    await server.stop()
    server.history_bytes = 20_000
    await server.start()
    cutter, api = Cutter(InProcess(server)), Api(InProcess(server))
    informer = Informer(Api(cutter), Hyperparameter)
    running(informer)
    await asyncio.wait_for(informer.synced.wait(), 60)
    for number in range(60):  # of another kind, and more than the history holds
        await api.create(llm(f"filler-{number}", card="x" * 500))
    await asyncio.sleep(0.5)
    cutter.break_off()
    await api.create(Hyperparameter.parse({"metadata": {"name": "h"}, "spec": {}}))
    cutter.come_back()
    await until(lambda: informer.get(Key("default", "h")))
    assert informer.relists == 1


async def test_a_server_whose_data_were_lost_is_listed_anew(server, api, informer, tmp_path):
    for name in ("a", "b", "c"):
        await api.create(llm(name))
    await until(lambda: len(informer.all()) == 3)
    await server.stop()
    for path in tmp_path.iterdir():
        path.unlink()
    await server.start()  # versions begin again: ours lies in the future
    await api.create(llm("d"))
    await until(lambda: [obj.metadata.name for obj in informer.all()] == ["d"], 10)


async def test_a_watch_on_a_dead_connection_is_given_up_and_resumed(server, api, monkeypatch, running):
    monkeypatch.setattr("datatunerx.client.informer.WATCH_SECONDS", 0.2)
    monkeypatch.setattr("datatunerx.client.informer.LATE_SECONDS", 0.3)

    class Dead(Cutter):
        """The first stream never says anything: nobody has told us that its connection is gone."""

        async def stream(self, *args, **kwargs):
            if not self.cut.is_set():
                self.cut.set()
                await asyncio.Event().wait()
            async for line in self.inner.stream(*args, **kwargs):
                yield line

    informer = Informer(Api(Dead(InProcess(server))), LLM)
    running(informer)
    await informer.synced.wait()
    await api.create(llm("a"))
    await until(lambda: informer.get(Key("default", "a")), 10)
    assert informer.relists == 1


async def test_a_server_that_is_gone_is_asked_ever_more_seldom(server, running):
    class Gone:
        asked = 0

        async def request(self, *args, **kwargs):
            self.asked += 1
            raise Unreachable(0, "Unreachable", "gone")

    gone = Gone()
    running(Informer(Api(gone), LLM))
    await asyncio.sleep(1.5)
    assert 3 <= gone.asked <= 6  # waits of 0.1, 0.2, 0.4, 0.8 s, each between its half and its whole
