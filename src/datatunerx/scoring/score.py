"""Predictions to metrics with intervals, and one model against another."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from datatunerx.scoring.errors import UnknownMetric, UnknownOption, Unmeasurable
from datatunerx.scoring.metrics import METRICS, Metric
from datatunerx.scoring.predictions import Prediction
from datatunerx.scoring.statistics import Array, Statistics, interval, mean_of, point, resample


@dataclass(frozen=True)
class MetricValue:
    """A score with its 95 % interval over rows; `value` is None when it is missing, and then says why."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Rows it was measured on."""
    higher_is_better: bool
    why_missing: str | None = None


@dataclass(frozen=True)
class Marks:
    """What somebody else found for each row, in the order of the predictions; None is missing."""

    values: Sequence[float | None]
    higher_is_better: bool = True


@dataclass(frozen=True)
class Scored:
    """A metric with what comparing it takes."""

    result: MetricValue
    draws_B: Array | None = None
    """Its value on each draw of the rows, NaN where they have none; None if there is no value."""
    rows: str = ""
    """SHA-256 of the seed and of the rows that count, with their questions and references."""


@dataclass(frozen=True)
class Comparison:
    """How much higher the first model's value is than the second's, on the same rows."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    distinguishable: bool
    """Whether the 95 % interval of the difference leaves out zero."""
    higher_is_better: bool
    why_missing: str | None = None


def score(
    predictions: Sequence[Prediction],
    metrics: Sequence[str],
    *,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, MetricValue]:
    """Score stored answers; every metric asked for is in the result, in the order asked.

    `options` maps a metric's name to its own options. Intervals are percentile bootstraps over rows; they
    need two rows, and are as wide as nothing when all rows are alike.
    Raises `UnknownMetric` and `UnknownOption`; never over an answer.
    """
    found = measure(predictions, metrics, seed=seed, options=options)
    return {name: scored.result for name, scored in found.items()}


def measure(
    predictions: Sequence[Prediction],
    metrics: Sequence[str],
    *,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    marks: Mapping[str, Marks] | None = None,
) -> dict[str, Scored]:
    """As `score`, with the draws; `marks` are scored too, each by the mean of the rows that have one."""
    chosen = {name: _choose(name, options) for name in metrics}
    _check_names(options)
    directions = {name: metric.higher_is_better for name, (metric, _) in chosen.items()}
    directions |= {name: given.higher_is_better for name, given in (marks or {}).items()}
    measured: dict[str, Statistics] = {}
    missing: dict[str, Scored] = {}
    for name, better in directions.items():
        try:
            if marks and name in marks:
                measured[name] = _mean(marks[name].values)
            else:
                measured[name] = _measure(predictions, *chosen[name])
        except Unmeasurable as error:
            missing[name] = Scored(MetricValue(None, None, None, 0, better, str(error)))
    draws = _draws(measured, seed)
    found: dict[str, Scored] = {}
    for name, better in directions.items():
        if name in missing:
            found[name] = missing[name]
            continue
        statistics, draws_B = measured[name], draws.get(name)
        low, high = (None if draws_B is None else interval(draws_B)) or (None, None)
        value = MetricValue(point(statistics), low, high, statistics.n, better)
        counted = [p for p, kept in zip(predictions, _counting(statistics), strict=True) if kept]
        whole = predictions if statistics.n == len(predictions) else counted
        found[name] = Scored(value, draws_B, digest_of_rows(whole, seed))
    return found


def _counting(statistics: Statistics) -> list[bool]:
    """Whether each row counts: those that do not are rows of zeros."""
    return [any(row) for row in statistics.rows_NS.tolist()]


def digest_of_rows(predictions: Sequence[Prediction], seed: int) -> str:
    """SHA-256 of what was asked: the same for two models exactly if their scores can be compared."""
    digest = hashlib.sha256(str(seed).encode())
    for p in sorted(predictions, key=lambda prediction: prediction.row):
        digest.update(json.dumps([p.row, p.question, p.reference]).encode())
    return digest.hexdigest()


def _mean(values: Sequence[float | None]) -> Statistics:
    statistics = mean_of(values)
    if not statistics.n:
        raise Unmeasurable("no row has a mark")
    return statistics


def compare(
    a: Sequence[Prediction],
    b: Sequence[Prediction],
    metric: str,
    *,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Comparison:
    """The paired bootstrap of `a` minus `b`: both are drawn by the same rows, so hard rows cancel out.

    Missing when the two were not measured on the same rows with the same references.
    """
    chosen, own = _choose(metric, options)
    direction = chosen.higher_is_better
    first = sorted(a, key=lambda prediction: prediction.row)
    second = sorted(b, key=lambda prediction: prediction.row)
    why = _other_data(first, second)
    if why:
        return Comparison(None, None, None, 0, False, direction, why)
    try:
        left, right = _measure(first, chosen, own), _measure(second, chosen, own)
    except Unmeasurable as error:
        return Comparison(None, None, None, 0, False, direction, str(error))
    difference = point(left) - point(right)
    if len(first) < 2:
        return Comparison(difference, None, None, left.n, False, direction)
    sums_BS = resample(np.hstack([left.rows_NS, right.rows_NS]), seed)
    width = left.rows_NS.shape[1]
    found = interval(left.value(sums_BS[:, :width]) - right.value(sums_BS[:, width:]))
    low, high = found or (None, None)
    apart = low is not None and high is not None and (low > 0 or high < 0)
    return Comparison(difference, low, high, left.n, apart, direction)


def _choose(name: str, options: Mapping[str, Mapping[str, Any]] | None) -> tuple[Metric, Mapping[str, Any]]:
    if name not in METRICS:
        raise UnknownMetric(name, METRICS)
    metric = METRICS[name]
    own = (options or {}).get(name, {})
    for key, value in own.items():
        if key not in metric.options:
            raise UnknownOption(name, "option", key, metric.options)
        allowed = metric.options[key]
        if not isinstance(value, str) or (allowed and value not in allowed):
            raise UnknownOption(name, f"value of {key}", value, allowed or ("any text",))
    return metric, own


def _check_names(options: Mapping[str, Mapping[str, Any]] | None) -> None:
    for name in options or {}:
        if name not in METRICS:
            raise UnknownMetric(name, METRICS)


def _measure(predictions: Sequence[Prediction], metric: Metric, options: Mapping[str, Any]) -> Statistics:
    """Statistics whose value over all rows is a finite number; raises `Unmeasurable` otherwise."""
    if not predictions:
        raise Unmeasurable("there are no predictions")
    statistics = metric.measure(predictions, options)
    if not math.isfinite(point(statistics)):
        raise Unmeasurable("the value is not a finite number")
    return statistics


def _draws(measured: Mapping[str, Statistics], seed: int) -> dict[str, Array]:
    """All metrics share one set of draws: the rows are drawn once, and metrics of one run move together."""
    if not measured:
        return {}
    count = next(iter(measured.values())).rows_NS.shape[0]
    if count < 2:
        return {}
    sums_BS = resample(np.hstack([statistics.rows_NS for statistics in measured.values()]), seed)
    found = {}
    start = 0
    for name, statistics in measured.items():
        stop = start + statistics.rows_NS.shape[1]
        found[name] = statistics.value(sums_BS[:, start:stop])
        start = stop
    return found


def _other_data(a: Sequence[Prediction], b: Sequence[Prediction]) -> str | None:
    rows_a, rows_b = [p.row for p in a], [p.row for p in b]
    if rows_a != rows_b:
        only = sorted(set(rows_a) ^ set(rows_b))
        return (
            f"measured on different rows ({len(only)} differ, first {only[0]})"
            if only
            else "a row appears twice"
        )
    if len(set(rows_a)) != len(rows_a):
        return "a row appears twice"
    for one, other in zip(a, b, strict=True):
        if (one.question, one.reference) != (other.question, other.reference):
            return f"measured on other data: row {one.row} has another question or reference"
    return None
