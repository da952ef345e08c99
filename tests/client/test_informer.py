"""The informer against a real server: nothing is missed, whatever happens in between."""

import asyncio
from typing import Any

import pytest

from datatunerx.client import Api, Informer, InProcess, Key
from datatunerx.resources import LLM, Finetune


def llm(name: str, **spec: Any) -> LLM:
    return LLM.parse({"metadata": {"name": name}, "spec": {"source": f"file:///{name}"} | spec})


async def until(look: Any, seconds: float = 5) -> None:
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


def test_an_object_that_our_models_refuse_is_left_out_with_a_warning_that_names_object_and_field(api, caplog):
    of_a_later_version = {"metadata": {"name": "new"}, "spec": {"source": "hf://a/b", "baseModel": "x"}}
    found = Informer(api, LLM)._parsed([of_a_later_version, llm("a").dump()])
    assert [obj.metadata.name for obj in found] == ["a"]
    [line] = caplog.records
    assert line.levelname == "WARNING" and line.object == "LLM/new"
    assert list(line.fields) == ["spec.baseModel"]
