"""Uploads: part by part, gone on with after any break, whole only with the right digest, by those who may."""

import asyncio
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from datatunerx.client.https import Https
from datatunerx.client.kubeconfig import load
from datatunerx.client.uploads import upload
from datatunerx.resources.crds import crd_manifests
from datatunerx.server.app import create_app
from datatunerx.server.uploads import Uploads

PLACE = "/uploads/v1/namespaces/team"
DATA = random.Random(1).randbytes(3 << 20)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
async def app(state, root):
    """The server of these tests, with our own kinds and the upload route."""
    app = create_app(state.store, crd_manifests(), tokens=state.tokens, mounts={"/uploads": Uploads(root)})
    await app.start()
    yield app
    await app.stop()
    await state.store.close()


def asked(data: bytes = DATA, name: str = "a.jsonl", **more: object) -> dict[str, object]:
    return {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), **more}


async def put(api, at: str, offset: int, data: bytes):
    return await api.call("PUT", f"{at}?offset={offset}", data, "application/octet-stream")


async def test_a_file_comes_in_parts_and_is_there_once_it_is_whole(api, root) -> None:
    begun = (await api.post(PLACE, asked())).ok()
    at = f"{PLACE}/{begun['id']}"
    assert (begun["offset"], begun["uri"]) == (0, None)
    assert (await put(api, at, 0, DATA[:1_000_000])).ok()["offset"] == 1_000_000
    assert (await api.post(PLACE, asked())).ok()["offset"] == 1_000_000  # beginning again finds it
    assert (await api.post(f"{at}/complete", {})).status == 409
    assert (await put(api, at, 1_000_000, DATA[1_000_000:])).ok()["offset"] == len(DATA)
    done = (await api.post(f"{at}/complete", {})).ok()
    assert done["uri"] == f"upload://team/{begun['id']}/a.jsonl"
    assert (root / "team" / begun["id"] / "a.jsonl").read_bytes() == DATA
    assert (await api.post(f"{at}/complete", {})).ok() == done
    assert (await api.post(PLACE, asked())).ok() == done
    assert not list((root / ".parts").glob("*/*"))


async def test_a_namespace_keeps_no_more_than_it_may_and_others_are_not_its_affair(app, api, root) -> None:
    app._mounts["/uploads"] = Uploads(root, max_namespace=100)
    first = (await api.post(PLACE, asked(b"x" * 60, "a"))).ok()
    at = f"{PLACE}/{first['id']}"
    refused = await api.post(PLACE, asked(b"y" * 41, "b"))  # what has only begun counts whole
    assert refused.status == 413
    assert "has 60 bytes of uploads and may have 100; this file has 41" in refused.json["message"]
    assert "DTX_UPLOAD_BYTES" in refused.json["message"]
    (await put(api, at, 0, b"x" * 60)).ok()
    (await api.post(f"{at}/complete", {})).ok()
    assert (await api.post(PLACE, asked(b"y" * 41, "b"))).status == 413
    assert (await api.post(PLACE, asked(b"x" * 60, "a"))).ok()["uri"]  # what is there takes nothing more
    assert (await api.post(PLACE, asked(b"y" * 40, "b"))).status == 201
    (await api.post(PLACE.replace("team", "other"), asked(b"y" * 99, "b"))).ok()


async def test_a_part_at_the_wrong_place_is_told_the_right_one(api) -> None:
    at = f"{PLACE}/{(await api.post(PLACE, asked())).ok()['id']}"
    (await put(api, at, 0, DATA[:10])).ok()
    for offset in (0, 11):
        answer = await put(api, at, offset, b"x")
        assert answer.status == 409 and "has 10 bytes" in answer.json["message"]
    assert (await put(api, at, 10, DATA)).status == 400  # more than was said
    assert (await api.get(at)).ok()["offset"] >= 10


