"""Two models compared by their stored draws: as by the paired bootstrap, and on the same rows only."""

import random

import numpy as np
import pytest

from datatunerx.runs.draws import Draws, MetricDraws, difference, figure
from datatunerx.scoring import Marks, Prediction, compare, measure


def answered(share, count=60, seed=0, question="q"):
    chance = random.Random(seed)
    said = ["yes" if chance.random() < share else "no" for _ in range(count)]
    return [Prediction(n, f"{question}{n}", "yes", answer) for n, answer in enumerate(said)]


def draws(predictions, metrics=("exact-match",), marks=None, how="", seed=0):
    found = measure(predictions, list(metrics), marks=marks, seed=seed)
    return Draws(
        metrics={
            name: MetricDraws(
                value=one.result.value, higher_is_better=one.result.higher_is_better, n=one.result.n,
                rows=one.rows, how=how, draws=[float(d) if np.isfinite(d) else None for d in one.draws_B],
            )
            for name, one in found.items()
        }
    )  # fmt: skip


@pytest.mark.parametrize("metric", ["exact-match", "bleu", "f1", "rouge-1"])
def test_the_difference_by_draws_is_the_paired_bootstrap(metric):
    a, b = answered(0.8, seed=1), answered(0.5, seed=2)
    found = difference(draws(a, [metric]), draws(b, [metric]), metric, "a", "b")
    expected = compare(a, b, metric)
    assert found.value == pytest.approx(expected.value)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert (found.n, found.distinguishable) == (expected.n, expected.distinguishable)


def test_the_words_name_who_beats_whom_by_how_much_or_say_that_it_is_noise():
    good, bad = answered(0.95, seed=1), answered(0.3, seed=2)
    found = difference(draws(good), draws(bad), "exact-match", "good", "bad")
    half = figure((found.high - found.low) / 2)
    assert found.said == f"good beats bad by {figure(found.value)} +/- {half}"
    assert difference(draws(bad), draws(good), "exact-match", "bad", "good").said == found.said
    one, other = answered(0.6, seed=4), answered(0.58, seed=5)
    same = difference(draws(one), draws(other), "exact-match", "one", "other")
    assert "not distinguishable from noise" in same.said and not same.distinguishable


def test_of_a_metric_that_should_be_low_the_lower_one_beats():
    predictions = answered(0.5)
    low = draws(predictions, [], {"p/cost": Marks([1.0] * 60, higher_is_better=False)})
    high = draws(predictions, [], {"p/cost": Marks([5.0] * 60, higher_is_better=False)})
    assert difference(low, high, "p/cost", "cheap", "dear").said.startswith("cheap beats dear by 4")


def test_other_rows_other_seeds_and_other_options_are_not_compared():
    one = draws(answered(0.9))
    for other in (draws(answered(0.9, question="p")), draws(answered(0.9), seed=1), draws(answered(0.9, 59))):
        found = difference(one, other, "exact-match", "a", "b")
        assert found.value is None and "other rows" in found.why_missing and found.said == "not compared"
    found = difference(one, draws(answered(0.9), how="field"), "exact-match", "a", "b")
    assert found.value is None and "another way" in found.why_missing
    assert "b has no exact-match" in difference(one, None, "exact-match", "a", "b").why_missing


def test_marks_that_are_missing_for_one_model_only_leave_nothing_to_compare():
    predictions = answered(0.5, 4)
    whole = draws(predictions, [], {"judge": Marks([1.0, 2.0, 3.0, 4.0])})
    holed = draws(predictions, [], {"judge": Marks([1.0, None, 3.0, 4.0])})
    assert "3 of b" in difference(whole, holed, "judge", "a", "b").why_missing
    assert difference(holed, holed, "judge", "a", "b").n == 3


def test_a_missing_mark_is_no_row_and_no_mark_is_no_score():
    predictions = answered(0.5, 4)
    found = measure(predictions, [], marks={"m": Marks([1.0, None, 3.0, None]), "none": Marks([None] * 4)})
    assert (found["m"].result.value, found["m"].result.n) == (2.0, 2)
    assert found["none"].result.value is None and "no row has a mark" in found["none"].result.why_missing


@pytest.mark.parametrize(
    ("value", "text"), [(0.31234, "0.312"), (3.14159, "3.14"), (0.0, "0"), (120.4, "120"), (-0.5, "-0.5")]
)
def test_figures_have_three_digits(value, text):
    assert figure(value) == text
