"""Verbs and errors, in process and over HTTPS."""

import asyncio
import json
import socket
import sys

import pytest

from datatunerx.client import (
    EVENTS,
    AlreadyExists,
    Api,
    Conflict,
    Gone,
    Invalid,
    NotFound,
    Plural,
    Unauthorized,
    Unreachable,
)
from datatunerx.client.exec_plugin import ExecPluginError
from datatunerx.client.https import Https
from datatunerx.client.kubeconfig import Access, KubeconfigError, in_cluster, load
from datatunerx.resources import LLM, Finetune, Run
from datatunerx.resources.crds import crd_manifests
from datatunerx.server.app import create_app
from datatunerx.server.listen import serve
from datatunerx.server.state import open_state


def llm(name: str) -> LLM:
    return LLM.parse({"metadata": {"name": name}, "spec": {"source": "file:///x"}})


async def test_objects_come_back_as_they_were_sent_with_what_the_server_adds(api):
    made = await api.create(llm("a"))
    assert made.metadata.uid and made.metadata.generation == 1
    assert (await api.get(LLM, "a")).spec.source == "file:///x"
    assert [obj.metadata.name for obj in await api.list(LLM)] == ["a"]
    untyped = await api.get(Plural("datatunerx.io", "v1beta1", "llms"), "a")
    assert untyped["spec"]["source"] == "file:///x"


async def test_every_refusal_has_its_own_error(api):
    made = await api.create(llm("a"))
    with pytest.raises(AlreadyExists):
        await api.create(llm("a"))
    with pytest.raises(NotFound, match="not found"):
        await api.get(LLM, "b")
    await api.patch(LLM, "a", {"spec": {"license": "mit"}})
    with pytest.raises(Conflict, match="modified"):
        await api.replace(made)
    with pytest.raises(Conflict):
        stale = {"metadata": {"resourceVersion": made.metadata.resource_version}, "status": {"digest": "x"}}
        await api.patch_status(LLM, "a", stale)
    with pytest.raises(Invalid, match="Required") as invalid:
        await api.create_raw(Finetune, {"metadata": {"name": "f"}, "spec": {"llm": "a"}} | _kind("Finetune"))
    assert "spec.dataset" in [cause.field for cause in invalid.value.causes]
    with pytest.raises(Gone):
        async for _ in api.watch(LLM, version="999999"):
            pass


def _kind(kind: str) -> dict[str, str]:
    return {"apiVersion": "datatunerx.io/v1beta1", "kind": kind}


async def test_apply_makes_and_then_changes(api):
    body = _kind("LLM") | {"metadata": {"name": "a"}, "spec": {"source": "file:///x", "license": "mit"}}
    first = await api.apply(LLM, "a", body)
    again = await api.apply(LLM, "a", body)
    assert first["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]
    body["spec"]["license"] = "apache"
    assert (await api.apply(LLM, "a", body))["spec"]["license"] == "apache"


async def test_a_long_list_comes_whole(api):
    for start in range(0, 520, 40):
        await asyncio.gather(*(api.create(llm(f"m{n:04}")) for n in range(start, start + 40)))
    assert len(await api.list(LLM)) == 520


async def test_a_watch_starts_with_what_is_there_and_goes_on(api):
    await api.create(llm("a"))
    seen = []
    async with asyncio.timeout(60):
        async for change in api.watch(LLM):
            if change.type != "BOOKMARK":
                seen.append((change.type, change.object["metadata"]["name"]))
            if len(seen) == 1:
                await api.create(llm("b"))
            if len(seen) == 2:
                break
    assert seen == [("ADDED", "a"), ("ADDED", "b")]


async def test_events_of_one_object_are_found(api):
    event = {
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "a.1", "namespace": "default"},
        "involvedObject": {"kind": "LLM", "name": "a", "namespace": "default"}, "reason": "Inspected",
    }  # fmt: skip
    await api.create_raw(EVENTS, event)
    assert [e["reason"] for e in await api.events("LLM", "a")] == ["Inspected"]
    assert await api.events("LLM", "b") == []


@pytest.fixture
async def listening(tmp_path):
    state = open_state(tmp_path / "home")
    app = create_app(state.store, crd_manifests(), tokens=state.tokens)
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    task = asyncio.create_task(
        serve(app, "127.0.0.1", 0, state.tls(), ready=ready.set_result, stop=stop, signals=False)
    )
    port = await ready
    yield state.write_kubeconfig(port)
    stop.set()
    await task
    await state.store.close()


async def test_over_https_with_the_kubeconfig_that_the_server_wrote(listening):
    access = load(listening)
    async with Https(access) as transport:
        api = Api(transport)
        await api.create(llm("a"))
        with pytest.raises(AlreadyExists):
            await api.create(llm("a"))
        async with asyncio.timeout(60):
            async for change in api.watch(LLM):
                assert change.object["metadata"]["name"] == "a"
                break
    async with Https(Access(access.server, ca=access.ca, token="wrong")) as transport:
        with pytest.raises(Unauthorized):
            await Api(transport).list(LLM)
    async with Https(Access(access.server, token=access.token)) as transport:
        with pytest.raises(Unreachable, match="not signed by the CA"):
            await Api(transport).list(LLM)


