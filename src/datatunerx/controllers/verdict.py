"""The verdict of an experiment: what ranks, which is best, and why, in figures. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from datatunerx.resources.enums import Metric
from datatunerx.resources.experiment import Best, Difference, Ranked
from datatunerx.runs.draws import figure

MAX_NAMED = 5
"""Jobs that one sentence names."""


class Measured(NamedTuple):
    """The metric that ranks: one of ours, or one that a plugin brings."""

    value: str
    higher_is_better: bool


def measured(name: str, rows: Sequence[Ranked]) -> Measured:
    """As the rows have it; where none has, as the metric is known."""
    found = (row.metrics[name].higher_is_better for row in rows if name in row.metrics)
    known = Metric(name).higher_is_better if name in list(Metric) else True
    return Measured(name, next(found, known))


def rank(rows: Sequence[Ranked], metric: Measured) -> list[Ranked]:
    """The rows, best first, ranked from 1; then, unranked, those with no score or one from other data.

    Of equal scores the untouched base goes first: it costs no training.
    """
    sign = -1.0 if metric.higher_is_better else 1.0
    common = _common_data(rows)
    scored = [row for row in rows if row.score is not None and measured_on(row) == common]
    scored.sort(key=lambda row: (sign * (row.score or 0.0), not row.base, row.name, row.dataset))
    others = [row for row in rows if row.score is None or measured_on(row) != common]
    others.sort(key=lambda row: (row.score is None, not row.base, row.name))
    ranked = [row.model_copy(update={"rank": place}) for place, row in enumerate(scored, 1)]
    return ranked + [row.model_copy(update={"rank": None}) for row in others]


def measured_on(row: Ranked) -> str:
    """The dataset its score comes from: its own unless the measure named another."""
    return row.measured_on or row.dataset


def _common_data(rows: Sequence[Ranked]) -> str | None:
    """The dataset most jobs were measured on, of equals the first by name; scores compare within one only."""
    scored = [row for row in rows if row.score is not None]
    jobs = Counter(measured_on(row) for row in scored if not row.base)
    return min((measured_on(row) for row in scored), key=lambda name: (-jobs[name], name), default=None)


def recommend(
    ranked: Sequence[Ranked], metric: Measured, against: Mapping[str, Difference] | None = None
) -> Best | None:
    """The best job of a ranking, with the reason; None if no job has a score.

    `against` is the best job's difference to each other job; where there is none, their intervals decide.
    """
    jobs = [row for row in ranked if not row.base and row.rank is not None]
    if not jobs:
        return None
    best = jobs[0]
    base = next((row for row in ranked if row.base and _same_material(row, best)), None)
    assert best.score is not None
    sentences = [_first(best, base, metric)]
    if base is None or base.score is None:
        sentences.append("The untouched base has no score to compare it with.")
    compared = {name: found for name, found in (against or {}).items() if found.value is not None}
    equals = [row for row in jobs[1:] if row.score == best.score]
    if equals:
        sentences.append(
            f"{_names(equals)} scored exactly the same; of equals the first by name is recommended, and any "
            "of them may do as well."
        )
    behind = [row for row in jobs[1:] if row.score != best.score]
    rivals = [row for row in behind if row.name in compared and not compared[row.name].distinguishable]
    if rivals:
        sentences.append(
            f"Not distinguishable from {_names(rivals)} on the same rows: the 95 % interval of the "
            "difference includes zero. It is recommended because its own score is the best, and a cheaper "
            "one of them may do as well."
        )
    others = [row for row in behind if row.name not in compared and overlap(best, row)]
    if others:
        sentences.append(
            f"The 95 % intervals of {_names(others)} overlap with it, so its lead over them may be chance."
        )
    better = [
        row for row in ranked if row.base and row is not base and row.rank and row.rank < (best.rank or 0)
    ]
    if better:
        other = better[0]
        sentences.append(
            f"The untouched base {other.name} on {measured_on(other)} scored {figures(other, metric)}."
        )
    strangers = [row for row in ranked if row.score is not None and row.rank is None]
    if strangers:
        data = ", ".join(sorted({measured_on(row) for row in strangers}))
        sentences.append(
            f"Measured on other data ({data}, not {measured_on(best)}) and so not ranked: "
            f"{_names(strangers)}; set scoring.dataset to measure all on one."
        )
    return Best(
        job=best.name,
        checkpoint=best.checkpoint,
        score=best.score,
        base_score=base.score if base else None,
        why=" ".join(sentences),
    )


def _names(rows: Sequence[Ranked]) -> str:
    shown = ", ".join(row.name for row in rows[:MAX_NAMED])
    more = len(rows) - MAX_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _same_material(row: Ranked, other: Ranked) -> bool:
    return (row.llm, row.dataset) == (other.llm, other.dataset)


def _first(best: Ranked, base: Ranked | None, metric: Measured) -> str:
    sentence = f"{best.name} scored {figures(best, metric)}"
    if best.n:
        sentence += f" on {best.n} rows"
    if base is None or base.score is None or best.score is None:
        return sentence + "."
    gain = (best.score - base.score) * (1 if metric.higher_is_better else -1)
    shown = f"{metric.value} {figures(base, metric)}"
    if gain <= 0:
        return f"{sentence}. It does not beat the untouched base, which scored {shown}."
    word = "above" if metric.higher_is_better else "below"
    sentence += f", {number(abs(gain), metric)} {word} the untouched base ({number(base.score, metric)})"
    paired = best.against_base
    if paired and paired.low is not None and paired.high is not None:
        margin = figure((paired.high - paired.low) / 2)
        sure = "" if paired.distinguishable else "; not distinguishable from noise"
        sentence += f" by the same rows, +/- {margin}{sure}"
    elif overlap(best, base):
        sentence += "; their intervals overlap, so the gain may be chance"
    return sentence + "."


def overlap(one: Ranked, other: Ranked) -> bool:
    """Whether the intervals share a point; a row without one is its score alone."""
    if one.score is None or other.score is None:
        return False
    low_one, high_one = _interval(one)
    low_other, high_other = _interval(other)
    return low_one <= high_other and low_other <= high_one


def _interval(row: Ranked) -> tuple[float, float]:
    assert row.score is not None
    return (
        row.low if row.low is not None else row.score,
        row.high if row.high is not None else row.score,
    )


def figures(row: Ranked, metric: Measured) -> str:
    """The score with its 95 % interval."""
    if row.score is None:
        return "no score"
    if row.low is None or row.high is None:
        return number(row.score, metric)
    low, high = number(row.low, metric), number(row.high, metric)
    return f"{number(row.score, metric)} [{low}, {high}]"


def number(value: float, metric: Measured) -> str:
    """Two decimals; three for a perplexity, where small differences matter."""
    return f"{value:.3f}" if metric.value == Metric.PERPLEXITY else f"{value:.2f}"
