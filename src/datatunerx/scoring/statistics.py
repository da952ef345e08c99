"""Sufficient statistics: every metric is sums over rows, so resampling it never looks at a text again.

Letters in names: N rows, S sums, B bootstrap resamples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 2000
CONFIDENCE = 0.95

_BLOCK_CELLS = 4_000_000
"""Resamples are drawn in blocks of at most this many (resample, row) cells: 32 MB of weights."""


@dataclass(frozen=True)
class Statistics:
    """What a metric keeps of each row, and how sums of it become values."""

    rows_NS: Array
    value: Callable[[Array], Array]
    """Sums (B, S) to values (B,); NaN where those rows have no value."""
    n: int
    """Rows that count; the others are rows of zeros."""


def point(statistics: Statistics) -> float:
    """The value over all rows; NaN if they have none."""
    return float(statistics.value(statistics.rows_NS.sum(axis=0, keepdims=True))[0])


def mean_of(values: Sequence[float | None]) -> Statistics:
    """The mean over the rows that have a value; a missing one is no row, never 0."""
    rows_NS = np.array([(0.0, 0.0) if value is None else (value, 1.0) for value in values]).reshape(-1, 2)
    return Statistics(rows_NS, ratio, int(rows_NS[:, 1].sum()))


def resample(rows_NS: Array, seed: int, resamples: int = RESAMPLES) -> Array:
    """Sums (B, S) over `resamples` draws of N rows with replacement; the same seed draws the same rows."""
    count = rows_NS.shape[0]
    generator = np.random.default_rng(seed)
    block = max(1, min(resamples, _BLOCK_CELLS // count))
    sums: list[Array] = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = generator.integers(0, count, (size, count)) + np.arange(size)[:, None] * count
        weights_BN = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        sums.append(weights_BN.astype(np.float64) @ rows_NS)
    return np.concatenate(sums)


def interval(values_B: Array) -> tuple[float, float] | None:
    """The percentile interval of resampled values; None if hardly any resample has a value."""
    defined = values_B[np.isfinite(values_B)]
    if defined.size < values_B.size / 2:
        return None
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)


def ratio(sums_BS: Array) -> Array:
    """First sum over second, NaN where the second is zero."""
    return divide(sums_BS[:, 0], sums_BS[:, 1], np.nan)


def divide(top: Array, bottom: Array, otherwise: float) -> Array:
    """`top / bottom`, and `otherwise` where `bottom` is zero."""
    safe = np.where(bottom == 0, 1.0, bottom)
    return np.where(bottom == 0, otherwise, top / safe)
