"""Curves of a run's jobs, cut to the width of a picture, from the columns beside its events."""

import logging
import math
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from datatunerx.server.errors import Json, bad_request
from datatunerx.server.http import Request
from datatunerx.telemetry import points
from datatunerx.telemetry.measured import CHECKPOINT
from datatunerx.telemetry.points import Curve, Points, Seen

log = logging.getLogger(__name__)

AT_ONCE = 1 << 20
"""Bytes of events that are read before answering; more are read meanwhile, and the answer says how many."""
SLICE_SECONDS = 0.1
MAX_BINS = 4000
MAX_RUNS = 512
AXES = ("step", "epoch", "tokens", "time")
PERPLEXITY = "perplexity"
TOLD_WITH = {"loss": "learningRate", "gradNorm": "learningRate"}
"""What is told at every report that has the value, too, and also where the value was no number."""


class _Known:
    """The columns of the runs that somebody looked at, and one thread that reads long histories for them."""

    def __init__(self) -> None:
        self._runs: OrderedDict[Path, Points] = OrderedDict()
        self._waiting: dict[Points, None] = {}
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None

    def look(self, events: Path) -> tuple[Seen, int]:
        """What there is now, and the bytes that are still read."""
        with self._lock:
            points = self._runs.pop(events, None)
            if points is None or not events.exists():  # a folder that was deleted took its columns along
                points = Points(events)
            self._runs[events] = points
            while len(self._runs) > MAX_RUNS:
                self._runs.popitem(last=False)
        behind = points.behind()
        if behind > AT_ONCE:
            self._read_meanwhile(points)
        elif behind:
            behind = points.advance(SLICE_SECONDS)
        return points.seen, behind

    def forget(self) -> None:
        with self._lock:
            self._runs.clear()

    def _read_meanwhile(self, points: Points) -> None:
        with self._lock:
            self._waiting[points] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="columns", daemon=True)
                self._thread.start()
        self._wanted.set()

    def _work(self) -> None:
        """One run after the other, so that what is drawn first is whole."""
        while True:
            self._wanted.wait()
            with self._lock:
                points = next(iter(self._waiting), None)
                if points is None:
                    self._wanted.clear()
                    continue
            try:
                done = points.advance(SLICE_SECONDS) <= AT_ONCE
            except OSError as error:  # a full disk, a folder that is gone: who looks again asks again
                log.warning("the history of a run is not read", extra={"error": str(error)})
                done = True
            if done:
                with self._lock:
                    del self._waiting[points]


known = _Known()


def answer(events: Path, request: Request) -> bytes:
    """JSON of what was asked; `behind` are bytes of events that were not read yet: ask again."""
    seen, behind = known.look(events)
    found = {"offset": seen.offset, "behind": behind, **curves(seen, request)}
    return orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)


def curves(known: Seen, request: Request) -> dict[str, Any]:
    """What was asked of some jobs: which series they have, and of one of them where it begins and ends.

    With `bins` the curves themselves, cut to so many parts between `from` and `to`, and where they are
    broken; with `raw` whole.
    Raises ApiError for what cannot be read.
    """
    query = request.query
    jobs = {job: {"zero": known.began[job]} | how for job, how in _jobs(query, known).items()}
    x, y, bins = query.get("x", "step"), query.get("y", ""), min(request.number("bins") or 0, MAX_BINS)
    if x not in AXES:
        raise bad_request(f"x: {x!r} is not one of {', '.join(AXES)}")
    told: dict[str, Any] = {
        "series": {job: known.names(job) for job in jobs},
        "began": {job: known.began[job] for job in jobs},
    }
    if not y:
        return told
    told["ends"] = ends = _ends(known, x, y, jobs)
    if not (bins or request.flag("raw")) or not ends:
        return told
    low = _number(query, "from", min(end["x"][0] for end in ends.values()))
    high = _number(query, "to", max(end["x"][1] for end in ends.values()))
    edges = np.linspace(low, high, bins + 1) if bins and high > low else None
    weight = min(_number(query, "smooth", 0.0), 0.999)
    found: dict[str, Curve] = {}
    told["facts"] = facts = dict[str, Json]()
    told["gaps"], told["reach"] = gaps, reach = dict[str, list[list[float]]](), dict[str, float]()
    for job in ends:  # one after the other: all of them whole would be hundreds of megabytes
        records = _until(known.read(job, _source(y)), jobs[job])
        curve = _curve(known, records, job, x, y, weight, jobs[job])
        facts[job] = _facts(records, curve)
        if bins:
            steps = np.ascontiguousarray(records["step"])  # strided, it takes fifty times as long
            reach[job] = points.reach(steps)
            gaps[job] = _gaps(steps, _beside(known, job, y, jobs[job]), curve, (low, high, bins))
            curve = _within(curve, low, high)
        if edges is not None and len(curve.x) > 2 * bins:
            curve, told["grid"] = points.reduced(curve, edges), points.grid(edges)
        found[job] = curve
    if edges is not None and "grid" in told:  # all along the same places, short ones too
        found = {
            job: curve if len(curve.y) == 2 * bins and not len(curve.x) else points.reduced(curve, edges)
            for job, curve in found.items()
        }
    told["checkpoints"] = {job: _checkpoints(known, job, x, how) for job, how in jobs.items()}
    told["curves"] = {job: curve._asdict() for job, curve in found.items()}
    return told


