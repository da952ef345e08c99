"""The verdict of an experiment: what ranks, which is best, and why, in figures. Pure."""

from collections.abc import Sequence

from datatunerx.resources.enums import Metric
from datatunerx.resources.experiment import Best, Ranked


def rank(rows: Sequence[Ranked], metric: Metric) -> list[Ranked]:
    """The rows, best first, ranked from 1; those without a score follow, unranked.

    Of equal scores the untouched base goes first: it costs no training.
    """
    sign = -1.0 if metric.higher_is_better else 1.0
    scored = [row for row in rows if row.score is not None]
    scored.sort(key=lambda row: (sign * (row.score or 0.0), not row.base, row.name, row.dataset))
    missing = sorted((row for row in rows if row.score is None), key=lambda row: (not row.base, row.name))
    ranked = [row.model_copy(update={"rank": place}) for place, row in enumerate(scored, 1)]
    return ranked + [row.model_copy(update={"rank": None}) for row in missing]


def recommend(ranked: Sequence[Ranked], metric: Metric) -> Best | None:
    """The best job of a ranking, with the reason; None if no job has a score."""
    jobs = [row for row in ranked if not row.base and row.rank is not None]
    if not jobs:
        return None
    best = jobs[0]
    base = next((row for row in ranked if row.base and _same_material(row, best)), None)
    assert best.score is not None
    sentences = [_first(best, base, metric)]
    if base is None or base.score is None:
        sentences.append("The untouched base has no score to compare it with.")
    rivals = [row for row in jobs[1:] if overlap(best, row)]
    if rivals:
        names = ", ".join(row.name for row in rivals)
        sentences.append(f"Not distinguishable from {names}: the intervals overlap.")
    better = [
        row for row in ranked if row.base and row is not base and row.rank and row.rank < (best.rank or 0)
    ]
    if better:
        other = better[0]
        sentences.append(
            f"The untouched base {other.name} on {other.dataset} scored {figures(other, metric)}."
        )
    datasets = sorted({row.dataset for row in ranked if row.rank is not None})
    if len(datasets) > 1:
        sentences.append(
            f"Scores were measured on different data ({', '.join(datasets)}) and compare only within each; "
            "set scoring.dataset to measure all on one."
        )
    return Best(
        job=best.name,
        checkpoint=best.checkpoint,
        score=best.score,
        base_score=base.score if base else None,
        why=" ".join(sentences),
    )


def _same_material(row: Ranked, other: Ranked) -> bool:
    return (row.llm, row.dataset) == (other.llm, other.dataset)


def _first(best: Ranked, base: Ranked | None, metric: Metric) -> str:
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
    if overlap(best, base):
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


def figures(row: Ranked, metric: Metric) -> str:
    """The score with its 95 % interval."""
    if row.score is None:
        return "no score"
    if row.low is None or row.high is None:
        return number(row.score, metric)
    low, high = number(row.low, metric), number(row.high, metric)
    return f"{number(row.score, metric)} [{low}, {high}]"


def number(value: float, metric: Metric) -> str:
    """Two decimals; three for a perplexity, where small differences matter."""
    return f"{value:.3f}" if metric is Metric.PERPLEXITY else f"{value:.2f}"
