"""How fast the embedded server is: durable writes, lists, watches, memory, start. Prints a table.

Run: python benchmarks/bench_server.py [--objects 10000]. A real server process over TLS, on the disk of the
temporary directory (TMPDIR); clients are processes of their own and speak the protocol by hand, for a client
library costs more than the server. Beside what the clock said stands, for one operation, the server's
processor time, which stays about true on a busy machine, and how long its threads waited for a core; and what
one fdatasync took on the same disk just before: no client that waits for each answer can be faster than that.
"""

import argparse
import asyncio
import multiprocessing
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import psutil
import uvloop

PATH = "/apis/datatunerx.io/v1beta1/namespaces/default/finetunes"
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


# Clients, each in a process of its own


@dataclass(frozen=True)
class Place:
    """Where a server is and what lets one in."""

    home: Path
    port: int
    token: str

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = ssl.create_default_context(cafile=str(self.home / "tls" / "ca.crt"))
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=context)

    def request(self, method: str, path: str, body: object = None, type: str = "application/json") -> bytes:
        data = b"" if body is None else orjson.dumps(body)
        head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {self.token}\r\n"
        return f"{head}content-type: {type}\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    """The body of the answer; an error unless it is a success."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    body = await reader.readexactly(int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]))
    if not head.startswith(b"http/1.1 2"):
        raise RuntimeError(body.decode())
    return body


async def load(place: Place, requests: list[bytes], clients: int) -> list[float]:
    """Seconds of each request, made by `clients` at once."""
    waiting = iter(requests)
    spent: list[float] = []

    async def client() -> None:
        reader, writer = await place.connect()
        for request in waiting:
            started = time.perf_counter()
            await ask(reader, writer, request)
            spent.append(time.perf_counter() - started)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return spent


async def follow(place: Place, watchers: int, events: int, ready: Any) -> list[float]:
    """Seconds from a writer sending a change until each watcher has parsed it; the object says when."""
    spent: list[float] = []
    opened: list[None] = []

    async def watcher() -> None:
        reader, writer = await place.connect()
        writer.write(
            place.request("GET", f"{PATH}?watch=1&labelSelector=set%3Dw{watchers}&timeoutSeconds=300")
        )
        await reader.readuntil(b"\r\n\r\n")
        opened.append(None)
        if len(opened) == watchers:
            ready.set()
        for _ in range(events):
            line = b""
            while not line.startswith(b"{"):  # between them the lengths of the chunks
                line = await reader.readline()
            annotations = orjson.loads(line)["object"]["metadata"]["annotations"]
            spent.append(time.monotonic() - float(annotations["sent"]))
        writer.close()

    await asyncio.gather(*(watcher() for _ in range(watchers)))
    return spent


def run(work: Callable[..., Coroutine[Any, Any, list[float]]], *arguments: Any) -> list[float]:
    return uvloop.run(work(*arguments))


# The server and what is measured of it


class Spent(NamedTuple):
    """Milliseconds of a processor."""

    ran: float
    waited: float
    """Ready to run while another program had the core."""

    def each(self, before: "Spent", operations: int) -> str:
        ran, waited = (self.ran - before.ran) / operations, (self.waited - before.waited) / operations
        return f"{ran:.3g} + {waited:.2g} ms"


class Server:
    """A server process on a home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(home)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        port = int(self.process.stdout.readline())
        self.place = Place(home, port, (home / "token").read_text().strip())
        self.start_seconds = time.perf_counter() - started
        self.start_spent = self.spent()

    def megabytes(self) -> float:
        return float(psutil.Process(self.process.pid).memory_info().rss / 1e6)

    def spent(self) -> Spent:
        """So far, by all threads."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        found = [task.read_text().split() for task in tasks]
        return Spent(sum(int(ran) for ran, _, _ in found) / 1e6, sum(int(wait) for _, wait, _ in found) / 1e6)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def fdatasync(folder: Path) -> tuple[float, float]:
    """(median, p95) of an fdatasync after 8 KB appended, in milliseconds."""
    spent = []
    with open(folder / "probe", "wb", buffering=0) as file:
        for _ in range(100):
            file.write(os.urandom(8192))
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            spent.append(time.perf_counter() - started)
    return at(spent, 50), at(spent, 95)


def at(values: list[float], percent: int) -> float:
    """A percentile, in milliseconds."""
    return statistics.quantiles(values, n=100)[percent - 1] * 1e3


def row(what: str, value: str, cost: str, target: str, good: bool) -> None:
    verdict = ("ok" if good else "MISSED") if target else ""
    print(f"{what:<34} {value:>34} {cost:>20}   {target:<14} {verdict}", flush=True)


