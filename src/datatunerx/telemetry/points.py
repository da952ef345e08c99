"""What the events of a run measured, in columns beside them: a long history is read once, then drawn at once.

Each measured value of each job is a file of fixed records in the folder `points/`; `state.json` says how far
the events are read and how many records count. What a crash left behind is written over by the next look.
"""

import json
import os
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from datatunerx.telemetry.measured import CHECKPOINT, HEAD, NAME, measured

FOLDER, STATE = "points", "state.json"
RECORD = np.dtype([("time", "<f8"), ("step", "<i4"), ("value", "<f4")])
"""Seconds since 1970, optimizer step, what was measured."""
COURSE = ("tokens", "epoch")
"""Series that say how far a job was at a step."""
CHUNK = 2 << 20
MAX_SERIES = 20_000

Floats = npt.NDArray[np.float64]
Records = npt.NDArray[np.void]
Steps = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Seen:
    """What is in the columns. It stays as it is while more of the events is read."""

    folder: Path
    offset: int = 0
    """Bytes of events that are in the columns."""
    series: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)
    """By job and name the number of the file, and how many records count."""
    began: Mapping[str, float] = field(default_factory=dict)
    """When each job was first heard of."""

    def names(self, job: str) -> list[str]:
        """What was measured of the job."""
        return list(self.series.get(job, ()))

    def jobs(self) -> Collection[str]:
        return self.series.keys()

    def count(self, job: str, name: str) -> int:
        """How many records a series has."""
        return self.series.get(job, {}).get(name, (0, 0))[1]

    def read(self, job: str, name: str) -> Records:
        """All records of a series in the order of steps, as `RECORD`.

        Steps that were done again, after a worker had died, count as they were done last.
        """
        place, count = self.series.get(job, {}).get(name, (0, 0))
        if not count:
            return np.empty(0, RECORD)
        found = np.fromfile(self.folder / str(place), RECORD, count)
        if (np.diff(found["step"]) > 0).all():
            return found
        later = np.minimum.accumulate(found["step"][::-1])[::-1]
        kept: Records = found[np.append(found["step"][:-1] < later[1:], True)]
        return kept

    def edges(self, job: str, name: str) -> Records:
        """The first and the last record of a series, without reading what is between them."""
        place, count = self.series.get(job, {}).get(name, (0, 0))
        if not count:
            return np.empty(0, RECORD)
        with (self.folder / str(place)).open("rb") as file:
            ends = (os.pread(file.fileno(), RECORD.itemsize, at * RECORD.itemsize) for at in (0, count - 1))
            return np.frombuffer(b"".join(ends), RECORD)


class Points:
    """The columns of one run. Safe for several threads."""

    def __init__(self, events: Path) -> None:
        self._events = events
        self._lock = threading.Lock()
        self.seen = _load(events.parent / FOLDER)

    def behind(self) -> int:
        """Bytes of events that are not in the columns, all of them for a file that was begun anew."""
        size = self._size()
        return size - self.seen.offset if size >= self.seen.offset else size

    def advance(self, seconds: float) -> int:
        """Take in what is new, for about so long; the bytes that are still behind."""
        until = time.monotonic() + seconds
        with self._lock:
            while True:
                size = self._size()
                if size < self.seen.offset:  # begun anew
                    self.seen = Seen(self.seen.folder)
                if not self._take() or time.monotonic() > until:
                    return max(0, size - self.seen.offset)

    def _size(self) -> int:
        try:
            return self._events.stat().st_size
        except FileNotFoundError:
            return 0

    def _take(self) -> bool:
        """Read one chunk; False when there is no whole line more."""
        try:
            with self._events.open("rb") as file:
                data = os.pread(file.fileno(), CHUNK, self.seen.offset)
        except FileNotFoundError:
            return False
        whole = data.rfind(b"\n") + 1
        if not whole:
            if len(data) < CHUNK:
                return False
            whole = len(data)  # a line longer than a chunk is no event
        self.seen = _with(self.seen, _columns(data[:whole]), self.seen.offset + whole)
        return True


def _columns(data: bytes) -> dict[tuple[str, str], Records]:
    """The records that lines of events hold, by job and name."""
    parts: dict[tuple[str, str], list[Floats]] = {}
    for (job, *names), rows in measured(data).items():
        table = np.array(rows, np.float64).reshape(-1, HEAD + len(names))
        for place, name in enumerate(names, HEAD):
            if NAME.fullmatch(name):
                parts.setdefault((job, name), []).append(table[:, [0, 1, 2, place]])
    found = {}
    for key, tables in parts.items():
        table = tables[0]
        if len(tables) > 1:  # told with different neighbours: back into the order of the lines
            table = np.concatenate(tables)
            table = table[np.argsort(table[:, 0])]
        if key[1] != CHECKPOINT:
            table = table[~np.isnan(table[:, 3])]
        records = found[key] = np.empty(len(table), RECORD)
        with np.errstate(over="ignore"):  # beyond what a record holds is infinite
            records["time"], records["step"], records["value"] = table[:, 1], table[:, 2], table[:, 3]
    return found


