"""Real processes behind the controllers: a kill is told, a deletion leaves nobody behind."""

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from datatunerx.client import Api, InProcess
from datatunerx.compute import LocalBackend
from datatunerx.controllers import Settings, run_controllers
from datatunerx.resources import Finetune, FinetuneExperiment, Run
from datatunerx.resources.crds import crd_manifests
from datatunerx.server.app import create_app
from datatunerx.server.tokens import Tokens
from datatunerx.store import Store

WORKER = """#!{python}
import json, pathlib, sys, time
from urllib.parse import urlsplit
plan = json.loads(pathlib.Path(urlsplit(sys.argv[-1]).path).read_text())
folder = pathlib.Path(urlsplit(plan["outputUri"]).path)
result = {{"planId": plan["id"], "phase": "Succeeded"}}
if "inspectModel" in plan:
    result["model"] = {{"architecture": "Llama", "parameters": 10, "contextLength": 9, "bytes": 4,
                        "digest": "d", "localUri": "file:///m"}}
elif "inspectData" in plan:
    result["data"] = {{"digest": "dd", "report": {{"kept": 1, "read": 1}}}}
else:
    print("about to train", flush=True)
    with open(folder / "events.jsonl", "a") as events:
        print(json.dumps({{"time": time.time(), "type": "heartbeat"}}), file=events, flush=True)
    time.sleep(600)
(folder / "result.json").write_text(json.dumps(result))
"""


class Real:
    def __init__(self, api, backend):
        self.api = api
        self.backend = backend

    async def worker(self) -> psutil.Process:
        """The process that trains, once it says so."""
        async with asyncio.timeout(60):
            while True:
                for run in await self.api.list(Run):
                    if run.spec.type == "tune" and run.status.last_heartbeat:
                        found = [p for p in psutil.process_iter(["cmdline"]) if is_worker(p, run)]
                        if found:
                            return found[0]
                await asyncio.sleep(0.05)


def is_worker(process: psutil.Process, run: Run) -> bool:
    return run.spec.plan_uri in (process.info["cmdline"] or [])


@pytest.fixture
async def real(root: Path) -> AsyncIterator[Real]:
    python = root / "worker"
    python.write_text(WORKER.format(python=sys.executable))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    store = Store.open(root / "db")
    app = create_app(store, crd_manifests(), tokens=Tokens({}))
    await app.start()
    backend = LocalBackend(root, gpus=0, python=str(python), grace_seconds=1)
    settings = Settings(root_uri=f"file://{root}/data", poll_seconds=0.2, resync_seconds=1)
    stop = asyncio.Event()
    api = Api(InProcess(app))
    task = asyncio.create_task(run_controllers(api, backend, settings, stop=stop))
    yield Real(api, backend)
    for run in await api.list(Run):
        await api.patch(Run, run.metadata.name, {"spec": {"stop": True}})
    await asyncio.sleep(1.5)
    stop.set()
    await task
    backend.close()
    await app.stop()
    await store.close()


@pytest.mark.slow
async def test_a_killed_worker_is_told_within_ten_seconds_with_its_log(real, make_objects):
    for obj in make_objects(1, retryLimit=0):
        await real.api.create(obj)
    worker = await real.worker()
    os.kill(worker.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        while not (found := await real.api.get(FinetuneExperiment, "e")).status.phase.terminal:
            await asyncio.sleep(0.05)
    (failure,) = found.status.failures
    assert failure.reason == "WorkerDied" and "SIGKILL" in failure.message
    assert "about to train" in failure.log_tail


@pytest.mark.slow
async def test_a_killed_worker_is_started_again_once_when_a_retry_is_left(real, make_objects):
    for obj in make_objects(1):
        await real.api.create(obj)
    first = await real.worker()
    os.kill(first.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while (second := await real.worker()).pid == first.pid:
            await asyncio.sleep(0.05)
    finetune = await real.api.get(Finetune, "e-g0")
    assert finetune.status.retries == 1 and second.is_running()


@pytest.mark.slow
async def test_a_deleted_experiment_leaves_no_process_and_no_folder(real, make_objects, root):
    for obj in make_objects(1):
        await real.api.create(obj)
    worker = await real.worker()
    await real.api.delete(FinetuneExperiment, "e")
    async with asyncio.timeout(60):
        while [r for r in await real.api.list(Run) if r.spec.type == "tune"]:
            await asyncio.sleep(0.05)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    inspections = await real.api.list(Run)
    assert len(list((root / "data/runs").iterdir())) == len(inspections) == 2
