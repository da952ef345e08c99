"""How quick the console is, beside what was promised: log line to screen, bytes, paint, charts, long lists.

Run: python benchmarks/bench_console.py [--seconds 20] [--pages 1 5] [--jobs 100] [--points 100000]
[--history 400] [--runs 1000]. A real server process and Debian's chromium; some three minutes on two cores.

A line of the log carries the time at which it was written; the page notes when it was drawn, by the same
clock. Each page has a window of its own: a tab that nobody sees is drawn by no browser. Meanwhile statuses
change, as they do while something trains.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from datatunerx.client import Api, Plural
from datatunerx.client.https import Https
from datatunerx.client.kubeconfig import load
from datatunerx.telemetry.measured import measured
from datatunerx.telemetry.points import RECORD

LINES_PER_SECOND = 200
GROUP, VERSION = "datatunerx.io", "v1beta1"
PATHS = (
    "experiments",
    "experiments/big",
    "jobs/big-000",
    "jobs/big-000?tab=logs",
    "experiments/big?tab=charts",
)
TUNE = {"llm": "base", "dataset": "data", "hyperparameter": {"ref": "group"}}
SCORING = {"metrics": ["exact-match"]}
DRAWN = """() => {
  window.took = [];
  new MutationObserver((changes) => {
    const fresh = changes.flatMap((each) => [...each.addedNodes]);
    const written = fresh.map((node) => Number(node.textContent?.split(" ")[0]));
    requestAnimationFrame(() => {
      const now = performance.timeOrigin + performance.now();
      for (const at of written) if (at > 1e12) window.took.push(now - at);
    });
  }).observe(document.querySelector("dtx-log [data-lines]"), { childList: true });
}"""
DRAW = """async () => {
  const took = [], charts = document.querySelector("dtx-charts");
  for (let n = 0; n < 5; n++) {
    const began = performance.now();
    await charts.load();
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    took.push(performance.now() - began);
  }
  return took;
}"""


@contextmanager
def served(home: Path) -> Iterator[tuple[str, psutil.Process]]:
    """(a link that logs in, the server's process)."""
    environment = {**os.environ, "DTX_HOME": str(home), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "datatunerx.cli", "up", "--port", "0", "--no-controllers"]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        found = re.search(r"https://\S+", server.stdout.readline())
        assert found, "the server did not start"
        yield found[0], psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait(20)


# What is looked at


class World:
    """Objects made through the API of a home, as controllers would."""

    def __init__(self, api: Api, home: Path) -> None:
        self._api, self._data = api, home / "data"

    async def create(self, kind: str, name: str, spec: dict[str, Any], owner: Any = None) -> dict[str, Any]:
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name}, "spec": spec}
        if owner:
            told = {key: owner["metadata"][key] for key in ("name", "uid")} | {"controller": True}
            body["metadata"]["ownerReferences"] = [
                told | {"apiVersion": owner["apiVersion"], "kind": owner["kind"]}
            ]
        return await self._api.create_raw(Plural(GROUP, VERSION, f"{kind.lower()}s"), body)

    async def say(self, kind: str, name: str, **status: Any) -> None:
        await self._api.patch_status(Plural(GROUP, VERSION, f"{kind.lower()}s"), name, {"status": status})

    async def experiment(self, name: str, jobs: int) -> None:
        """With so many jobs that have ended, and the training of the first one, which goes on."""
        matrix = {"llms": ["base"], "datasets": ["data"], "hyperparameters": ["group"]}
        made = await self.create("FinetuneExperiment", name, {"matrix": matrix, "scoring": SCORING})
        for n in range(jobs):
            tune = TUNE | {
                "hyperparameter": {"ref": "group", "overrides": {"seed": n, "batchSize": 1 + n % 4}}
            }
            job = await self.create(
                "FinetuneJob", f"{name}-{n:03}", {"finetune": tune, "scoring": SCORING}, made
            )
            await self.say("FinetuneJob", f"{name}-{n:03}", phase="Succeeded", score=n / jobs)
            if not n:
                await self.create("Finetune", f"{name}-{n:03}", tune, job)

    async def run(self, name: str, plan: str, tunes: Sequence[str]) -> Path:
        """A run that carries some trainings; its folder, with an empty log."""
        folder = self._data / "runs" / plan
        folder.mkdir(parents=True)
        (folder / "worker.log").touch()
        spec = {
            "type": "tune",
            "planId": plan,
            "planUri": "file:///p",
            "serves": [f"Finetune/{t}" for t in tunes],
        }
        await self.create("Run", name, spec)
        await self.say("Run", name, phase="Running", logUri=f"file://{folder}/worker.log")
        return folder


