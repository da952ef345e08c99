"""Parameters of jobs, resolved and laid beside each other. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from datatunerx.console import kinds
from datatunerx.resources.training import merge, resolve_parameters

Json = dict[str, Any]
MAX_CHAIN = 16


class Setting(NamedTuple):
    name: str
    value: Any
    source: str
    """Who says so: a group, "job", or "default"."""


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested values by dotted name: lora.rank."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{name}.")
        else:
            found[before + name] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return found


def chain(ref: str, groups: Mapping[str, Json]) -> list[tuple[str, Json]]:
    """A group and those it extends, the most general first; a circle is cut."""
    found: list[tuple[str, Json]] = []
    while ref in groups and len(found) < MAX_CHAIN and ref not in [name for name, _ in found]:
        spec = groups[ref].get("spec") or {}
        found.append((ref, {key: value for key, value in spec.items() if key != "extends"}))
        ref = spec.get("extends", "")
    return found[::-1]


def settings(tune: Json, groups: Mapping[str, Json]) -> list[Setting]:
    """Every parameter of a training and who set it."""
    used = tune.get("hyperparameter") or {}
    layers = chain(used.get("ref", ""), groups)
    if overrides := used.get("overrides"):
        layers.append(("job", overrides))
    try:
        whole = flat(resolve_parameters(spec for _, spec in layers).dump())
    except ValidationError:  # it cannot be trained either; the page shows what was written
        whole = flat(merge(spec for _, spec in layers))
    sources = {name: title for title, spec in layers for name in flat(spec)}
    return [Setting(name, value, sources.get(name, "default")) for name, value in whole.items()]


def differences(jobs: Sequence[Json], groups: Mapping[str, Json]) -> tuple[list[str], list[tuple[str, Json]]]:
    """What differs between jobs and only that: the names of it, and each job's values."""
    rows: list[tuple[str, Json]] = []
    for job in jobs:
        tune = job["spec"]["finetune"]
        values = {"llm": tune["llm"], "dataset": tune["dataset"]}
        values |= {each.name: each.value for each in settings(tune, groups)}
        rows.append((kinds.name_of(job), values))
    names = dict.fromkeys(name for _, values in rows for name in values)
    unlike = [name for name in names if len({str(values.get(name)) for _, values in rows}) > 1]
    return unlike, rows
