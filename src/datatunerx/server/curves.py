"""Curves of a run's jobs, cut to the width of a picture, from the columns beside its events."""

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from datatunerx.server.errors import Json, bad_request
from datatunerx.server.http import Request
from datatunerx.telemetry import points
from datatunerx.telemetry.measured import CHECKPOINT
from datatunerx.telemetry.points import Curve, Points

BUILD_SECONDS = 0.4
MAX_BINS = 4000
MAX_RUNS = 256
AXES = ("step", "epoch", "tokens", "time")
PERPLEXITY = "perplexity"

_known: OrderedDict[Path, Points] = OrderedDict()


def answer(events: Path, request: Request) -> bytes:
    """JSON of what was asked; `behind` are bytes of events that were not read yet: ask again."""
    known = _known.pop(events, None)
    if known is None or not events.exists():  # a folder that was deleted took its columns along
        known = Points(events)
    _known[events] = known
    while len(_known) > MAX_RUNS:
        _known.popitem(last=False)
    behind = known.advance(BUILD_SECONDS)
    found = {"offset": known.offset, "behind": behind, **curves(known, request)}
    return orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)


def curves(known: Points, request: Request) -> dict[str, Any]:
    """What was asked of some jobs: which series they have and, with `bins`, the curves of one of them.

    Raises ApiError for what cannot be read.
    """
    query = request.query
    jobs = _jobs(query.get("jobs", "{}"), known)
    x, y, bins = query.get("x", "step"), query.get("y", ""), min(request.number("bins") or 0, MAX_BINS)
    if x not in AXES:
        raise bad_request(f"x: {x!r} is not one of {', '.join(AXES)}")
    weight = min(_number(query, "smooth", 0.0), 0.999)
    found = {job: _curve(known, job, x, y, weight, how) for job, how in jobs.items()} if y else {}
    found = {job: curve for job, curve in found.items() if len(curve.x)}
    ends = {job: [float(curve.x[0]), float(curve.x[-1])] for job, curve in found.items()}
    told: dict[str, Any] = {
        "series": {job: known.names(job) for job in jobs},
        "ends": ends,
        "counts": {job: len(curve.x) for job, curve in found.items()},
        "lowest": {job: _lowest(curve) for job, curve in found.items()},
        "checkpoints": {job: _checkpoints(known, job, x, how) for job, how in jobs.items()},
    }
    if not bins or not found:
        return told
    low = _number(query, "from", min(end[0] for end in ends.values()))
    high = _number(query, "to", max(end[1] for end in ends.values()))
    cut = {job: _within(curve, low, high) for job, curve in found.items()}
    if high > low and any(len(curve.x) > 2 * bins for curve in cut.values()):
        edges = np.linspace(low, high, bins + 1)
        cut = {job: points.reduced(curve, edges) for job, curve in cut.items()}
        told["grid"] = next(iter(cut.values())).x
        cut = {job: curve._replace(x=curve.x[:0]) for job, curve in cut.items()}
    told["curves"] = {job: curve._asdict() for job, curve in cut.items()}
    return told


def _curve(known: Points, job: str, x: str, y: str, weight: float, how: Json) -> Curve:
    """A whole curve. `how` may say `until`, a step that another run did again, and `zero`, when it began."""
    records = known.read(job, "evalLoss" if y == PERPLEXITY else y)
    if until := how.get("until"):
        records = records[records["step"] < until]
    values = records["value"]
    if y == PERPLEXITY:
        values = np.exp(np.minimum(values, 80)).astype(np.float32)
    places = _along(known, job, x, records, how)
    smooth = points.smoothed(values.astype(np.float64), weight).astype(np.float32) if weight else values[:0]
    return Curve(places, np.ascontiguousarray(values), smooth)


def _along(known: Points, job: str, x: str, records: points.Records, how: Json) -> points.Floats:
    """Where records are on the x axis."""
    if x == "step":
        return np.asarray(records["step"], np.float64)
    if x == "time":
        return np.maximum.accumulate(records["time"]) - float(how.get("zero") or 0)
    course = known.read(job, x)
    if not len(course):
        return np.asarray(records["step"], np.float64) * math.nan
    return np.maximum.accumulate(np.interp(records["step"], course["step"], course["value"]))


def _within(curve: Curve, low: float, high: float) -> Curve:
    first, last = np.searchsorted(curve.x, [low, high], "left")
    # one point more on both sides, so that a line leaves the picture where it should
    kept = slice(max(0, int(first) - 1), min(len(curve.x), int(last) + 2))
    return Curve(curve.x[kept], curve.y[kept], curve.smooth[kept])


def _lowest(curve: Curve) -> list[float]:
    place = int(np.argmin(curve.y))
    return [float(curve.x[place]), float(curve.y[place])]


def _checkpoints(known: Points, job: str, x: str, how: Json) -> list[list[float | None]]:
    """[step, x] of each."""
    records = known.read(job, CHECKPOINT)
    if until := how.get("until"):
        records = records[records["step"] < until]
    places = _along(known, job, x, records, how)
    return [[int(step), float(at)] for step, at in zip(records["step"], places, strict=True) if at == at]


def _jobs(text: str, known: Points) -> dict[str, Json]:
    try:
        asked = orjson.loads(text)
        return {str(job): dict(how) for job, how in asked.items() if job in known.jobs()}
    except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
        raise bad_request('jobs: must be JSON such as {"job-a": {"until": 400, "zero": 1.5}}') from None


def _number(query: dict[str, str], name: str, default: float) -> float:
    try:
        found = float(query.get(name) or default)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise bad_request(f"{name}: {query.get(name)!r} is not a number")
    return found
