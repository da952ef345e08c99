"""The verdict: figures, not adjectives."""

from datatunerx.controllers.verdict import overlap, rank, recommend
from datatunerx.resources.enums import Metric
from datatunerx.resources.experiment import Ranked

ACCURACY = Metric.FIELD_ACCURACY


def row(name, score, low=None, high=None, *, base=False, dataset="d", n=90, measured_on=""):
    return Ranked(
        name=name, score=score, low=low, high=high, base=base, llm="m", dataset=dataset, n=n,
        measured_on=measured_on, checkpoint=None if base else name,
    )  # fmt: skip


def test_best_first_missing_last_and_unranked():
    rows = [row("a", 0.5), row("gone", None), row("b", 0.9), row("m", 0.2, base=True)]
    assert [(r.rank, r.name) for r in rank(rows, ACCURACY)] == [(1, "b"), (2, "a"), (3, "m"), (None, "gone")]


def test_a_low_perplexity_is_better():
    assert [r.name for r in rank([row("a", 9.0), row("b", 3.0)], Metric.PERPLEXITY)] == ["b", "a"]


def test_a_score_of_zero_ranks_above_no_score():
    assert [r.rank for r in rank([row("a", 0.0), row("b", None)], ACCURACY)] == [1, None]


def test_the_reason_names_score_interval_rows_gain_and_rivals():
    rows = [
        row("r16-lr1e-3", 0.93, 0.90, 0.96), row("r8-lr1e-3", 0.91, 0.87, 0.94),
        row("r8-lr1e-4", 0.5, 0.4, 0.6), row("m", 0.22, 0.18, 0.26, base=True),
    ]  # fmt: skip
    best = recommend(rank(rows, ACCURACY), ACCURACY)
    assert best.why == (
        "r16-lr1e-3 scored 0.93 [0.90, 0.96] on 90 rows, 0.71 above the untouched base (0.22). "
        "The 95 % intervals of r8-lr1e-3 overlap with it, so its lead over them may be chance."
    )
    assert (best.job, best.checkpoint, best.score, best.base_score) == (
        "r16-lr1e-3",
        "r16-lr1e-3",
        0.93,
        0.22,
    )


def test_a_base_that_is_not_beaten_is_said_plainly_also_when_it_is_equal():
    for base in (0.8, 0.7):
        best = recommend(rank([row("a", 0.7), row("m", base, base=True)], ACCURACY), ACCURACY)
        assert best.job == "a" and "does not beat the untouched base" in best.why


def test_a_base_without_a_score_is_said_too():
    best = recommend(rank([row("a", 0.7), row("m", None, base=True)], ACCURACY), ACCURACY)
    assert best.base_score is None and "no score to compare it with" in best.why


def test_a_gain_within_the_intervals_may_be_chance():
    rows = [row("a", 0.7, 0.6, 0.8), row("m", 0.65, 0.55, 0.75, base=True)]
    assert "may be chance" in recommend(rank(rows, ACCURACY), ACCURACY).why


def test_a_score_from_other_data_than_most_never_ranks_and_is_named():
    rows = [row("a", 0.7), row("b", 0.6), row("c", 0.9, dataset="other"), row("m", 0.2, base=True)]
    ranked = rank(rows, ACCURACY)
    assert [(r.rank, r.name) for r in ranked] == [(1, "a"), (2, "b"), (3, "m"), (None, "c")]
    best = recommend(ranked, ACCURACY)
    assert best.job == "a" and "(other, not d) and so not ranked: c; set scoring.dataset" in best.why


def test_trainings_on_different_data_measured_on_one_are_compared():
    rows = [row("a", 0.7, measured_on="t"), row("b", 0.8, dataset="other", measured_on="t")]
    ranked = rank(rows, ACCURACY)
    assert [(r.rank, r.name) for r in ranked] == [(1, "b"), (2, "a")]
    assert "other data" not in recommend(ranked, ACCURACY).why


def test_of_many_rivals_five_are_named():
    rows = [row("a", 0.9, 0.1, 1.0)] + [row(f"b{n}", 0.5, 0.1, 1.0) for n in range(8)]
    assert "of b0, b1, b2, b3, b4 and 3 more overlap" in recommend(rank(rows, ACCURACY), ACCURACY).why


def test_nothing_is_recommended_without_a_score():
    assert recommend(rank([row("a", None), row("m", 0.2, base=True)], ACCURACY), ACCURACY) is None


def test_intervals_that_touch_overlap():
    assert overlap(row("a", 0.7, 0.6, 0.8), row("b", 0.85, 0.8, 0.9))
    assert not overlap(row("a", 0.7, 0.6, 0.79), row("b", 0.85, 0.8, 0.9))


def test_a_tie_is_said_as_one_and_the_first_by_name_is_recommended():
    rows = [row("b", 0.8, 0.7, 0.9), row("a", 0.8, 0.7, 0.9), row("c", 0.75, 0.7, 0.8)]
    best = recommend(rank(rows, ACCURACY), ACCURACY)
    assert best.job == "a"
    assert "b scored exactly the same; of equals the first by name is recommended" in best.why
    assert "intervals of c overlap with it" in best.why
