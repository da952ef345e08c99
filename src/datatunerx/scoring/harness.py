"""lm-evaluation-harness as a scorer, `lm-eval`: its tasks are asked of the model itself, not of its answers.

The harness loads base and adapter a second time and fetches its tasks' data by itself, so it runs only for
a ScoringPlugin that somebody has written. It is an extra: pip install 'datatunerx[lm-eval]'.
"""

import math
from collections.abc import Mapping
from typing import Any

from datatunerx.plugins import ScoreCall, Scorer, hookimpl

Z = 1.96
"""Standard errors to each end of a 95 % interval."""

PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "required": ["tasks"],
    "properties": {
        "tasks": {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
        "numFewshot": {"type": "integer", "minimum": 0, "maximum": 100},
        "limit": {"type": "integer", "minimum": 1},
        "batchSize": {"type": "integer", "minimum": 1, "maximum": 1024},
        "chatTemplate": {"type": "boolean"},
        "includePath": {"type": "string", "minLength": 1},
        "device": {"type": "string", "minLength": 1},
    },
    "additionalProperties": False,
}  # fmt: skip


def run_harness(call: ScoreCall) -> dict[str, Any]:
    """One score per task and metric, `task.metric`, with the interval of the harness's own standard error."""
    if call.base is None:
        raise ValueError("lm-eval loads the model itself; a service, asked by its URL, has none to load")
    import lm_eval
    from lm_eval.tasks import TaskManager

    wanted = call.parameters
    model = {"pretrained": str(call.base)} | ({"peft": str(call.adapter)} if call.adapter else {})
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args=model,
        tasks=list(wanted["tasks"]),
        num_fewshot=wanted.get("numFewshot"),
        limit=wanted.get("limit"),
        batch_size=wanted.get("batchSize", 1),
        device=wanted.get("device"),
        apply_chat_template=wanted.get("chatTemplate", False),
        task_manager=TaskManager(include_path=wanted.get("includePath")),
        log_samples=False,
        bootstrap_iters=1000,
    )
    return {"scores": scores_of(found)}


def scores_of(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The harness's result as ours; what is no finite number is missing."""
    scores: dict[str, dict[str, Any]] = {}
    for task, values in found["results"].items():
        n = found.get("n-samples", {}).get(task, {}).get("effective", 0)
        better = found.get("higher_is_better", {}).get(task, {})
        for key, value in values.items():
            metric, comma, filter_ = key.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            name = f"{task}.{metric}" + ("" if filter_ == "none" else f".{filter_}")
            error = values.get(f"{metric}_stderr,{filter_}")
            scores[name] = _score(value, error, n, better.get(metric) is not False)
    return scores


def _score(value: Any, error: Any, n: int, higher_is_better: bool) -> dict[str, Any]:
    if not _is_number(value) or n < 1:
        return {"missing": f"lm-eval says {value!r} of {n} samples", "higherIsBetter": higher_is_better}
    score = {"value": float(value), "n": n, "higherIsBetter": higher_is_better}
    if not _is_number(error):
        return score
    return score | {"low": float(value - Z * error), "high": float(value + Z * error)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@hookimpl
def scorers() -> dict[str, Scorer]:
    extra = {"lm_eval": "datatunerx[lm-eval]"}
    return {"lm-eval": Scorer(run_harness, "Tasks of lm-evaluation-harness.", PARAMETERS, extra)}
