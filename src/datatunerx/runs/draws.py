"""What scores would have been on other draws of the same rows: two models are compared by these alone.

The worker draws the rows of a measure by a fixed seed, the same for every model, and keeps the metrics of
each draw. The difference of two models, draw by draw, is then the paired bootstrap: hard rows cancel out,
no answer is read again, and whoever compares needs nothing but this file.
"""

import math
from collections.abc import Sequence

from datatunerx.resources.experiment import Difference
from datatunerx.resources.wire import SHORT_TEXT, Wire, cut

SUFFIX = ".draws.json"
"""In place of .jsonl at the end of the name of the predictions."""
MAX_BYTES = 64 << 20
CONFIDENCE = 0.95


class MetricDraws(Wire):
    """One metric of one model, over all rows and over each draw of them."""

    value: float
    higher_is_better: bool
    n: int
    rows: str
    """SHA-256 of the rows that count: their numbers, questions and references, and of the seed."""
    how: str = ""
    """Digest of the metric's options, of the judge, of the plugin with its parameters."""
    draws: list[float | None]
    """None where the drawn rows have no value."""


class Draws(Wire):
    """`<predictions>.draws.json`"""

    metrics: dict[str, MetricDraws]


def draws_uri(predictions_uri: str) -> str:
    return predictions_uri.removesuffix(".jsonl") + SUFFIX


def difference(mine: Draws | None, theirs: Draws | None, metric: str, name: str, other: str) -> Difference:
    """How much higher `name` scores than `other`, with its 95 % interval. Other rows are never compared."""
    one = mine.metrics.get(metric) if mine else None
    two = theirs.metrics.get(metric) if theirs else None
    if why := _why_not(one, two, metric, name, other):
        return Difference(to=other, metric=metric, why_missing=cut(why, SHORT_TEXT), said="not compared")
    assert one and two
    value = one.value - two.value
    pairs = zip(one.draws, two.draws, strict=True)
    found = [a - b for a, b in pairs if a is not None and b is not None]
    low, high = _interval(found) if found and len(found) >= len(one.draws) / 2 else (None, None)
    apart = low is not None and high is not None and (low > 0 or high < 0)
    made = Difference(
        to=other, metric=metric, value=value, low=low, high=high, n=one.n, distinguishable=apart
    )
    return made.model_copy(update={"said": cut(_said(made, name, one.higher_is_better), SHORT_TEXT)})


def figure(value: float) -> str:
    """Three significant digits, without an exponent where people write none."""
    if not value or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _why_not(
    one: MetricDraws | None, two: MetricDraws | None, metric: str, name: str, other: str
) -> str | None:
    lacking = [who for who, draws in ((name, one), (other, two)) if draws is None]
    if one is None or two is None:
        verb = "has" if len(lacking) == 1 else "have"
        return f"{' and '.join(lacking)} {verb} no {metric} to compare"
    if one.rows != two.rows:
        return f"{metric} was measured on other rows: {one.n} of {name}, {two.n} of {other}, not the same"
    if one.how != two.how:
        return f"{metric} was measured in another way: options, judge or plugin differ"
    if len(one.draws) != len(two.draws):
        return "their draws are not of one number"
    return None


def _said(found: Difference, name: str, higher_is_better: bool) -> str:
    assert found.value is not None
    if found.low is None or found.high is None:
        return f"{name} and {found.to} cannot be told apart on {found.n} rows"
    margin = figure((found.high - found.low) / 2)
    if not found.distinguishable:
        return (
            f"{name} and {found.to} are not distinguishable from noise ({figure(found.value)} +/- {margin})"
        )
    better, worse = (name, found.to) if (found.value > 0) is higher_is_better else (found.to, name)
    return f"{better} beats {worse} by {figure(abs(found.value))} +/- {margin}"


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """The percentile interval, between values linearly."""
    ordered = sorted(values)
    tail = (1 - CONFIDENCE) / 2
    return _percentile(ordered, tail), _percentile(ordered, 1 - tail)


def _percentile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