class Bench:
    """A server under measurement, and processes for its clients."""

    def __init__(self, server: Server, pool: ProcessPoolExecutor) -> None:
        self.server = server
        self.pool = pool

    def load(self, requests: list[bytes], clients: int) -> tuple[float, list[float], str]:
        """(operations a second, seconds of each, the server's processor time of one)."""
        before, started = self.server.spent(), time.perf_counter()
        spent = self.pool.submit(run, load, self.server.place, requests, clients).result()
        seconds = time.perf_counter() - started
        return len(spent) / seconds, spent, self.server.spent().each(before, len(spent))

    def writes(self, clients: int, total: int, goal: int) -> None:
        """As many creates as status patches; without a goal when `goal` is 0."""
        prefix = f"c{clients}-"
        median, slow = fdatasync(self.server.home)
        for what, make in (("creates", self.creates), ("status patches", self.patches)):
            rate, spent, cost = self.load(list(make(prefix, total // 2)), clients)
            told = f"{rate:.0f}/s p50 {at(spent, 50):.1f} p99 {at(spent, 99):.0f} ms"
            wanted = f">= {goal}/s" if goal else ""
            row(f"durable {what}, {clients} clients", told, cost, wanted, rate >= goal)
        ceiling = f"one client alone at most {1e3 / median:.0f}/s"
        print(f"    fdatasync just before: p50 {median:.2f} p95 {slow:.2f} ms, so {ceiling}")

    def creates(self, prefix: str, total: int) -> Iterator[bytes]:
        for number in range(total):
            yield self.server.place.request("POST", PATH, finetune(f"{prefix}{number}", set="load"))

    def patches(self, prefix: str, total: int) -> Iterator[bytes]:
        for number in range(total):
            status = {"status": {"phase": "Running", "progress": {"step": number, "steps": total}}}
            path, media = f"{PATH}/{prefix}{number}/status", "application/merge-patch+json"
            yield self.server.place.request("PATCH", path, status, media)

    def lists(self) -> None:
        request = self.server.place.request("GET", f"{PATH}?limit=1000")
        _, spent, cost = self.load([request] * 50, 1)
        slow = at(spent, 95)
        row("list of 1,000 objects", f"p95 {slow:.0f} ms", cost, "<= 100 ms", slow <= 100)

    def watches(self, watchers: int, events: int, ready: Any) -> None:
        ready.clear()
        following = self.pool.submit(run, follow, self.server.place, watchers, events, ready)
        ready.wait(60)
        before = self.server.spent()
        self.pool.submit(run, steady, self.server.place, events, f"w{watchers}").result()
        spent = following.result()
        cost = self.server.spent().each(before, len(spent))
        slow = at(spent, 99)
        told = f"p50 {at(spent, 50):.1f} p99 {slow:.1f} ms"
        row(f"write to event, {watchers} watchers", told, cost, "p99 <= 50 ms", slow <= 50)


async def steady(place: Place, events: int, prefix: str) -> list[float]:
    """A write each 40 ms that says when it was sent."""
    reader, writer = await place.connect()
    for number in range(events):
        obj = finetune(f"{prefix}-{number}", set=prefix)
        obj["metadata"]["annotations"]["sent"] = repr(time.monotonic())
        await ask(reader, writer, place.request("POST", PATH, obj))
        await asyncio.sleep(0.04)
    writer.close()
    return []


WRITES = ((1, 800, 200), (8, 1600, 0), (32, 4000, 1000))
"""(clients, creates and status patches together, goal a second)"""
WARM = 50
EVENTS = 100


def bench(objects: int, folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    print(f"{'what':<34} {'measured':>34} {'server ran + waited':>20}   {'goal':<14}")
    server = Server(folder / "home")
    starts(server, "an empty home", 2, 90)
    with ProcessPoolExecutor(2, mp_context=context) as pool, context.Manager() as manager:
        measure = Bench(server, pool)
        # The first of each kind compiles schemas and rules, and starts the clients' processes.
        measure.load(list(measure.creates("warm", WARM)), 2)
        for clients, total, goal in WRITES:
            measure.writes(clients, total, goal)
        measure.lists()
        ready = manager.Event()
        for watchers in (20, 200):
            measure.watches(watchers, EVENTS, ready)
        there = WARM + sum(total // 2 for _, total, _ in WRITES) + 2 * EVENTS
        if objects > there:
            measure.load(list(measure.creates("rest", objects - there)), 32)
        memory = server.megabytes()
        row(f"memory with {objects:,} objects", f"{memory:.0f} MB", "", "<= 300 MB", memory <= 300)
        measure.load(list(measure.creates("more", objects)), 32)
    server.stop()
    again = Server(folder / "home")
    starts(again, f"{2 * objects:,} objects", 3, 300)
    again.stop()


def starts(server: Server, on: str, seconds: float, megabytes: float) -> None:
    told = f"{server.start_seconds:.2f} s, {server.megabytes():.0f} MB"
    good = server.start_seconds <= seconds and server.megabytes() <= megabytes
    goal = f"<= {seconds} s, {megabytes} MB"
    row(f"start on {on}", told, server.start_spent.each(Spent(0, 0), 1), goal, good)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000, help="3,450 at least")
    with tempfile.TemporaryDirectory() as directory:
        bench(parser.parse_args().objects, Path(directory))
