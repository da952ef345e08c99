"""The loss of a job as a line of a few points, for a row of a table; drawn again when it has gone on.

What takes longer than a page may wait for is drawn meanwhile, and shown when the page looks again.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from datatunerx.client import Api, ApiError
from datatunerx.console import charts, kinds, states
from datatunerx.console.charts import Line
from datatunerx.console.visit import Visit

Json = dict[str, Any]
ASKED = charts.Asked("loss", smooth=0.7, bins=20)
WIDTH, HEIGHT, MARGIN = 80, 20, 2
WAIT_SECONDS = 0.15
MAX_KNOWN = 5000


class Spark(NamedTuple):
    """A small curve. `points` are those of a polyline in WIDTH x HEIGHT; `hue` and `dash` are the job's."""

    points: str
    hue: int
    dash: int
    first: float
    last: float


NONE: tuple[object, Spark | None] = ("", None)
_known: OrderedDict[str, tuple[object, Spark | None]] = OrderedDict()
"""By the Finetune's uid: how far it was, and what was drawn then."""
_drawing: dict[str, asyncio.Task[None]] = {}


async def of(visit: Visit, tunes: Mapping[str, Json], jobs: Sequence[Json]) -> dict[str, Spark | None]:
    """By job; None where there is nothing to draw, and no entry for what is still being drawn.

    `tunes` are the Finetunes of some jobs by the job's name, `jobs` all jobs of the namespace.
    """
    if not visit.may("get", "runs/points"):
        return {}
    behind = {name: tune for name, tune in tunes.items() if _known.get(_uid(tune), NONE)[0] != _mark(tune)}
    fresh = [name for name, tune in behind.items() if _uid(tune) not in _drawing]
    if fresh:
        runs = await kinds.some(visit.api, "Run", visit.namespace)
        for line in charts.lines(fresh, jobs, runs):
            tune = tunes[line.job]
            _drawing[_uid(tune)] = asyncio.create_task(_draw(visit.api, visit.namespace, line, tune))
    if tasks := [_drawing[_uid(tune)] for tune in behind.values() if _uid(tune) in _drawing]:
        await asyncio.wait(tasks, timeout=WAIT_SECONDS)
    drawn = {name: _known[_uid(tune)][1] for name, tune in tunes.items() if _uid(tune) in _known}
    visit.soon |= len(drawn) < len(tunes)
    return drawn


def _uid(tune: Json) -> str:
    return str(tune["metadata"]["uid"])


def _mark(tune: Json) -> object:
    """Differs when there is more to draw."""
    status = kinds.status_of(tune)
    return status.get("attempt"), (status.get("progress") or {}).get("step"), states.phase(tune)


async def _draw(api: Api, namespace: str, line: Line, tune: Json) -> None:
    try:
        told = await charts.chart(api, namespace, [line], ASKED)
    except ApiError:
        return  # a page is whole without
    finally:
        _drawing.pop(_uid(tune), None)
    _known[_uid(tune)] = ("" if told["behind"] else _mark(tune), spark(told, line))
    while len(_known) > MAX_KNOWN:
        _known.popitem(last=False)


def spark(told: Json, line: Line) -> Spark | None:
    """What is drawn of the one job of a chart; None for less than two points."""
    places: list[tuple[float, float]] = []
    for curve in told["curves"]:
        x = curve["x"] or told["grid"] or ()
        y = curve["smooth"] or curve["y"]
        places += [(a, b) for a, b in zip(x, y, strict=False) if b is not None and b == b]
    if len(places) > 2 * ASKED.bins:  # of each part of a cut curve one point is enough
        places = [*places[:-1:2], places[-1]]
    if len(places) < 2:
        return None
    (left, right), values = (places[0][0], places[-1][0]), [value for _, value in places]
    low, high = min(values), max(values)
    across = (WIDTH - 2 * MARGIN) / ((right - left) or 1)
    up = (HEIGHT - 2 * MARGIN) / ((high - low) or 1)
    points = " ".join(
        f"{MARGIN + (x - left) * across:.0f},{HEIGHT - MARGIN - (y - low) * up:.1f}" for x, y in places
    )
    return Spark(points, line.hue, line.dash, values[0], values[-1])
