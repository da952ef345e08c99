"""What a line of events measured: the points of curves."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

OF_PROGRESS = ("tokens", "epoch", "tokensPerSecond")
CHECKPOINT = "checkpoint"
"""The series of checkpoints; its value is the eval loss there, or not a number."""
_JOB = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NAME = re.compile(r"[A-Za-z]\w{0,63}")


class Point(NamedTuple):
    """One measured value."""

    job: str
    name: str
    time: float
    step: int
    value: float


def points_of(line: bytes) -> Iterator[Point]:
    """What one line of events measured; nothing for other events, and for what is none."""
    if b'"metrics"' not in line and b'"progress"' not in line and b'"checkpoint"' not in line:
        return
    try:
        event = orjson.loads(line)
        job, kind, at = str(event["job"]), event["type"], float(event["time"])
        body: Mapping[str, Any] = event[{"metrics": "values"}.get(kind, kind)]
        step = int(event["step"] if kind == "metrics" else body["step"])
        if kind == "metrics":
            found = dict(body)
        elif kind == "progress":
            found = {name: body.get(name) for name in OF_PROGRESS}
        elif kind == CHECKPOINT:
            found = {CHECKPOINT: body.get("evalLoss", float("nan"))}
        else:
            return
        numbers = {name: float(value) for name, value in found.items() if value is not None}
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return
    if _JOB.fullmatch(job) and 0 <= step < 1 << 31:
        yield from (Point(job, name, at, step, value) for name, value in numbers.items() if _NAME.match(name))
