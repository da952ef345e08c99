"""How live the console is: log line to screen, bytes, first paint, memory, big charts. Prints a table.

Run: python benchmarks/bench_console.py [--seconds 20] [--pages 1 5] [--jobs 100] [--points 100000]. A real
server process, a worker that appends 200 lines a second, Debian's chromium. A line carries the time at which
it was written; the page notes when it had been drawn, by the same machine's clock.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from datatunerx.client import Api, Plural
from datatunerx.client.https import Https
from datatunerx.client.kubeconfig import load
from datatunerx.telemetry.points import RECORD

LINES_PER_SECOND = 200
GROUP, VERSION = "datatunerx.io", "v1beta1"
GOALS = {"p95": "250 ms", "bytes": "150 kB", "paint": "500 ms", "chart": "1,000 ms"}
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
  const took = [], figure = document.querySelector("dtx-charts").figures[0];
  for (let n = 0; n < 5; n++) {
    const began = performance.now();
    await figure.load();
    figure.build();
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


async def make(home: Path, jobs: int) -> None:
    """An experiment of so many jobs, one run that carries them, and a log."""
    names = [f"big-{n:03}" for n in range(jobs)]
    tune = {"llm": "base", "dataset": "data", "hyperparameter": {"ref": "group"}}
    folder = home / "data/runs/eeeeeeee"
    folder.mkdir(parents=True)
    (folder / "worker.log").touch()
    async with Https(load(home / "kubeconfig")) as transport:
        api = Api(transport)

        async def create(
            kind: str, plural: str, name: str, spec: dict[str, Any], **more: Any
        ) -> dict[str, Any]:
            body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name, **more}}
            return await api.create_raw(Plural(GROUP, VERSION, plural), body | {"spec": spec})

        matrix = {"llms": ["base"], "datasets": ["data"], "hyperparameters": ["group"]}
        spec = {"matrix": matrix, "scoring": {"metrics": ["exact-match"]}}
        made = await create("FinetuneExperiment", "finetuneexperiments", "big", spec)
        owner = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "FinetuneExperiment", "controller": True}
        owner |= {"name": "big", "uid": made["metadata"]["uid"]}
        for name in names:
            await create(
                "FinetuneJob",
                "finetunejobs",
                name,
                {"finetune": tune, "scoring": spec["scoring"]},
                ownerReferences=[owner],
            )
        serves = [f"Finetune/{name}" for name in names]
        await create(
            "Run", "runs", "r", {"type": "tune", "planId": "e" * 8, "planUri": "file:///p", "serves": serves}
        )
        status = {"status": {"phase": "Running", "logUri": f"file://{folder}/worker.log"}}
        await api.patch_status(Plural(GROUP, VERSION, "runs"), "r", status)


def history(folder: Path, jobs: int, points: int) -> None:
    """What was measured, in the columns that a first look leaves; the events would be gigabytes."""
    columns = folder / "points"
    columns.mkdir()
    steps = np.arange(1, points + 1)
    noise = np.random.default_rng(7)
    series: dict[str, dict[str, tuple[int, int]]] = {}
    for n in range(jobs):
        rows = np.empty(points, RECORD)
        rows["time"], rows["step"] = 1.79e9 + steps, steps
        rows["value"] = 2 / (steps + 10 * n) ** 0.2 + noise.normal(0, 0.05, points)
        rows.tofile(columns / str(n))
        series[f"big-{n:03}"] = {"loss": (n, points)}
    size = 150 * jobs * points
    (columns / "state.json").write_text(json.dumps({"offset": size, "series": series, "began": dict.fromkeys(series, 1.79e9)}))
    with (folder / "events.jsonl").open("wb") as file:
        file.truncate(size)


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


def live(
    context: BrowserContext, base: str, log: Path, pages: int, seconds: float, server: psutil.Process
) -> list[str]:
    """p50, p95, lines, memory, processor time of the server."""
    opened = [context.new_page() for _ in range(pages)]
    for page in opened:
        page.goto(f"{base}/ns/default/devices/r")
        until(page, "dtxLive.connected")
        page.evaluate(DRAWN)
    ended = threading.Event()
    writer = threading.Thread(target=writing, args=(log, ended))
    writer.start()
    spent, began = sum(server.cpu_times()[:2]), time.monotonic()
    opened[0].wait_for_timeout(seconds * 1000)
    cpu = (sum(server.cpu_times()[:2]) - spent) / (time.monotonic() - began)
    ended.set()
    writer.join()
    opened[0].wait_for_timeout(1000)
    took = sorted(ms for page in opened for ms in page.evaluate("window.took"))
    for page in opened:
        page.close()
    if not took:
        return ["none", "none", "0", "", ""]
    tail = statistics.quantiles(took, n=20)[18]
    memory = server.memory_info().rss / 1e6
    return [
        f"{statistics.median(took):.0f} ms",
        f"{tail:.0f} ms",
        f"{len(took):,}",
        f"{memory:.0f} MB",
        f"{cpu:.0%}",
    ]


def until(page: Page, expression: str) -> None:
    """Wait until it is true. Playwright's own way evaluates in the page, which its policy forbids."""
    end = time.monotonic() + 120
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(5)


