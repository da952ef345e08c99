"""How fast the embedded server is: durable writes, lists, watches, memory, start. Prints a table.

Run: python benchmarks/bench_server.py [--objects 10000]. A real server process over TLS, on the disk of the
temporary directory; the loader shares the machine with it.
"""

import argparse
import asyncio
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil

FINETUNES = "/apis/datatunerx.io/v1beta1/namespaces/default/finetunes"
SERVER = """
import sys, uvloop
from pathlib import Path
from datatunerx.resources.crds import crd_manifests
from datatunerx.server.app import create_app
from datatunerx.server.listen import serve
from datatunerx.server.state import open_state

async def main(home):
    state = open_state(Path(home))
    app = create_app(state.store, crd_manifests(), tokens=state.tokens)
    await serve(app, "127.0.0.1", 0, state.tls(), ready=lambda port: print(port, flush=True))
    await state.store.close()

uvloop.run(main(sys.argv[1]))
"""


def finetune(name: str, **labels: str) -> dict[str, Any]:
    """An object of about 1 KB, as a user writes it."""
    return {
        "apiVersion": "datatunerx.io/v1beta1",
        "kind": "Finetune",
        "metadata": {"name": name, "labels": labels, "annotations": {"note": "n" * 300}},
        "spec": {
            "llm": "smollm2",
            "dataset": "tickets",
            "hyperparameter": {"ref": "base", "overrides": {"learningRate": 1e-4, "lora": {"rank": 8}}},
            "env": [{"name": f"V{i}", "value": "x" * 10} for i in range(5)],
        },
    }


class Server:
    """A server process on a home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(home)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.start_seconds = time.perf_counter() - started

    def session(self) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=str(self.home / "tls" / "ca.crt"))
        token = (self.home / "token").read_text().strip()
        return aiohttp.ClientSession(
            f"https://127.0.0.1:{self.port}",
            headers={"authorization": f"Bearer {token}"},
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
        )

    def megabytes(self) -> float:
        return psutil.Process(self.process.pid).memory_info().rss / 1e6

    def cpu_seconds(self) -> float:
        """Processor time used so far: tells of the server's own cost on a busy machine too."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


async def many(clients: int, total: int, one: Callable[[int], Awaitable[None]]) -> tuple[float, list[float]]:
    """(operations a second, seconds of each) of `total` operations by `clients` at once."""
    numbers = iter(range(total))
    spent: list[float] = []

    async def client() -> None:
        for number in numbers:
            started = time.perf_counter()
            await one(number)
            spent.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return total / (time.perf_counter() - started), spent


def at(values: list[float], percent: int) -> float:
    """A percentile, in milliseconds."""
    return statistics.quantiles(values, n=100)[percent - 1] * 1e3


def row(what: str, value: str, target: str, good: bool) -> None:
    print(f"{what:<44} {value:>22}   {target:<16} {'ok' if good else 'MISSED'}")


async def writes(
    session: aiohttp.ClientSession, prefix: str, clients: int, total: int
) -> tuple[float, list[float]]:
    async def create(number: int) -> None:
        async with session.post(FINETUNES, json=finetune(f"{prefix}{number}", set=prefix)) as answer:
            assert answer.status == 201, await answer.text()

    return await many(clients, total, create)


async def lists(session: aiohttp.ClientSession) -> list[float]:
    async def one(_: int) -> None:
        async with session.get(FINETUNES, params={"limit": "1000"}) as answer:
            await answer.read()

    return (await many(1, 50, one))[1]


async def watches(session: aiohttp.ClientSession, watchers: int, events: int) -> list[float]:
    """Seconds from sending a write to each watcher having parsed its event."""
    sent: dict[str, float] = {}
    spent: list[float] = []
    ready = asyncio.Semaphore(0)

    async def watch() -> None:
        query = {"watch": "1", "labelSelector": "set=w", "timeoutSeconds": "120"}
        async with session.get(FINETUNES, params=query) as answer:
            ready.release()
            for _ in range(events):
                event = json.loads(await answer.content.readline())
                spent.append(time.perf_counter() - sent[event["object"]["metadata"]["name"]])

    tasks = [asyncio.create_task(watch()) for _ in range(watchers)]
    for _ in tasks:
        await ready.acquire()
    for number in range(events):
        sent[f"w{number}"] = time.perf_counter()
        async with session.post(FINETUNES, json=finetune(f"w{number}", set="w")) as answer:
            assert answer.status == 201
        await asyncio.sleep(0.02)
    await asyncio.gather(*tasks)
    return spent


async def bench(objects: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "home"
        server = Server(home)
        print(f"{'what':<44} {'measured':>22}   {'target':<16}")
        row("start on an empty home", f"{server.start_seconds:.2f} s", "<= 2 s", server.start_seconds <= 2)
        async with server.session() as session:
            rate, spent = await writes(session, "one", 1, 400)
            row(
                "durable creates, 1 client",
                f"{rate:.0f}/s p99 {at(spent, 99):.0f} ms",
                ">= 200/s",
                rate >= 200,
            )
            before = server.cpu_seconds()
            rate, spent = await writes(session, "many", 32, 3000)
            cost = (server.cpu_seconds() - before) / 3000 * 1e3
            row(
                "durable creates, 32 clients",
                f"{rate:.0f}/s p99 {at(spent, 99):.0f} ms",
                ">= 1000/s",
                rate >= 1000,
            )
            row("processor time of one such create", f"{cost:.2f} ms", "<= 1 ms", cost <= 1)
            spent = await lists(session)
            row("list of 1,000 objects", f"p95 {at(spent, 95):.0f} ms", "<= 100 ms", at(spent, 95) <= 100)
            spent = await watches(session, 20, 100)
            told = f"p50 {at(spent, 50):.1f} p99 {at(spent, 99):.1f} ms"
            row("write to event, 20 watchers", told, "p99 <= 50 ms", at(spent, 99) <= 50)
            if objects > 3500:
                await writes(session, "rest", 32, objects - 3500)
        memory = server.megabytes()
        row(f"memory with {objects:,} objects", f"{memory:.0f} MB", "<= 300 MB", memory <= 300)
        server.stop()
        again = Server(home)
        seconds, memory = again.start_seconds, again.megabytes()
        row(f"start on {objects:,} objects", f"{seconds:.2f} s, {memory:.0f} MB", "<= 3 s", seconds <= 3)
        again.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000)
    asyncio.run(bench(parser.parse_args().objects))