async def test_blank_lines_of_a_log_arrive_over_https(listening, tmp_path):
    log = tmp_path / "run.log"
    log.write_bytes(b"\na\n\nb")
    run = {"metadata": {"name": "r"}, "spec": {"type": "tune", "planId": "p", "planUri": "file:///plan.json"}}
    async with Https(load(listening)) as transport:
        await Api(transport).create(Run.parse(run))
        status = {"status": {"phase": "Succeeded", "logUri": log.as_uri()}}
        await Api(transport).patch_status(Run, "r", status)
        path = "/api/v1/namespaces/default/pods/r/log"
        assert [line async for line in transport.stream(path)] == [b"", b"a", b"", b"b"]


async def test_a_server_that_is_not_there_is_named_with_the_fix():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{free.getsockname()[1]}"
    async with Https(Access(url)) as transport:
        with pytest.raises(Unreachable, match="dtx up") as refused:
            await Api(transport).list(LLM)
    assert url in str(refused.value)


PLUGIN = """#!{python}
import json, os, pathlib
assert json.loads(os.environ["KUBERNETES_EXEC_INFO"])["spec"] == {{"interactive": False}}
calls = pathlib.Path(os.environ["CALLS"])
calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
number = len(calls.read_text())
until = "2001-01-01T00:00:00Z" if number == 1 else "2099-01-01T00:00:00Z"
status = {{"token": f"t{{number}}", "expirationTimestamp": until}}
print(json.dumps({{"apiVersion": "client.authentication.k8s.io/v1", "status": status}}))
"""


def test_a_token_comes_from_the_program_that_the_kubeconfig_names_until_it_runs_out(tmp_path):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "plugin"
    program.write_text(PLUGIN.format(python=sys.executable))
    program.chmod(0o700)
    env = [{"name": "CALLS", "value": str(tmp_path / "calls")}]
    user = {"exec": {"command": "bin/plugin", "env": env, "installHint": "get it there"}}
    path = tmp_path / "config"
    config = {
        "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://k"}}],
        "users": [{"name": "u", "user": user}],
    }  # fmt: skip
    path.write_text(json.dumps(config))
    access = load(path)
    assert [access.bearer() for _ in range(3)] == ["t1", "t2", "t2"]
    program.write_text(f"#!{sys.executable}\nraise SystemExit('you are not logged in')")
    with pytest.raises(ExecPluginError, match="ended with 1: you are not logged in"):
        load(path).bearer()
    program.unlink()
    with pytest.raises(ExecPluginError, match="No such file.*get it there"):
        load(path).bearer()


@pytest.mark.parametrize(
    ("cluster", "user", "named"),
    [
        ({"proxy-url": "http://p"}, {"token": "t"}, "the cluster's proxy-url"),
        ({}, {"token": "t", "as": "somebody"}, "the user's as"),
        ({}, {"auth-provider": {"name": "gcp"}}, "the user's auth-provider"),
        ({}, {"username": "u", "password": "p"}, "the user's username"),
    ],
)
def test_what_a_kubeconfig_asks_for_and_we_cannot_do_is_refused_by_name(tmp_path, cluster, user, named):
    path = tmp_path / "config"
    config = {
        "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://k", **cluster}}],
        "users": [{"name": "u", "user": user}],
    }  # fmt: skip
    path.write_text(json.dumps(config))
    with pytest.raises(KubeconfigError, match=f"not supported: {named}"):
        load(path)


def test_a_kubeconfig_without_what_it_needs_says_which_field(tmp_path):
    path = tmp_path / "config"
    with pytest.raises(KubeconfigError, match="dtx up"):
        load(path)
    path.write_text("apiVersion: v1\nkind: Config\n")
    with pytest.raises(KubeconfigError, match="current-context"):
        load(path)
    path.write_text("current-context: c\ncontexts: [{name: c, context: {cluster: k}}]\n")
    with pytest.raises(KubeconfigError, match="clusters has no 'k'"):
        load(path)


def test_in_a_pod_the_service_account_is_used_and_a_rotated_token_is_read_again(tmp_path):
    assert in_cluster(tmp_path, {}) is None
    (tmp_path / "token").write_text("one\n")
    (tmp_path / "ca.crt").write_text("CA")
    (tmp_path / "namespace").write_text("team")
    access = in_cluster(tmp_path, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert (access.server, access.namespace, access.bearer()) == ("https://10.0.0.1:443", "team", "one")
    (tmp_path / "token").write_text("two\n")
    assert access.bearer() == "two"
