"""What the events of a run measured, in columns beside them: a long history is read once, then drawn at once.

Each measured value of each job is a file of fixed records in the folder `points/`; `state.json` says how far
the events are read and how many records count. What a crash left behind is written over by the next look.
"""

import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from datatunerx.telemetry.measured import points_of

FOLDER, STATE = "points", "state.json"
RECORD = np.dtype([("time", "<f8"), ("step", "<i4"), ("value", "<f4")])
"""Seconds since 1970, optimizer step, what was measured."""
COURSE = ("tokens", "epoch")
"""Series that say how far a job was at a step."""
CHUNK = 4 << 20
MAX_SERIES = 20_000

Floats = npt.NDArray[np.float64]
Records = npt.NDArray[np.void]


class Points:
    """The columns of one run. Safe for several threads."""

    def __init__(self, events: Path) -> None:
        self._events, self._folder = events, events.parent / FOLDER
        self._lock = threading.Lock()
        self.offset = 0
        """Bytes of events that are in the columns."""
        self._places: dict[tuple[str, str], int] = {}
        self._counts: list[int] = []
        self._load()

    def advance(self, seconds: float) -> int:
        """Take in what is new, for about so long; the bytes still to be read."""
        until = time.monotonic() + seconds
        with self._lock:
            while True:
                size = self._events.stat().st_size if self._events.exists() else 0
                if size < self.offset:  # begun anew
                    self.offset, self._places, self._counts = 0, {}, []
                if not self._take() or time.monotonic() > until:
                    return max(0, size - self.offset)

    def names(self, job: str) -> list[str]:
        """What was measured of the job."""
        return [name for at, name in self._places if at == job]

    def jobs(self) -> set[str]:
        return {job for job, _ in self._places}

    def read(self, job: str, name: str) -> Records:
        """All records of a series in the order of steps, as `RECORD`.

        Steps that were done again, after a worker had died, count as they were done last.
        """
        place = self._places.get((job, name))
        if place is None:
            return np.empty(0, RECORD)
        found = np.fromfile(self._folder / str(place), RECORD, self._counts[place])
        if not len(found):
            return found
        later = np.minimum.accumulate(found["step"][::-1])[::-1]
        kept = np.append(found["step"][:-1] < later[1:], True)
        return found if kept.all() else found[kept]

    def edges(self, job: str, name: str) -> Records:
        """The first and the last record of a series, without reading what is between them."""
        place = self._places.get((job, name))
        if place is None:
            return np.empty(0, RECORD)
        file, size = self._folder / str(place), RECORD.itemsize
        ends = (0, (self._counts[place] - 1) * size)
        return np.concatenate([np.fromfile(file, RECORD, 1, offset=end) for end in ends])

    def _take(self) -> bool:
        """Read one chunk; False when there is no whole line more."""
        if not self._events.exists():
            return False
        with self._events.open("rb") as file:
            data = os.pread(file.fileno(), CHUNK, self.offset)
        whole = data.rfind(b"\n") + 1
        if not whole:
            if len(data) < CHUNK:
                return False
            whole = len(data)  # a line longer than a chunk is no event
        fresh: dict[tuple[str, str], list[tuple[float, int, float]]] = {}
        for line in data[:whole].split(b"\n"):
            for point in points_of(line):
                fresh.setdefault((point.job, point.name), []).append(point[2:])
        self._keep(fresh)
        self.offset += whole
        self._save()
        return True

    def _keep(self, fresh: Mapping[tuple[str, str], list[tuple[float, int, float]]]) -> None:
        self._folder.mkdir(exist_ok=True, mode=0o700)
        for key, rows in fresh.items():
            if key not in self._places and len(self._counts) >= MAX_SERIES:
                continue
            place = self._places.setdefault(key, len(self._counts))
            if place == len(self._counts):
                self._counts.append(0)
            file = os.open(self._folder / str(place), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                data = np.array(rows, RECORD).tobytes()
                os.pwrite(file, data, self._counts[place] * RECORD.itemsize)
            finally:
                os.close(file)
            self._counts[place] += len(rows)

    def _save(self) -> None:
        series = [[*key, self._counts[place]] for key, place in self._places.items()]
        fresh = self._folder / f".{STATE}"
        fresh.write_text(json.dumps({"offset": self.offset, "series": series}))
        fresh.replace(self._folder / STATE)

    def _load(self) -> None:
        try:
            state = json.loads((self._folder / STATE).read_text())
            series = [(str(job), str(name), int(count)) for job, name, count in state["series"]]
            offset = int(state["offset"])
        except (OSError, ValueError, KeyError, TypeError):
            return  # none yet, or not ours: the events are read again
        self._places = {(job, name): place for place, (job, name, _) in enumerate(series)}
        self._counts, self.offset = [count for _, _, count in series], offset


# Curves, for drawing


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


def reduced(curve: Curve, edges: Floats) -> Curve:
    """At most two points between each two edges, the lowest and the highest; the same x for every curve."""
    x, y, smooth = curve
    starts = np.searchsorted(x, edges[:-1])
    ends = np.append(starts[1:], np.searchsorted(x, edges[-1], "right"))
    full = ends > starts
    width = edges[1] - edges[0]
    grid = (edges[:-1, None] + width * np.array([0.25, 0.75])).ravel()
    values = np.full((len(starts), 2), np.nan, np.float32)
    means = np.full((len(starts), 2), np.nan, np.float32)
    if full.any():
        first, cut = starts[full], y[: ends[-1]]
        low, high = np.minimum.reduceat(cut, first), np.maximum.reduceat(cut, first)
        falls = y[first] > y[ends[full] - 1]
        values[full] = np.where(falls[:, None], np.stack([high, low], 1), np.stack([low, high], 1))
        if len(smooth):
            means[full] = smooth[ends[full] - 1][:, None]
    return Curve(grid, values.ravel(), means.ravel() if len(smooth) else smooth)
