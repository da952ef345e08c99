"""What made the columns of a comparison and what came of it; of what made them only what differs. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from datatunerx.console import figures, kinds, parameters
from datatunerx.console.comparing.columns import TUNED, Column, World

Json = dict[str, Any]
DIGEST = 12
"""Letters of a digest that are shown."""


class Row(NamedTuple):
    """One setting or result, with a value per column in their order."""

    name: str
    values: list[str]


def differences(
    columns: Sequence[Column], world: World, tunes: Mapping[str, Json], groups: Mapping[str, Json]
) -> tuple[list[Row], list[Row], int]:
    """Settings that are not the same in all columns, results, and how many settings are the same.

    `tunes` are Finetunes by job. Base models have no settings and are left out by the caller.
    """
    made = [made_of(column, world, groups) for column in columns]
    names = list(dict.fromkeys(name for values in made for name in values))
    rows = [Row(name, [_shown(values.get(name)) for values in made]) for name in names]
    unlike = [row for row in rows if len(set(row.values)) > 1]
    came = [results(column, world, tunes.get(column.job)) for column in columns]
    titles = list(dict.fromkeys(name for values in came for name in values))
    found = [Row(name, [values.get(name, figures.MISSING) for values in came]) for name in titles]
    return unlike, found, len(rows) - len(unlike)


def made_of(column: Column, world: World, groups: Mapping[str, Json]) -> Json:
    """What made a column. A checkpoint's own record wins over what the objects say today."""
    spec = world.of(TUNED)[column.name]["spec"] if column.kind == TUNED else {}
    job = world.of(kinds.JOB).get(column.job) or {"spec": {"finetune": {}}}
    tune = job["spec"]["finetune"]
    found: Json = {
        "llm": spec.get("llm") or tune.get("llm"),
        "base digest": str(spec.get("baseDigest") or "").removeprefix("sha256:")[:DIGEST],
        "dataset": spec.get("dataset") or tune.get("dataset"),
        "data digest": str(spec.get("dataDigest") or "")[:DIGEST],
    }
    if record := spec.get("parametersJson"):
        return found | parameters.flat(json.loads(record))
    return found | {each.name: each.value for each in parameters.settings(tune, groups)}


def results(column: Column, world: World, tune: Json | None) -> dict[str, str]:
    """What came of it: score, losses, tokens, time, size."""
    found: dict[str, str] = {}
    checkpoint = world.of(TUNED).get(column.name) or {}
    status, seen = kinds.status_of(checkpoint), kinds.status_of(tune or {})
    if status.get("score") is not None:
        found[str(status.get("metric") or "score")] = figures.score(status["score"])
    for name, value in (seen.get("metrics") or {}).items():
        if name in ("loss", "evalLoss"):
            found[name] = figures.number(value)
    if tokens := (seen.get("progress") or {}).get("tokens"):
        found["tokens"] = figures.number(tokens)
    if seen.get("startedAt") and seen.get("finishedAt"):
        began, ended = figures.when(seen["startedAt"]), figures.when(seen["finishedAt"])
        if began and ended:
            found["time"] = figures.duration((ended - began).total_seconds())
    if size := (checkpoint.get("spec") or {}).get("bytes"):
        found["size"] = figures.size(size)
    return found


def _shown(value: Any) -> str:
    if value is None or value == "":
        return figures.MISSING
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return figures.number(value) if isinstance(value, float) else str(value)