def weighed(browser: Browser, known: BrowserContext, base: str, path: str) -> list[str]:
    """Bytes of a first visit, with an empty cache, and first paint of the ones that follow."""
    context = browser.new_context(ignore_https_errors=True)
    context.add_cookies(known.cookies())
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    sizes: list[float] = []
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    page.goto(f"{base}/ns/default/{path}")
    page.wait_for_timeout(1500)
    first = sum(sizes)
    paints = []
    for _ in range(5):
        page.goto(f"{base}/ns/default/{path}")
        page.wait_for_timeout(400)
        paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    context.close()
    return [f"{first / 1000:.0f} kB", f"{statistics.median(paints):.0f} ms"]


def charted(context: BrowserContext, base: str) -> list[str]:
    """A page with four charts opened until the first is drawn; and the median of drawing one once more."""
    page: Page = context.new_page()
    began = time.monotonic()
    page.goto(f"{base}/ns/default/experiments/big?tab=charts")
    until(page, "document.querySelector('dtx-charts')?.figures?.[0].plot?.width")
    opened = 1000 * (time.monotonic() - began)
    took = page.evaluate(DRAW)
    page.close()
    return [f"{opened:.0f} ms", f"{statistics.median(took):.0f} ms"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--pages", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--points", type=int, default=100_000)
    asked = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("chromium is not installed: apt-get install chromium")
    with tempfile.TemporaryDirectory() as scratch, served(Path(scratch) / "home") as (link, server):
        home = Path(scratch) / "home"
        asyncio.run(make(home, asked.jobs))
        folder = home / "data/runs/eeeeeeee"
        history(folder, asked.jobs, asked.points)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
            )
            table(browser, home, link, server, asked)
            browser.close()


def table(browser: Browser, home: Path, link: str, server: psutil.Process, asked: argparse.Namespace) -> None:
    base = link.partition("/login")[0]
    context = browser.new_context(ignore_https_errors=True, viewport={"width": 1440, "height": 900})
    context.new_page().goto(link)
    print(f"{'page':26} {'first visit':>12} {'warm paint':>11}   goals {GOALS['bytes']}, {GOALS['paint']}")
    for path in ("experiments", "jobs/big-000", "jobs/big-000?tab=logs", "jobs/big-000?tab=charts"):
        size, paint = weighed(browser, context, base, path)
        print(f"{path:26} {size:>12} {paint:>11}", flush=True)
    heads = " ".join(f"{head:>8}" for head in ("p50", "p95", "lines", "memory", "CPU"))
    print(f"\nlog line to screen  {heads}   goal p95 {GOALS['p95']}")
    log = home / "data/runs/eeeeeeee/worker.log"
    for pages in asked.pages:
        cells = " ".join(f"{cell:>8}" for cell in live(context, base, log, pages, asked.seconds, server))
        print(f"{pages:>2} pages            {cells}", flush=True)
    opened, again = charted(context, base)
    print(f"\n{asked.jobs} jobs x {asked.points:,} points: page opened to drawn {opened}, one again {again}")
    print(f"  goal {GOALS['chart']}; memory of the server at the end {server.memory_info().rss / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
