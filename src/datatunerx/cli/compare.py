"""What differs between jobs, and nothing else: settings, data, model, scores."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from datatunerx.cli.documents import Json
from datatunerx.cli.text import MISSING, number
from datatunerx.resources.outcome import LLMCheckpoint, Scoring


@dataclass(frozen=True)
class Compared:
    """One column: a job, what made it, what came of it."""

    name: str
    settings: Json
    """Flat: dotted field -> value."""
    results: dict[str, str] = field(default_factory=dict)


def flat(document: Json, prefix: str = "") -> Json:
    """{lora: {rank: 8}} -> {lora.rank: 8}; lists stay whole."""
    pairs: Json = {}
    for key, value in document.items():
        if isinstance(value, dict):
            pairs |= flat(value, f"{prefix}{key}.")
        else:
            pairs[f"{prefix}{key}"] = value
    return pairs


def settings_of(job: Json, checkpoint: LLMCheckpoint | None, parameters: Json, data_digest: str) -> Json:
    """What made a job. A checkpoint's own record wins over what the objects say today."""
    spec = job["spec"]["finetune"]
    if checkpoint is not None and checkpoint.spec.parameters_json:
        parameters = json.loads(checkpoint.spec.parameters_json)
        data_digest = checkpoint.spec.data_digest or data_digest
    return {
        "llm": spec["llm"],
        "dataset": spec["dataset"],
        "data digest": data_digest[:12],
        **flat(parameters),
    }


def results_of(job: Json, scoring: Scoring | None) -> dict[str, str]:
    """Phase and scores; a missing one is a dash."""
    status = job.get("status") or {}
    results = {"phase": status.get("phase", "Pending")}
    for name, metric in (scoring.status.metrics if scoring else {}).items():
        if metric.value is None:
            results[name] = f"{MISSING} ({metric.why_missing})" if metric.why_missing else MISSING
        elif metric.low is None or metric.high is None:
            results[name] = number(metric.value)
        else:
            results[name] = f"{number(metric.value)} [{number(metric.low)}, {number(metric.high)}]"
    return results


def comparison(columns: Sequence[Compared]) -> list[list[str]]:
    """Head and rows: settings that are not the same everywhere, then every result."""
    rows = [["", *(column.name for column in columns)]]
    keys = dict.fromkeys(key for column in columns for key in column.settings)
    for key in keys:
        values = [column.settings.get(key) for column in columns]
        if any(value != values[0] for value in values):
            rows.append([key, *map(_shown, values)])
    for key in dict.fromkeys(key for column in columns for key in column.results):
        rows.append([key, *(column.results.get(key, MISSING) for column in columns)])
    return rows


def _shown(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, list):
        return ",".join(map(str, value))
    return number(value) if isinstance(value, float) else str(value)