def _source(y: str) -> str:
    """The series that a chart is made of."""
    return "evalLoss" if y == PERPLEXITY else y


def _ends(known: Seen, x: str, y: str, jobs: dict[str, Json]) -> dict[str, Json]:
    """By job the first and last step, time and x of a series, where it has one."""
    found = {}
    for job, how in jobs.items():
        records = _until(known.edges(job, _source(y)), how)
        if len(records):
            pairs = {name: [records[name][0].item(), records[name][-1].item()] for name in ("step", "time")}
            places = _along(known.edges(job, x) if x in points.COURSE else records, x, records, how)
            found[job] = pairs | {"x": [float(places[0]), float(places[-1])]}
    return found


def _curve(known: Seen, records: points.Records, job: str, x: str, y: str, weight: float, how: Json) -> Curve:
    """A whole curve. `how` may say `until`, a step that another run did again, and `zero`, when it began."""
    values = _values(records, y)
    places = _along(known.read(job, x) if x in points.COURSE else records, x, records, how)
    smooth = points.smoothed(values.astype(np.float64), weight).astype(np.float32) if weight else values[:0]
    return Curve(places, values, smooth)


def _values(records: points.Records, y: str) -> npt.NDArray[np.float32]:
    if y == PERPLEXITY:
        return np.asarray(np.exp(np.minimum(records["value"], 80)), np.float32)
    return np.ascontiguousarray(records["value"], np.float32)


def _until(records: points.Records, how: Json) -> points.Records:
    return records[records["step"] < how["until"]] if how.get("until") else records


def _along(course: points.Records, x: str, records: points.Records, how: Json) -> points.Floats:
    """Where records are on the x axis; tokens and epochs by what was told of the course."""
    if x == "step" or not len(records):
        return np.asarray(records["step"], np.float64)
    if x == "time":
        return np.maximum.accumulate(records["time"]) - float(how.get("zero") or 0.0)
    if not len(course):
        return np.zeros(len(records))
    return np.maximum.accumulate(np.interp(records["step"], course["step"], course["value"]))


def _beside(known: Seen, job: str, y: str, how: Json) -> points.Records:
    """What was told at every report of a value, where there are more reports than values."""
    name = TOLD_WITH.get(y, y)
    return _until(known.read(job, name if known.count(job, name) > known.count(job, y) else ""), how)


def _gaps(
    steps: points.Steps, beside: points.Records, curve: Curve, seen: tuple[float, float, int]
) -> list[list[float]]:
    """[x, x] between which the line is broken, those wider than a part; `seen` is from, to, parts of it."""
    low, high, bins = seen
    after = points.broken(steps, beside["step"])
    pairs = np.stack([curve.x[after], curve.x[after + 1]], 1)
    kept = (pairs[:, 1] - pairs[:, 0] > (high - low) / bins) & (pairs[:, 1] > low) & (pairs[:, 0] < high)
    found: list[list[float]] = pairs[kept].tolist()
    return found


def _within(curve: Curve, low: float, high: float) -> Curve:
    first, last = np.searchsorted(curve.x, [low, high], "left")
    # one point more on both sides, so that a line leaves the picture where it should
    kept = slice(max(0, int(first) - 1), min(len(curve.x), int(last) + 2))
    return Curve(curve.x[kept], curve.y[kept], curve.smooth[kept])


def _facts(records: points.Records, curve: Curve) -> Json:
    """[step, x, value] of its first, last, lowest and highest point, and the mean at its end."""
    places = {"first": 0, "last": -1, "lowest": int(curve.y.argmin()), "highest": int(curve.y.argmax())}
    facts = {
        name: [int(records["step"][at]), float(curve.x[at]), float(curve.y[at])]
        for name, at in places.items()
    }
    last = min(50, max(1, len(curve.y) // 10))
    return facts | {"level": float(curve.y[-last:].mean())}


def _checkpoints(known: Seen, job: str, x: str, how: Json) -> list[list[float | None]]:
    """[step, x, eval loss] of each."""
    records = _until(known.read(job, CHECKPOINT), how)
    places = _along(known.read(job, x) if x in points.COURSE else records, x, records, how)
    values = [float(value) if value == value else None for value in records["value"]]
    return [
        [int(step), float(at), value] for step, at, value in zip(records["step"], places, values, strict=True)
    ]


def _jobs(query: dict[str, str], known: Seen) -> dict[str, Json]:
    try:
        asked = orjson.loads(query.get("jobs", "{}"))
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
