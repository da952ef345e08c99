"""Whether training notices who looks (R14): steps/s with nobody, one who never reads, fifty who vanish.

Run: python benchmarks/bench_visitors.py [--rounds 6] [--seconds 10]. A small random Llama is trained by the
engine in a process of its own, which writes log and events as a worker does; a real server serves them. The
three kinds of visitors take turns, so that whatever else the machine does falls on all of them. The visitors
are on this machine too: what they cost is counted against us. About four minutes.
"""

import argparse
import asyncio
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from bench_console import served, within
from websockets.asyncio.client import ClientConnection, connect

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as every worker has it
KINDS = ("nobody", "one who never reads", "fifty who vanish")
SETTLE = 1.0
"""Seconds of a turn that do not count."""
FOLLOWED = {"follow": {"log:r": 0, "points:r": 0, "status:Finetune": 0}}


def train(folder: Path) -> None:
    """Train until somebody ends it."""
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from datatunerx.modeling.base import load_base
    from datatunerx.resources.training import TrainingParameters
    from datatunerx.telemetry.events import EventWriter
    from datatunerx.training.lanes import Job
    from datatunerx.training.loop import train as run

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=256,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model", safe_serialization=True)
    rows = np.random.default_rng(0).integers(3, 512, (64, 96), dtype=np.int32)
    parameters = TrainingParameters(batch_size=4, max_steps=10**6, save_every=10**6, lora={"rank": 8})
    writer, log = EventWriter(folder / "events.jsonl"), (folder / "worker.log").open("a")

    def tell(event) -> None:
        writer.write(event)
        print(f"{time.strftime('%H:%M:%S')} step {event.step} {event.values or ''}", file=log, flush=True)

    job = Job("one", parameters, [(row, row) for row in rows], folder / "out")
    run(load_base(folder / "model"), [job], on_event=tell)


class Door:
    """How a visitor gets in."""

    def __init__(self, link: str) -> None:
        self._base = link.partition("/login")[0]
        with httpx.Client(verify=False) as browser:
            browser.get(link)
            self._cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        self._tls = ssl.create_default_context()
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[ClientConnection]:
        origin = self._base.removesuffix("/console")
        headers = {"Cookie": self._cookie, "Origin": origin}
        where = f"{self._base.replace('https', 'wss')}/ns/default/live"
        async with connect(
            where, ssl=self._tls, additional_headers=headers, origin=None, proxy=None, max_queue=1,
            open_timeout=60, close_timeout=1, ping_interval=None,
        ) as socket:  # fmt: skip
            await socket.send(json.dumps(FOLLOWED))
            yield socket
            socket.transport.abort()


async def visit(door: Door, kind: str, seconds: float) -> None:
    """What the visitors of a kind do in their turn."""

    async def vanish(after: float) -> None:
        await asyncio.sleep(after)
        async with door.socket():
            pass

    if kind == "one who never reads":
        async with door.socket():
            await asyncio.sleep(seconds)
    elif kind == "fifty who vanish":
        await asyncio.gather(*(vanish(seconds * n / 50) for n in range(50)), asyncio.sleep(seconds))
    else:
        await asyncio.sleep(seconds)


def steps(events: Path, since: float, until: float) -> float:
    """Steps a second between two times, from first to last."""
    times = []
    for line in events.read_bytes().splitlines():
        if b'"progress"' in line and since <= (at := json.loads(line)["time"]) <= until:
            times.append(at)
    return (len(times) - 1) / (times[-1] - times[0])


def turns(door: Door, events: Path, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Steps a second of each turn of each kind; who comes first changes from round to round."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for n in range(rounds):
        for kind in KINDS[n % 3 :] + KINDS[: n % 3]:
            began = time.time()
            asyncio.run(visit(door, kind, seconds))
            found[kind].append(steps(events, began + SETTLE, time.time()))
            print(f"round {n + 1}: {kind:22} {found[kind][-1]:6.2f} steps/s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.train:
        return train(asked.train)
    with tempfile.TemporaryDirectory() as scratch, served(Path(scratch) / "home") as (link, _):
        folder = within(Path(scratch) / "home", lambda world: world.run("r", "e" * 8, ["one"]))
        trainer = subprocess.Popen([sys.executable, __file__, "--train", str(folder)])
        try:
            while not (folder / "worker.log").stat().st_size:
                assert trainer.poll() is None, "the training ended"
                time.sleep(0.2)
            time.sleep(3)
            found = turns(Door(link), folder / "events.jsonl", asked.rounds, asked.seconds)
        finally:
            trainer.terminate()
            trainer.wait()
    print(f"\n{'visitors':22} {'steps/s':>8} {'to nobody':>10}   goal: at least 0.95")
    for kind in KINDS:
        ratio = statistics.median(a / b for a, b in zip(found[kind], found["nobody"], strict=True))
        kept = "kept" if ratio >= 0.95 else "MISSED"
        print(f"{kind:22} {statistics.median(found[kind]):8.2f} {ratio:10.3f}   {kept}")


if __name__ == "__main__":
    main()