async def test_a_part_for_an_upload_that_was_given_up_meanwhile_is_told_so(api, monkeypatch) -> None:
    at = f"{PLACE}/{(await api.post(PLACE, asked())).ok()['id']}"
    told = Uploads._told

    def gone_meanwhile(self, upload):
        found = told(self, upload)
        shutil.rmtree(self._part(upload))
        return found

    monkeypatch.setattr(Uploads, "_told", gone_meanwhile)
    answer = await put(api, at, 0, DATA)
    assert answer.status == 404 and "begin it again" in answer.json["message"]


async def test_other_bytes_than_promised_are_thrown_away(api, root) -> None:
    at = f"{PLACE}/{(await api.post(PLACE, asked(b'right'))).ok()['id']}"
    (await put(api, at, 0, b"wrong")).ok()
    answer = await api.post(f"{at}/complete", {})
    assert answer.status == 422 and "SHA-256" in answer.json["message"]
    assert (await api.get(at)).status == 404
    assert not [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "../a"}, "name"),
        ({"name": ".a"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": ""}, "name"),
        ({"size": -1}, "size"),
        ({"size": 1 << 60}, "size"),
        ({"size": True}, "size"),
        ({"sha256": "x"}, "sha256"),
    ],
)
async def test_a_beginning_that_makes_no_sense_is_refused(api, wrong, said) -> None:
    answer = await api.post(PLACE, asked() | wrong)
    assert answer.status == 400 and answer.json["message"].startswith(f"{said}:")


async def test_more_than_the_disk_has_is_refused_with_both_numbers(api, monkeypatch) -> None:
    monkeypatch.setattr("datatunerx.server.uploads.SPARE_BYTES", 1 << 60)
    answer = await api.post(PLACE, asked())
    assert answer.status == 507 and f"{len(DATA):,} bytes and 0 are free" in answer.json["message"]


async def test_what_nobody_goes_on_with_is_cleaned_up(api, root) -> None:
    id = (await api.post(PLACE, asked())).ok()["id"]
    (await put(api, f"{PLACE}/{id}", 0, DATA[:1000])).ok()
    folder = root / ".parts" / "team" / id
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (0, 0))
    (await api.post(PLACE, asked(b"other", "b.jsonl"))).ok()
    assert not folder.exists()


async def test_only_who_may_make_datasets_may_upload(caller, stranger) -> None:
    assert (await stranger.post(PLACE, asked())).status == 401
    viewer, editor = await caller("viewer"), await caller("editor")
    assert (await viewer("POST", PLACE, asked())).status == 403
    assert (await editor("POST", PLACE, asked())).status == 201
    assert (await editor("POST", "/uploads/v1/namespaces/other", asked())).status == 403


async def test_paths_that_climb_lead_nowhere(api) -> None:
    for path in ("v1/namespaces/../x", "v1/namespaces/team/..", "v2", f"v1/namespaces/team/{'0' * 32}/x"):
        assert (await api.get(f"/uploads/{path}")).status == 404


SERVER = """
import asyncio, sys
from pathlib import Path
from datatunerx.resources.crds import crd_manifests
from datatunerx.server.app import create_app
from datatunerx.server.listen import serve
from datatunerx.server.state import open_state
from datatunerx.server.uploads import Uploads

async def main(home, port):
    state = open_state(Path(home))
    mounts = {"/uploads": Uploads(Path(home) / "data" / "uploads")}
    app = create_app(state.store, crd_manifests(), tokens=state.tokens, mounts=mounts)
    def ready(port):
        state.write_kubeconfig(port)
        print(port, flush=True)
    await serve(app, "127.0.0.1", int(port), state.tls(), ready=ready)
    await state.store.close()

asyncio.run(main(*sys.argv[1:]))
"""


