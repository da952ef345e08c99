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
from typing import NamedTuple

import httpx
import psutil
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
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM

    from datatunerx.modeling.base import load_base
    from datatunerx.resources.training import TrainingParameters
    from datatunerx.telemetry.events import EventWriter
    from datatunerx.training.lanes import Job
    from datatunerx.training.loop import train as run

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=128, intermediate_size=344, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model", safe_serialization=True)
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(folder / "model/tokenizer.json"))
    rows = np.random.default_rng(0).integers(3, 512, (64, 64), dtype=np.int32)
    parameters = TrainingParameters(batch_size=4, max_steps=10**6, save_every=10**6, lora={"rank": 8})
    writer, log = EventWriter(folder / "events.jsonl"), (folder / "worker.log").open("a")

    def tell(event) -> None:
        writer.write(event)
        print(f"{time.strftime('%H:%M:%S')} step {event.step} {event.values or ''}", file=log, flush=True)

    job = Job("one", parameters, [(row, row) for row in rows], folder / "out")
    run(load_base(folder / "model"), [job], on_event=tell)


class Turn(NamedTuple):
    """What was measured while some kind of visitors was there."""

    round: int
    kind: str
    speed: float
    """Steps a second."""
    cpu: float
    """Milliseconds of the processor that the trainer took for a step."""


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


def steps(events: Path, since: float, until: float) -> list[float]:
    """When steps ended between two times."""
    return [
        at
        for line in events.read_bytes().splitlines()
        if b'"progress"' in line and since <= (at := json.loads(line)["time"]) <= until
    ]


def turns(door: Door, events: Path, trainer: psutil.Process, asked: argparse.Namespace) -> list[Turn]:
    """Who comes first changes from round to round."""
    found = []
    for n in range(asked.rounds):
        for kind in KINDS[n % 3 :] + KINDS[: n % 3]:
            began, spent = time.time(), sum(trainer.cpu_times()[:2])
            asyncio.run(visit(door, kind, asked.seconds))
            ended, spent = time.time(), sum(trainer.cpu_times()[:2]) - spent
            whole, times = steps(events, began, ended), steps(events, began + SETTLE, ended)
            speed = (len(times) - 1) / (times[-1] - times[0])
            found.append(Turn(n, kind, speed, 1000 * spent / len(whole)))
            print(f"round {n + 1}: {kind:22} {speed:6.2f} steps/s", flush=True)
    return found


def table(found: list[Turn]) -> None:
    print(f"\n{'visitors':22} {'steps/s':>8} {'to nobody':>10} {'CPU ms a step':>14} {'to nobody':>10}")
    for kind in KINDS:
        mine = [turn for turn in found if turn.kind == kind]
        alone = [turn for turn in found if turn.kind == KINDS[0]]
        pairs = [(a, b) for a in mine for b in alone if a.round == b.round]
        ratio = statistics.median(a.speed / b.speed for a, b in pairs)
        cpu = statistics.median(a.cpu / b.cpu for a, b in pairs)
        speed, ms = (statistics.median(each) for each in zip(*((t.speed, t.cpu) for t in mine), strict=True))
        kept = "kept" if ratio >= 0.95 else "MISSED"
        print(f"{kind:22} {speed:8.2f} {ratio:10.3f} {ms:14.1f} {cpu:10.3f}   goal 0.95 of the speed: {kept}")


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
            process = psutil.Process(trainer.pid)
            found = turns(Door(link), folder / "events.jsonl", process, asked)
        finally:
            trainer.terminate()
            trainer.wait()
    table(found)


if __name__ == "__main__":
    main()
