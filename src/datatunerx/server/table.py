"""Tables: the rows and columns that `kubectl get` prints, rendered here, ages included."""

import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import orjson

from datatunerx.server.errors import Json
from datatunerx.server.kinds import Kind

_STEP = re.compile(
    r"\.(?P<name>[\w-]+)|\[(?P<index>-?\d+)\]|\['(?P<quoted>[^']*)'\]|\[\*\]"
    r"|\[\?\(@\.(?P<filter>[\w.-]+)\s*==\s*['\"](?P<equals>[^'\"]*)['\"]\)\]"
)

Find = Callable[[Any], list[Any]]


@lru_cache(maxsize=1024)
def jsonpath(path: str) -> Find:
    """A function from an object to the values at the path; ValueError beyond what printer columns need."""
    path = path if path.startswith((".", "[")) else f".{path}"
    steps: list[Find] = []
    place = 0
    while place < len(path):
        match = _STEP.match(path, place)
        if not match:
            raise ValueError(f"JSONPath {path!r}: {path[place:]!r} is not supported")
        steps.append(_step(match))
        place = match.end()

    def find(obj: Any) -> list[Any]:
        found = [obj]
        for step in steps:
            found = [value for one in found for value in step(one)]
        return found

    return find


def _step(match: re.Match[str]) -> Find:
    if match["index"] is not None:
        index = int(match["index"])
        return lambda one: one[index : index + 1 or None] if isinstance(one, list) else []
    if match["filter"] is not None:
        inner, wanted = jsonpath(f".{match['filter']}"), match["equals"]
        return lambda one: (
            [x for x in one if str(next(iter(inner(x)), "")) == wanted] if isinstance(one, list) else []
        )
    name = match["name"] if match["name"] is not None else match["quoted"]
    if name is None:
        return lambda one: (
            list(one) if isinstance(one, list) else list(one.values()) if isinstance(one, dict) else []
        )
    return lambda one: [one[name]] if isinstance(one, dict) and name in one else []


def age(stamp: str, now: float) -> str:
    """How long ago, as kubectl words it: 45s, 3m20s, 5h, 2d3h, 40d."""
    try:
        seconds = int(now - datetime.fromisoformat(stamp).timestamp())
    except ValueError:
        return "<invalid>"
    return duration(max(seconds, 0))


def duration(seconds: int) -> str:
    """Seconds in the short form of kubectl."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 730:
        return f"{days}d"
    return f"{days // 365}y{days % 365}d" if days % 365 else f"{days // 365}y"


def column_definitions(kind: Kind) -> list[Json]:
    """The heads of the columns."""
    name = {
        "name": "Name",
        "type": "string",
        "format": "name",
        "description": "Name must be unique within a namespace.",
        "priority": 0,
    }
    rest = [
        {
            "name": column.name,
            "type": "string" if kind.cells else column.type,
            "format": column.format,
            "description": column.description or column.name,
            "priority": column.priority,
        }
        for column in kind.columns
    ]
    return [name, *rest]


def cells(kind: Kind, obj: Json, now: float) -> list[object]:
    """One row."""
    if kind.cells:
        return [obj["metadata"]["name"], *kind.cells(obj)]
    row: list[object] = [obj["metadata"]["name"]]
    for column in kind.columns:
        found = [value for value in jsonpath(column.path)(obj) if value is not None]
        row.append(_cell(column.type, found, now))
    return row


def _cell(kind: str, found: Sequence[Any], now: float) -> object:
    if not found:
        return None
    value = found[0]
    if kind == "date":
        return age(str(value), now)
    if kind == "string":
        texts = [v if isinstance(v, str) else orjson.dumps(v).decode() for v in found]
        return ",".join(texts)
    return value


def table(kind: Kind, objects: Sequence[Json], include: str, metadata: Json, *, heads: bool = True) -> Json:
    """A Table of objects. `include` is None, Metadata or Object: what of each object comes along."""
    now = time.time()
    rows = []
    for obj in objects:
        row: Json = {"cells": cells(kind, obj, now)}
        if include == "Object":
            row["object"] = obj
        elif include != "None":
            row["object"] = partial(obj)
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": column_definitions(kind) if heads else [],
        "rows": rows,
    }


def partial(obj: Json) -> Json:
    """Only the metadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
