"""Pods that stand for runs, and their logs."""

import asyncio
import tracemalloc

import pytest

from datatunerx.server.app import create_app
from datatunerx.telemetry import logs
from datatunerx.worker.journal import say

RUNS = "/apis/datatunerx.io/v1/namespaces/default/runs"
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture
def run(api, tmp_path):
    async def run(name, phase="Running", text=None, **status):
        await api.post(RUNS, {"apiVersion": "datatunerx.io/v1", "kind": "Run", "metadata": {"name": name}})
        if text is not None:
            path = tmp_path / f"{name}.log"
            path.write_bytes(text)
            status["logUri"] = path.as_uri()
        (await api.patch(f"{RUNS}/{name}/status", {"status": {"phase": phase, **status}})).ok()
        return tmp_path / f"{name}.log"

    return run


async def test_a_pod_stands_for_each_run(api, run):
    times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:01:00Z"}
    await run("r1", startedAt=times["startedAt"])
    await run("r2", "Failed", reason="OutOfMemory", exitCode=137, **times)
    pods = {pod["metadata"]["name"]: pod for pod in (await api.get(PODS)).ok()["items"]}

    assert pods["r1"]["kind"] == "Pod" and pods["r1"]["status"]["phase"] == "Running"
    ended = pods["r2"]["status"]["containerStatuses"][0]["state"]["terminated"]
    assert ended == {"exitCode": 137, "reason": "OutOfMemory", **times}
    running = pods["r1"]["status"]["containerStatuses"][0]["state"]["running"]
    assert running == {"startedAt": pods["r1"]["status"]["startTime"]} == {"startedAt": times["startedAt"]}
    table = (await api.get(f"{PODS}/r2", accept="application/json;as=Table;v=v1;g=meta.k8s.io")).ok()
    assert table["rows"][0]["cells"][:4] == ["r2", "0/1", "OutOfMemory", "0"]
    assert len((await api.get(f"{PODS}?fieldSelector=status.phase%3DFailed")).ok()["items"]) == 1


async def test_pods_are_watched_like_anything(api, run):
    watch = await api.watch(f"{PODS}?watch=1&resourceVersion=1")
    await run("r1", "Succeeded")
    first, second = await watch.next(), await watch.next()

    assert (first["object"]["kind"], second["object"]["status"]["phase"]) == ("Pod", "Succeeded")
    await watch.close()


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
async def test_pods_cannot_be_written_and_it_is_said_what_to_do(api, run, method):
    await run("r1")
    path = PODS if method == "POST" else f"{PODS}/r1"
    got = await api.call(method, path, {})

    assert got.status == 405 and "stop its Finetune" in got.json["message"]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", b"one\ntwo\nthree\n"),
        ("tailLines=2", b"two\nthree\n"),
        ("tailLines=0", b""),
        ("tailLines=99", b"one\ntwo\nthree\n"),
        ("limitBytes=5", b"one\nt"),
        ("tailLines=1&limitBytes=2", b"th"),
        ("sinceSeconds=1000", b"one\ntwo\nthree\n"),
        ("container=worker", b"one\ntwo\nthree\n"),
    ],
)
async def test_a_log_is_read_as_asked(api, run, query, text):
    await run("r", "Succeeded", b"one\ntwo\nthree\n")
    got = await api.get(f"{PODS}/r/log?{query}")

    assert (got.status, got.body) == (200, text)
    assert got.headers["content-type"].startswith("text/plain")


async def test_what_a_worker_says_carries_the_time_that_since_asks_for(api, run, capsys):
    say("here")
    said = capsys.readouterr().out.encode()
    await run("r", "Running", b"2026-01-01T00:00:00Z long ago\n" + said)

    assert (await api.get(f"{PODS}/r/log?sinceSeconds=3600")).body == said
    assert (await api.get(f"{PODS}/r/log?timestamps=true&tailLines=1")).body == said


async def test_timestamps_come_from_the_lines_that_have_one(api, run):
    text = b"2026-01-01T00:00:01Z first\nsecond\n2026-01-01T00:00:09Z third\n"
    await run("r", "Succeeded", text)
    got = await api.get(f"{PODS}/r/log?timestamps=true")
    assert got.body == text.replace(b"\nsecond", b"\n2026-01-01T00:00:01Z second")

    stamp = "2026-01-01T00:00:05Z"
    assert (await api.get(f"{PODS}/r/log?sinceTime={stamp}")).body == b"2026-01-01T00:00:09Z third\n"
    assert (await api.get(f"{PODS}/r/log?sinceTime=2030-01-01T00:00:00Z")).body == b""


