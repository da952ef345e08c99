"""Settings, some with several values, as parameter groups: what all share, and one per combination. Pure."""

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from datatunerx.resources.wire import API_VERSION

Json = dict[str, Any]
MAX_COMBINATIONS = 64
SHORT_KEYS = {
    "lora.rank": "r", "lora.alpha": "a", "lora.dropout": "drop", "learningRate": "lr", "batchSize": "b",
    "epochs": "e", "maxSteps": "steps", "seed": "seed", "cutoffLength": "cut", "weightDecay": "wd",
    "warmupRatio": "warm", "gradientAccumulation": "acc", "scheduler": "", "optimizer": "", "precision": "",
}  # fmt: skip
"""How a setting shows in the name of a group."""


@dataclass(frozen=True)
class Setting:
    key: str
    values: tuple[Any, ...]
    texts: tuple[str, ...]
    """The values as typed: 2e-4 stays 2e-4 in a name."""


Group = tuple[str, Json]


def setting_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every key that --set takes, by wire name: learningRate, lora.rank, ..."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += setting_keys(field.annotation, f"{key}.")
        else:
            keys.append(key)
    return keys


def slug(text: str) -> str:
    """Lower case, letters, digits and dashes, at most 30: the readable part of a name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:30].strip("-") or "x"


def grid(settings: Sequence[Setting]) -> list[Group]:
    """The shared group first. Names hold a digest of what is shared: what differs is never one object."""
    base: Json = {}
    for setting in settings:
        if len(setting.values) == 1:
            put(base, setting.key, setting.values[0])
    varied = [setting for setting in settings if len(setting.values) > 1]
    shared = short_digest(base)
    found: list[Group] = [(f"base-{shared}", base)]
    choices = (range(len(setting.values)) for setting in varied)
    for combination in itertools.product(*choices):
        if not varied:
            break
        spec: Json = {"extends": f"base-{shared}"}
        parts: list[str] = []
        for setting, i in zip(varied, combination, strict=True):
            put(spec, setting.key, setting.values[i])
            label = SHORT_KEYS.get(setting.key, f"{slug(setting.key)}-")
            parts.append(f"{label}{slug(setting.texts[i].replace('.', 'p'))}")
        found.append((f"{'-'.join(parts)}-{shared}", spec))
    return found


def new_object(kind: str, name: str, spec: Json) -> Json:
    """As it is sent to the API."""
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def put(spec: Json, key: str, value: Any) -> None:
    """Set the value at a dotted key, making what lies on the way."""
    *parents, last = key.split(".")
    for parent in parents:
        spec = spec.setdefault(parent, {})
    spec[last] = value


def short_digest(value: Any) -> str:
    """Six digits that tell what is not alike apart, in a name."""
    text = json.dumps(value, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:6]