def within(home: Path, make: Any) -> Any:
    """What `await make(World)` returns, in a loop of its own: Playwright has one in the main thread."""
    found: list[Any] = []

    async def run() -> None:
        async with Https(load(home / "kubeconfig")) as transport:
            found.append(await make(World(Api(transport), home)))

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    thread.join()
    return found[0]


def history(folder: Path, jobs: int, points: int) -> None:
    """What was measured, in the columns that a first look leaves; the events would be gigabytes."""
    columns = folder / "points"
    columns.mkdir()
    steps, noise = np.arange(1, points + 1), np.random.default_rng(7)
    series: dict[str, dict[str, tuple[int, int]]] = {}
    for n in range(jobs):
        names = series[f"big-{n:03}"] = {}
        for name, every in (("loss", 1), ("learningRate", 1), ("evalLoss", 100)):
            rows = np.empty(points // every, RECORD)
            rows["step"] = steps[every - 1 :: every]
            rows["time"] = 1.79e9 + rows["step"]
            rows["value"] = 2 / (rows["step"] + 10 * n) ** 0.2 + noise.normal(0, 0.05, len(rows))
            names[name] = (3 * n + len(names), len(rows))
            rows.tofile(columns / str(names[name][0]))
    size = 400 * jobs * points
    state = {"offset": size, "series": series, "began": dict.fromkeys(series, 1.79e9)}
    (columns / "state.json").write_text(json.dumps(state))
    with (folder / "events.jsonl").open("wb") as file:
        file.truncate(size)


def unseen(folder: Path, job: str, megabytes: int) -> None:
    """Events as a worker writes them: for each step what it measured and how far it is."""
    lines, step = [], 0
    while len(lines) < 4000:
        step += 1
        head = f'{{"time":{1.79e9 + step / 7},"job":"{job}","step":{step}'
        values = f'{{"loss":{2 / step**0.2},"learningRate":{1e-4 / step},"gradNorm":{1.3 + 1 / step}}}'
        progress = f'{{"step":{step},"steps":100000,"epoch":{step / 313},"tokens":{step * 431},'
        progress += f'"tokensPerSecond":{812.5 + 1 / step},"etaSeconds":{9e5 / step},"activity":"training"}}'
        lines += [
            f'{head},"type":"metrics","values":{values}}}\n',
            f'{head},"type":"progress","progress":{progress}}}\n',
        ]
    block = "".join(lines).encode()
    with (folder / "events.jsonl").open("wb") as file:
        while file.tell() < megabytes * 1e6:
            file.write(block)


# What is measured


def weighed(browser: Browser, known: BrowserContext, base: str, path: str) -> tuple[float, float]:
    """kB of a first visit, with an empty cache, and milliseconds to first paint of those that follow."""
    context = browser.new_context(ignore_https_errors=True)
    context.add_cookies(known.cookies())
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    sizes: list[float] = []
    # without what charts draw: it is data, and grows with what is asked for
    data: set[str] = set()
    session.on(
        "Network.requestWillBeSent",
        lambda event: data.add(event["requestId"]) if "/charts?" in event["request"]["url"] else None,
    )
    session.on(
        "Network.loadingFinished",
        lambda event: sizes.append(event["encodedDataLength"]) if event["requestId"] not in data else None,
    )
    page.goto(f"{base}/ns/default/{path}")
    page.wait_for_timeout(1500)
    first = sum(sizes)
    paints = []
    for _ in range(5):
        page.goto(f"{base}/ns/default/{path}")
        page.wait_for_timeout(400)
        paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    context.close()
    return first / 1000, statistics.median(paints)


def writing(log: Path, ended: threading.Event) -> None:
    with log.open("a") as file:
        began, count = time.time(), 0
        while not ended.wait(0.005):
            while count < (time.time() - began) * LINES_PER_SECOND:
                count += 1
                file.write(
                    f"{time.time() * 1000:.1f} step {count} loss 0.{count:06} and more of what is said\n"
                )
            file.flush()


async def changing(world: World, ended: threading.Event) -> None:
    """A training tells every second how far it is, as its controller writes it."""
    step = 0
    while not ended.is_set():
        step += 1
        progress = {"step": step, "steps": 100_000, "tokensPerSecond": 900.0}
        await world.say("Finetune", "big-000", phase="Running", progress=progress)
        await asyncio.sleep(1)


def live(
    browser: Browser, known: BrowserContext, base: str, home: Path, pages: int, seconds: float,
    server: psutil.Process,
) -> dict[str, float]:  # fmt: skip
    """p50, p95, lines, memory in MB and share of a core of the server."""
    windows = [browser.new_context(ignore_https_errors=True) for _ in range(pages)]
    for window in windows:
        window.add_cookies(known.cookies())
    opened = [window.new_page() for window in windows]
    for page in opened:
        page.goto(f"{base}/ns/default/jobs/big-000?tab=logs")
        until(page, "dtxLive.connected && Boolean(document.querySelector('dtx-log').stop)")
        page.evaluate(DRAWN)
    ended = threading.Event()
    log = home / "data/runs/eeeeeeee/worker.log"
    threads = [
        threading.Thread(target=writing, args=(log, ended)),
        threading.Thread(target=within, args=(home, lambda world: changing(world, ended))),
    ]
    for thread in threads:
        thread.start()
    spent, began = sum(server.cpu_times()[:2]), time.monotonic()
    opened[0].wait_for_timeout(seconds * 1000)
    cpu = (sum(server.cpu_times()[:2]) - spent) / (time.monotonic() - began)
    ended.set()
    for thread in threads:
        thread.join()
    opened[0].wait_for_timeout(1000)
    took = sorted(ms for page in opened for ms in page.evaluate("window.took")) or [float("nan")]
    memory = server.memory_info().rss / 1e6
    for window in windows:
        window.close()
    return {
        "p50": took[len(took) // 2], "p95": took[int(len(took) * 0.95)], "lines": len(took),
        "memory": memory, "cpu": cpu,
    }  # fmt: skip


def until(page: Page, expression: str) -> None:
    """Wait until it is true. Playwright's own way evaluates in the page, which its policy forbids."""
    end = time.monotonic() + 120
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(5)


def charted(context: BrowserContext, base: str) -> tuple[float, float]:
    """Its charts opened until they are drawn; and the median of loading and drawing them all once more."""
    page: Page = context.new_page()
    began = time.monotonic()
    page.goto(f"{base}/ns/default/experiments/big?tab=charts")
    until(page, "document.querySelector('dtx-charts')?.figures?.[0].plot?.width")
    opened = 1000 * (time.monotonic() - began)
    took = page.evaluate(DRAW)
    page.close()
    return opened, statistics.median(took)


def asked(context: BrowserContext, url: str, times: int) -> list[float]:
    """Milliseconds that a page takes, in order of length."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        answer = context.request.get(url)
        took.append(1000 * (time.perf_counter() - began))
        assert answer.ok, url
    return sorted(took)


def indexed(context: BrowserContext, base: str, folder: Path, runs: int) -> tuple[float, float, float]:
    """MB/s at which a history is read while its chart is asked for, p95 of another page meanwhile, and MB/s
    of the decoder alone."""
    events = folder / "events.jsonl"
    size = events.stat().st_size
    jobs = "&".join(f"job=old-{n:03}" for n in range(runs))
    began, waits = time.monotonic(), list[float]()
    while True:
        told = context.request.get(f"{base}/ns/default/charts?{jobs}&name=loss&bins=550").json()[0]
        if not told["behind"]:
            assert len(told["curves"]) == runs, "a history was read, and has no curve"
            break
        waits += asked(context, f"{base}/ns/default/experiments", 5)
    took = time.monotonic() - began
    sample = events.read_bytes()[: 20 << 20]
    began = time.process_time()
    measured(sample[: sample.rfind(b"\n") + 1])
    alone = len(sample) / 1e6 / (time.process_time() - began)
    waits.sort()
    return size * runs / 1e6 / took, waits[int(len(waits) * 0.95)] if waits else 0.0, alone


def row(what: str, found: float, goal: float | None = None, unit: str = "ms") -> None:
    """One line of the table: what, measured, goal, whether it is kept."""
    kept = "" if goal is None else "kept" if found <= goal else "MISSED"
    aim = "" if goal is None else f"{goal:,.0f} {unit}"
    print(f"{what:52} {f'{found:,.0f} {unit}':>12} {aim:>10}  {kept}", flush=True)


def table(
    browser: Browser, home: Path, link: str, server: psutil.Process, wanted: argparse.Namespace
) -> None:
    base = link.partition("/login")[0]
    context = browser.new_context(ignore_https_errors=True, viewport={"width": 1440, "height": 900})
    context.new_page().goto(link)
    print(f"{'':52} {'measured':>12} {'goal':>10}")
    for path in PATHS:
        size, paint = weighed(browser, context, base, path)
        row(f"first visit of {path}", size, 150, "kB")
        row("  first paint when warm", paint, 500)
    for pages in wanted.pages:
        found = live(browser, context, base, home, pages, wanted.seconds, server)
        row(f"log line to screen, {pages} windows, p50", found["p50"])
        row(f"  p95 of {found['lines']:,} lines", found["p95"], 250)
        row("  memory of the server", found["memory"], None, "MB")
        row("  processor of the server", 100 * found["cpu"], None, "%")
    opened, again = charted(context, base)
    row(f"{wanted.jobs} x {wanted.points:,} points: page opened to drawn", opened, 1000)
    row("  all its charts loaded and drawn once more", again, 1000)
    row("  memory of the server", server.memory_info().rss / 1e6, None, "MB")
    folder = within(home, lambda world: world.run("old", "d" * 8, ["old-000"]))
    unseen(folder, "old-000", wanted.history)
    within(home, lambda world: world.create("FinetuneJob", "old-000", {"finetune": TUNE, "scoring": SCORING}))
    speed, waited, alone = indexed(context, base, folder, 1)
    row(f"{wanted.history} MB of events nobody has looked at: read at", speed, None, "MB/s")
    row("  the decoder alone", alone, None, "MB/s")
    row("  another page meanwhile, p95", waited, 250)
    listed(context, base, home, wanted.runs)


def listed(context: BrowserContext, base: str, home: Path, runs: int) -> None:
    """R34: so many runs listed and compared."""

    async def fill(world: World) -> None:
        for start in range(0, runs, 50):
            names = range(start, min(start + 50, runs))
            await asyncio.gather(*(world.experiment(f"many-{n:04}", 0) for n in names))
        await world.experiment("wide", runs)

    within(home, fill)
    for what, path in (
        (f"{runs:,} experiments listed", "experiments?sort=-score"),
        (f"{runs:,} jobs listed", "jobs"),
        (f"an experiment of {runs:,} jobs", "experiments/wide"),
        ("  what differs between them", "experiments/wide?tab=differences"),
    ):
        took = asked(context, f"{base}/ns/default/{path}", 20)
        row(f"{what}, p95", took[18], 1000)
    size = len(context.request.get(f"{base}/ns/default/experiments/wide").body())
    row("  its page, not packed", size / 1000, 150, "kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--pages", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--history", type=int, default=400, help="MB of events")
    parser.add_argument("--runs", type=int, default=1000)
    wanted = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return print("skipped: chromium is not installed (apt-get install chromium)")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, served(Path(scratch) / "home") as (link, server):
        home = Path(scratch) / "home"
        names = [f"big-{n:03}" for n in range(wanted.jobs)]

        async def make(world: World) -> Path:
            await world.experiment("big", wanted.jobs)
            folder = await world.run("r", "e" * 8, names)
            await world.say("Finetune", "big-000", phase="Running", run="r")
            return folder

        history(within(home, make), wanted.jobs, wanted.points)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
            )
            table(browser, home, link, server, wanted)
            browser.close()
    print(f"in all {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