async def test_a_followed_log_ends_with_its_run(api, run):
    path = await run("r", "Running", b"one\n")
    got = asyncio.ensure_future(api.get(f"{PODS}/r/log?follow=true"))
    await asyncio.sleep(0.15)
    with path.open("ab") as file:
        file.write(b"two\n")
    await asyncio.sleep(0.15)
    assert not got.done()
    with path.open("ab") as file:
        file.write(b"three\n")
    await run("r", "Succeeded")

    assert (await asyncio.wait_for(got, 60)).body == b"one\ntwo\nthree\n"


async def test_a_followed_log_ends_when_the_server_stops(api, app, run):
    await run("r", "Running", b"one\n")
    got = asyncio.ensure_future(api.get(f"{PODS}/r/log?follow=true"))
    await asyncio.sleep(0.15)
    app.watches.end_all()

    assert (await asyncio.wait_for(got, 60)).body == b"one\n"


async def test_logs_that_cannot_be_shown_say_why(api, app, state, run, tmp_path):
    await run("waiting", "Pending")
    await run("cloud", "Succeeded", logUri="s3://bucket/log")
    await run("r", "Succeeded", b"x\n")
    for path, status, message in [
        ("waiting/log", 400, "is waiting to start"),
        ("waiting/log?previous=true", 400, "previous terminated container"),
        ("cloud/log", 501, "s3://bucket/log"),
        ("r/log?container=other", 400, "it has only worker"),
        ("zz/log", 404, 'pods "zz" not found'),
    ]:
        got = await api.get(f"{PODS}/{path}")
        assert got.status == status and message in got.json["message"]
    api.app = create_app(state.store, app._crds, tokens=state.tokens, log_root=tmp_path / "elsewhere")
    assert (await api.get(f"{PODS}/r/log")).status == 403


async def test_a_run_shows_the_log_in_a_runs_folder_and_no_other_file(api, app, state, run, tmp_path):
    folder = tmp_path / "data" / "runs" / "p"
    folder.mkdir(parents=True)
    for name in ("worker.log", "serve.token"):
        (folder / name).write_text(name)
    (folder / "linked").mkdir()
    (folder / "linked" / "worker.log").symlink_to(folder / "serve.token")
    (tmp_path / "data" / "worker.log").write_text("none of a run")
    api.app = create_app(state.store, app._crds, tokens=state.tokens, log_root=tmp_path / "data")
    await run("own", "Succeeded", logUri=(folder / "worker.log").as_uri())
    assert (await api.get(f"{PODS}/own/log")).body == b"worker.log"
    for number, path in enumerate(("serve.token", "../../worker.log", "linked/worker.log")):
        await run(
            f"r{number}",
            "Succeeded",
            logUri=f"{folder.as_uri()}/{path}",
            previousLogUri=f"{folder.as_uri()}/{path}",
        )
        for query in ("", "?previous=true"):
            got = await api.get(f"{PODS}/r{number}/log{query}")
            assert got.status == 403 and "runs/PLAN/worker.log" in got.json["message"]


def test_the_tail_is_where_the_last_lines_begin(tmp_path):
    path = tmp_path / "log"
    lines = [f"line {i}".encode() * (i % 50) for i in range(20_000)]
    for end in (b"\n", b""):
        data = b"\n".join(lines) + end
        path.write_bytes(data)
        for wanted in (0, 1, 2, 17, 5_000, 19_999, 20_000, 30_000):
            found = data[logs.tail_offset(path, wanted) :]
            whole = data.split(b"\n")[:-1] if end else data.split(b"\n")
            expected = b"\n".join(whole[-wanted:]) + end if wanted else b""
            assert found == expected, wanted
    path.write_bytes(b"")
    assert logs.tail_offset(path, 5) == 0


async def test_follow_waits_for_the_file_and_goes_on_when_it_is_begun_anew(tmp_path, eventually):
    path, got, ended = tmp_path / "log", [], False

    async def seen(parts):
        return len(got) == parts

    async def read():
        async for data in logs.follow(path, 0, stop=lambda: ended):
            got.append(data)

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(0.15)
    path.write_bytes(b"first\n")
    assert await eventually(lambda: seen(1))
    path.write_bytes(b"new\n")
    assert await eventually(lambda: seen(2))
    ended = True
    await asyncio.wait_for(reading, 60)

    assert got == [b"first\n", b"new\n"]


@pytest.mark.slow
def test_a_log_of_a_gigabyte_opens_within_fifty_megabytes(tmp_path):
    path = tmp_path / "big"
    block = (b"x" * 99 + b"\n") * 10_000
    with path.open("wb") as file:
        for _ in range(1_000):
            file.write(block)
    tracemalloc.start()
    offset = logs.tail_offset(path, 50)
    assert len(logs.read(path, offset, 1 << 20)) == 5_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    path.unlink()

    assert peak < 50 << 20