def _with(seen: Seen, fresh: Mapping[tuple[str, str], Records], offset: int) -> Seen:
    """Write records behind those there are, and how far they go."""
    seen.folder.mkdir(exist_ok=True, mode=0o700)
    series, began = {job: dict(names) for job, names in seen.series.items()}, dict(seen.began)
    known = sum(len(names) for names in series.values())
    for (job, name), records in fresh.items():
        if not len(records) or (known >= MAX_SERIES and name not in series.get(job, ())):
            continue
        place, count = series.setdefault(job, {}).setdefault(name, (known, 0))
        known += not count
        file = os.open(seen.folder / str(place), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(file, records.tobytes(), count * RECORD.itemsize)
        finally:
            os.close(file)
        series[job][name] = place, count + len(records)
        began[job] = min(began.get(job, np.inf), float(records["time"][0]))
    found = Seen(seen.folder, offset, series, began)
    state = seen.folder / f".{STATE}"
    state.write_text(json.dumps({"offset": offset, "series": series, "began": began}))
    state.replace(seen.folder / STATE)
    return found


def _load(folder: Path) -> Seen:
    try:
        state = json.loads((folder / STATE).read_text())
        series = {
            str(job): {str(name): (int(place), int(count)) for name, (place, count) in names.items()}
            for job, names in state["series"].items()
        }
        began = {str(job): float(at) for job, at in state["began"].items()}
        return Seen(folder, int(state["offset"]), series, began)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Seen(folder)  # none yet, or not ours: the events are read again


# Curves, for drawing


STRETCH = 1.5
"""A step left out makes a distance twice as long; a last step that is not due makes one shorter."""


def reach(steps: Steps) -> float:
    """How far apart two points may be, in steps, with nothing missing in between; 0 where that is not known.

    By the most common distance, the longer one of equally common ones: a report that was made besides, at
    a checkpoint or because somebody asked for it, only makes distances shorter.
    """
    if len(steps) < 2:
        return 0.0
    apart, times = np.unique(np.diff(steps), return_counts=True)
    return STRETCH * float(apart[times == times.max()].max())


def broken(steps: Steps, reports: Steps) -> npt.NDArray[np.intp]:
    """The places of points after which a curve is broken: one should be there before the next, and is not.

    Both rise. `reports` are the steps at which the job told what always comes with this value: where the
    value is not there, it was no number. Beyond that, points further apart than `reach` are not one line.
    """
    if len(steps) < 2:
        return np.empty(0, np.intp)
    after = np.diff(steps) > reach(steps)
    places = np.searchsorted(steps, reports)
    inside = (places > 0) & (places < len(steps))
    places, reports = places[inside], reports[inside]
    after[places[steps[places] != reports] - 1] = True
    return np.flatnonzero(after)


class Curve(NamedTuple):
    """`x` rises. `smooth` is empty when none was asked for."""

    x: Floats
    y: npt.NDArray[np.float32]
    smooth: npt.NDArray[np.float32]


def smoothed(values: Floats, weight: float) -> Floats:
    """Exponential moving average: each value counts (1 - weight), what was before it weight."""
    if not len(values) or weight <= 0:
        return values
    out = np.empty_like(values)
    size = max(1, int(500 / -np.log(weight)))  # beyond, weight ** -n is more than a number can hold
    last = values[0]
    for start in range(0, len(values), size):
        part = values[start : start + size]
        powers = weight ** np.arange(1, len(part) + 1)
        out[start : start + size] = powers * (last + (1 - weight) * np.cumsum(part / powers))
        last = out[min(start + size, len(values)) - 1]
    return out


def grid(edges: Floats) -> Floats:
    """Where the points of reduced curves are: two between each two edges."""
    places: Floats = edges[:-1, None] + (edges[1] - edges[0]) * np.array([0.25, 0.75])
    return places.ravel()


def reduced(curve: Curve, edges: Floats) -> Curve:
    """The lowest and the highest point between each two edges, at `grid(edges)`, so without x of its own."""
    x, y, smooth = curve
    starts = np.searchsorted(x, edges[:-1])
    ends = np.append(starts[1:], np.searchsorted(x, edges[-1], "right"))
    full = ends > starts
    values = np.full((len(starts), 2), np.nan, np.float32)
    means = np.full((len(starts), 2), np.nan, np.float32)
    if full.any():
        first, cut = starts[full], y[: ends[-1]]
        low, high = np.minimum.reduceat(cut, first), np.maximum.reduceat(cut, first)
        falls = y[first] > y[ends[full] - 1]
        values[full] = np.where(falls[:, None], np.stack([high, low], 1), np.stack([low, high], 1))
        if len(smooth):
            means[full] = smooth[ends[full] - 1][:, None]
    # no view of what is long may be left: it would keep all of it in memory
    return Curve(np.empty(0), values.ravel(), means.ravel() if len(smooth) else np.empty(0, np.float32))