class Process:
    def __init__(self, home: Path) -> None:
        self.home, self.port = home, "0"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(self.home), self.port], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = self.process.stdout.readline().strip()
        assert self.port

    def stop(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.communicate(timeout=60)


@pytest.fixture
def process(tmp_path: Path):
    process = Process(tmp_path / "home")
    yield process
    process.stop(signal.SIGKILL)


def big_file(path: Path, megabytes: int) -> str:
    block, whole = random.Random(2).randbytes(1 << 20), hashlib.sha256()
    with path.open("wb") as file:
        for n in range(megabytes):
            data = n.to_bytes(8, "big") + block[8:]
            file.write(data)
            whole.update(data)
    return whole.hexdigest()


async def sent(process: Process, path: Path, on_progress=lambda here, whole: None) -> Path:
    async with Https(load(process.home / "kubeconfig")) as transport:
        uri = await upload(transport, path, "default", on_progress=on_progress)
    return process.home / "data/uploads" / uri.removeprefix("upload://")


@pytest.mark.slow
async def test_a_server_killed_in_the_middle_goes_on_there(process, tmp_path: Path) -> None:
    digest = big_file(tmp_path / "big.jsonl", 64)
    told: list[int] = []
    killed: list[int] = []

    def progress(here: int, whole: int) -> None:
        told.append(here)
        if here >= 24 << 20 and not killed:
            killed.append(here)
            process.stop(signal.SIGKILL)
            process.start()

    place = await sent(process, tmp_path / "big.jsonl", progress)
    assert hashlib.sha256(place.read_bytes()).hexdigest() == digest
    after = told[told.index(killed[0]) + 1]
    assert after >= killed[0] and told == sorted(told)  # nothing was sent twice over


@pytest.mark.slow
async def test_others_are_answered_at_once_while_a_large_file_comes(process, tmp_path: Path) -> None:
    await large_upload(process, tmp_path, megabytes=128)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_others_are_answered_at_once_while_a_gigabyte_comes(process, tmp_path: Path) -> None:
    await large_upload(process, tmp_path, megabytes=1024)


UPLOAD = """
import asyncio, sys
from pathlib import Path
from datatunerx.client.https import Https
from datatunerx.client.kubeconfig import load
from datatunerx.client.uploads import upload

async def main(home, path):
    async with Https(load(Path(home) / "kubeconfig")) as transport:
        print(await upload(transport, Path(path), "default"))

asyncio.run(main(*sys.argv[1:]))
"""


async def large_upload(process: Process, tmp_path: Path, megabytes: int) -> None:
    """From a process of its own, so that what the others wait for is the server and not this test."""
    digest = big_file(tmp_path / "big.jsonl", megabytes)
    server = psutil.Process(process.process.pid)
    before = peak = server.memory_info().rss
    waits: list[float] = []
    idle: list[float] = []
    began = time.monotonic()
    words = [sys.executable, "-c", UPLOAD, str(process.home), str(tmp_path / "big.jsonl")]
    sender = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    async with Https(load(process.home / "kubeconfig")) as transport:
        while sender.poll() is None:
            waits.append(await wait_of(transport))
            peak = max(peak, server.memory_info().rss)
            await asyncio.sleep(0.02)
        for _ in range(50):  # the machine's own part: nothing is uploaded now
            idle.append(await wait_of(transport))
            await asyncio.sleep(0.02)
    uri = sender.communicate()[0].strip()
    waits.sort(), idle.sort()
    p50, p95, idle_p95 = waits[len(waits) // 2], waits[int(len(waits) * 0.95)], idle[int(len(idle) * 0.95)]
    found = {
        "megabytes": megabytes, "seconds": round(time.monotonic() - began, 1), "asked": len(waits),
        "p50": round(p50, 4), "p95": round(p95, 4), "max": round(waits[-1], 4),
        "idle p95": round(idle_p95, 4), "grown": peak - before,
    }  # fmt: skip
    print(json.dumps(found))
    place = process.home / "data/uploads" / uri.removeprefix("upload://")
    assert hashlib.sha256(place.read_bytes()).hexdigest() == digest
    assert p95 <= 0.1 + idle_p95, found
    assert peak - before <= 64 << 20, found


async def wait_of(transport: Https) -> float:
    began = time.monotonic()
    assert (await transport.request("GET", "/api/v1/namespaces/default")).status == 200
    return time.monotonic() - began
