"""What workers have told: curves and logs of the two experiments that trained, a report, scored answers."""

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datatunerx.client import Api, Plural
from datatunerx.console.kinds import PLURALS
from datatunerx.resources import GROUP
from datatunerx.resources.wire import VERSION

from .world import DONE, END, EVIL, GROUPS, PROMPTS, START, TRAINS, answers_of, make

GIVEN = "<|im_start|>user\nMy printer is on fire.<|im_end|>\n<|im_start|>assistant\n"
LEARNED = "category: hardware\nurgency: high<|im_end|>"


async def inspected(api: Api, data: Path) -> None:
    """The report's file of the dataset, with rows as their tokens say them, and a plugin's schema."""
    fix = "add the answer to learn as an assistant turn"
    problem = {"reason": "no assistant turn", "field": "messages", "found": f"user {EVIL}", "fix": fix}
    told = {"text": f"{GIVEN}{LEARNED}\n", "trained": [[len(GIVEN), len(GIVEN + LEARNED)]]}
    plain = [{"role": "user", "content": EVIL}, {"role": "assistant", "content": "No."}]
    facts = {
        "problems": [problem | {"file": "train.jsonl", "line": line} for line in (17, 80, 81, 144)],
        "preview": [{"row": "train.jsonl:1"} | told, {"row": "train.jsonl:2", "messages": plain}],
    }
    folder = data / "runs" / "inspection"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(facts))
    status = {"status": {"reportUri": f"file://{folder}/report.json"}}
    await api.patch_status(PLURALS["Dataset"], "support-tickets", status)
    schema = {
        "required": ["language"],
        "properties": {
            "language": {"enum": ["en", "zh"], "description": "Of the tickets that are taken."},
            "since": {"type": "string", "description": "The first day, as 2026-01-31."},
            "limit": {"type": "integer", "default": 1000},
        },
    }
    await api.patch_status(PLURALS["DataPlugin"], "from-tickets", {"status": {"parameterSchema": schema}})


async def tell(api: Api, data: Path) -> None:
    """Write events and logs below the folder of data, and name them in the objects, as controllers do."""
    done = [f"{DONE}-{group}" for group in GROUPS]
    spec = {
        "type": "tune",
        "planId": "d" * 8,
        "planUri": "file:///plan.json",
        "serves": [f"Finetune/{name}" for name in done],
    }
    await make(api, "runs", "run-a", spec, {"phase": "Succeeded", "startedAt": START, "finishedAt": END})
    for run, plan, jobs, step in (
        ("run-a", "d" * 8, done, 48),
        ("run-b", "0" * 8, [f"{TRAINS}-b"], 31),
    ):
        folder = data / "runs" / plan
        folder.mkdir(parents=True)
        with (folder / "events.jsonl").open("w") as file:
            file.writelines(json.dumps(event) + "\n" for event in events_of(jobs, step))
        lines = [f"08:0{n // 60}:{n % 60:02} step {n} of 48" for n in range(1, step + 1)]
        lines[9:9] = ["08:00:09 warning: 3 rows are longer than cutoffLength and were cut", EVIL]
        (folder / "worker.log").write_text("\n".join(["08:00:00 loading the base model", *lines]) + "\n")
        uri = f"file://{folder}/worker.log"
        await api.patch_status(Plural(GROUP, VERSION, "runs"), run, {"status": {"logUri": uri}})
        for job in jobs:
            await api.patch_status(Plural(GROUP, VERSION, "finetunes"), job, {"status": {"run": run}})


async def score(api: Api, data: Path) -> None:
    """What the best job was measured to be, and its answers."""
    best = f"{DONE}-r8-lr2e-3"
    folder = data / "runs" / ("e" * 8) / "predictions"
    folder.mkdir(parents=True)
    right = answers_of(DONE, 48)[0]
    rows = [
        {
            "row": n,
            "question": prompt,
            "reference": right,
            "answer": right if n % 3 else answers_of(DONE, 0)[n % 2],
        }
        for n, prompt in enumerate(PROMPTS * 41)
    ]
    (folder / f"{best}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = {
        "field-accuracy": {"value": 0.854, "low": 0.794, "high": 0.909, "n": 82},
        "exact-match": {"value": 0.671, "low": 0.57, "high": 0.77, "n": 82},
        "perplexity": {"value": 1.31, "low": 1.22, "high": 1.42, "n": 82, "higherIsBetter": False},
    }
    uri = f"file://{folder}/{best}.jsonl"
    status = {"phase": "Succeeded", "metric": "field-accuracy", "metrics": metrics, "predictionsUri": uri}
    await make(api, "scorings", best, {"model": {"name": best}, "dataset": "support-tickets"}, status)
    await api.patch_status(PLURALS["FinetuneJob"], best, {"status": {"scoring": best}})


def events_of(jobs: list[str], last: int, first: int = 1) -> Iterator[dict[str, Any]]:
    """Training to a step: a loss that falls, with noise; an eval loss that in every other job rises again."""
    noise = random.Random(7)
    for step in range(first, last + 1):
        for n, job in enumerate(jobs):
            head = {"time": 1795334400.0 + 12 * step + n / 10, "job": job, "step": step}
            rate = 0.001 * (n + 1) * min(1.0, step / 5) * (1 - step / 50)
            loss = 0.2 + 0.03 * n + 2.4 * math.exp(-step / (9 + 2 * n)) + noise.uniform(-0.08, 0.08)
            values = {"learningRate": rate, "loss": loss, "gradNorm": 0.4 + 2 * math.exp(-step / 12)}
            yield head | {"type": "metrics", "values": values}
            told = {"step": step, "steps": 48, "epoch": step / 60, "tokens": step * 431}
            yield head | {"type": "progress", "progress": told | {"tokensPerSecond": 912.4}}
            if step % 6 == 0:
                rise = 0.012 * max(0, step - 30) if n % 2 else 0.0
                yield head | {
                    "type": "metrics",
                    "values": {"evalLoss": 0.32 + 0.02 * n + 2 * math.exp(-step / 10) + rise},
                }
            if step % 24 == 0:
                ref = {"step": step, "uri": f"file:///artifacts/{job}/step-{step:08}", "digest": "c3" * 32}
                yield head | {"type": "checkpoint", "checkpoint": ref}
