"""Numbers with intervals: values known beforehand, honest gaps, and comparisons that know their limits."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datatunerx.resources.enums import Metric as MetricName
from datatunerx.resources.finetune import OPTIONS_OF, MetricOptions
from datatunerx.scoring import (
    METRICS,
    Prediction,
    UnknownMetric,
    UnknownOption,
    compare,
    score,
)


def predict(*pairs, **common):
    """Predictions from (answer, reference) pairs."""
    return [
        Prediction(row, f"question {row}", reference, answer, **common)
        for row, (answer, reference) in enumerate(pairs)
    ]


def ticket(category, priority="low"):
    return json.dumps({"category": category, "priority": priority})


def only(predictions, name, **options):
    return score(predictions, [name], options={name: options} if options else None)[name]


def test_the_registry_and_the_enum_of_the_kinds_name_the_same_metrics_in_the_same_direction():
    assert {name.value: name.higher_is_better for name in MetricName if name is not MetricName.JUDGE} == {
        name: metric.higher_is_better for name, metric in METRICS.items()
    }


def test_exact_match_forgives_space_around_an_answer_and_nothing_else():
    found = only(predict((" yes\n", "yes"), ("Yes", "yes"), ("yes.", "yes"), ("no", "no")), "exact-match")
    assert found.value == 0.5
    assert found.n == 4


def test_accuracy_looks_at_the_label_and_not_at_how_it_is_written():
    assert only(
        predict(("Spam.", "spam"), ('{"a": 1,"b":2}', '{"b": 2, "a": 1.0}'), ("x", "y")), "accuracy"
    ).value == pytest.approx(2 / 3)


def test_accuracy_of_one_field_ignores_the_other_fields_and_counts_prose_as_wrong():
    answers = predict(
        (ticket("a", "high"), ticket("a")), ("It is a.", ticket("a")), (ticket("b"), ticket("a"))
    )
    assert only(answers, "accuracy", field="category").value == pytest.approx(1 / 3)


def test_field_accuracy_is_the_share_of_fields_and_an_answer_that_is_no_json_has_none():
    answers = predict(
        (ticket("a", "low"), ticket("a", "low")),
        (ticket("a", "high"), ticket("a", "low")),
        ("Sure! " + ticket("a", "low"), ticket("a", "low")),
        ('{"category": "a", "priority": "low", "extra": 1}', ticket("a", "low")),
    )
    assert only(answers, "field-accuracy").value == pytest.approx((2 + 1 + 0 + 2) / 8)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ('{"n": 1.0}', 1.0),
        ('{"n": true}', 0.0),
        ('{"n": "1"}', 0.0),
        ('{"n": 1, "n": 1}', 0.0),
        ('{"n": 1} {"n": 1}', 0.0),
        ('[{"n": 1}]', 0.0),
        ('{"n": 1, "m": NaN}', 0.0),
        ("[" * 100_000, 0.0),
        ('{"n": ' + "[" * 900 + "]" * 900 + "}", 0.0),
        ("9" * 10_000, 0.0),
        ("", 0.0),
    ],
)
def test_a_field_is_right_only_as_strict_json_of_the_same_type(answer, right):
    assert only(predict((answer, '{"n": 1}')), "field-accuracy").value == right


def test_precision_recall_and_f1_are_the_macro_means_worked_out_by_hand():
    # reference a a a b b c, answers a a b b a zzz
    pairs = [("a", "a"), ("a", "a"), ("b", "a"), ("b", "b"), ("a", "b"), ("zzz", "c")]
    found = score(predict(*pairs), ["precision", "recall", "f1"])
    assert found["precision"].value == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found["recall"].value == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found["f1"].value == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    lopsided = score(predict(("a", "a"), ("a", "b"), ("a", "b"), ("b", "b")), ["precision", "recall", "f1"])
    assert lopsided["precision"].value == pytest.approx((1 / 3 + 1) / 2)
    assert lopsided["recall"].value == pytest.approx((1 + 1 / 3) / 2)
    assert lopsided["f1"].value == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_macro_scores_of_json_answers_are_the_mean_over_their_fields_or_the_one_that_is_named():
    answers = predict((ticket("a", "low"), ticket("a", "low")), (ticket("a", "high"), ticket("b", "high")))
    category = (1 + 0) / 2
    assert only(answers, "recall", field="category").value == category
    assert only(answers, "recall", field="priority").value == 1.0
    assert only(answers, "recall").value == (category + 1.0) / 2


def test_a_class_that_a_resample_happens_to_miss_is_not_held_against_the_model():
    found = score(predict(*[(label, label) for label in "abcdefgh"]), ["precision", "recall", "f1"])
    assert {(value.value, value.low, value.high) for value in found.values()} == {(1.0, 1.0, 1.0)}


def test_babble_lowers_recall_but_adds_no_classes():
    quiet = predict(("a", "a"), ("", "a"), ("b", "b"))
    loud = predict(("a", "a"), ("the answer is 42", "a"), ("b", "b"))
    assert only(quiet, "f1") == only(loud, "f1")


def test_perplexity_is_the_exponential_of_the_mean_over_all_tokens_not_over_rows():
    rows = [Prediction(0, "q", "r", "a", nll=2.0, tokens=1), Prediction(1, "q", "r", "a", nll=6.0, tokens=9)]
    found = only(rows, "perplexity")
    assert found.value == pytest.approx(math.exp(8 / 10))
    assert not found.higher_is_better


@pytest.mark.parametrize("nll", [None, math.nan, math.inf])
def test_perplexity_is_missing_and_names_the_row_when_one_likelihood_is(nll):
    rows = [Prediction(0, "q", "r", "a", nll=2.0, tokens=1), Prediction(7, "q", "r", "a", nll=nll, tokens=1)]
    found = only(rows, "perplexity")
    assert (found.value, found.low, found.high, found.n) == (None, None, None, 0)
    assert "row 7" in found.why_missing


def test_a_perplexity_beyond_any_number_is_missing():
    assert only([Prediction(0, "q", "r", "a", nll=1e6, tokens=1)], "perplexity").value is None


def test_without_predictions_every_score_is_missing_and_none_is_zero():
    for name, found in score([], list(METRICS)).items():
        assert found.value is None, name
        assert found.why_missing == "there are no predictions"


def test_fields_of_a_reference_that_has_none_are_missing_with_the_row_and_a_way_out():
    found = only(predict((ticket("a"), ticket("a")), ("x", "prose")), "field-accuracy")
    assert found.value is None
    assert "row 1" in found.why_missing
    assert "exact-match" in found.why_missing
    assert only(predict(("{}", ticket("a"))), "f1", field="nothing").value is None


def test_one_missing_metric_leaves_the_others_as_they_are():
    answers = predict(("a", "a"), ("b", "c"))
    together = score(answers, ["perplexity", "exact-match"])
    assert together["perplexity"].value is None
    assert together["exact-match"] == only(answers, "exact-match")


def test_an_unknown_metric_is_refused_with_the_known_ones_and_the_closest():
    with pytest.raises(UnknownMetric, match=r"'rogue-l' \(did you mean 'rouge-l'\?\).*exact-match"):
        score([], ["exact-match", "rogue-l"])
    with pytest.raises(UnknownMetric):
        compare([], [], "best")


def test_the_options_that_a_user_may_write_are_those_that_the_metrics_have():
    there = {(option, name) for name, metric in METRICS.items() for option in metric.options}
    assert there == {(option, metric.value) for option, metrics in OPTIONS_OF.items() for metric in metrics}
    assert set(OPTIONS_OF) == set(MetricOptions.model_fields)


def test_an_unknown_option_is_refused_with_the_known_ones():
    answers = predict(("a", "a"))
    with pytest.raises(UnknownOption, match="f1: unknown option 'fields'.*did you mean 'field'"):
        score(answers, ["f1"], options={"f1": {"fields": "category"}})
    with pytest.raises(UnknownOption, match="bleu: unknown value of tokenizer 'zn'.*known are.*zh"):
        score(answers, ["bleu"], options={"bleu": {"tokenizer": "zn"}})
    with pytest.raises(UnknownMetric, match="'f2'"):
        score(answers, ["f1"], options={"f2": {"field": "category"}})


def test_an_interval_over_shares_is_the_one_that_the_binomial_gives():
    answers = predict(*[("a", "a")] * 50, *[("b", "a")] * 50)
    found = only(answers, "exact-match")
    half = 1.96 * math.sqrt(0.25 / 100)
    assert found.low == pytest.approx(0.5 - half, abs=0.015)
    assert found.high == pytest.approx(0.5 + half, abs=0.015)


@pytest.mark.slow
def test_ninety_five_percent_intervals_hold_the_truth_about_95_times_in_100():
    world = np.random.default_rng(5)
    held = 0
    for _ in range(300):
        right = world.random(80) < 0.7
        found = only(predict(*[("a" if hit else "b", "a") for hit in right]), "exact-match")
        held += found.low <= 0.7 <= found.high
    assert 0.90 <= held / 300 <= 0.98


def test_the_same_seed_gives_the_same_interval_and_another_seed_does_not():
    answers = predict(*[("a", "a")] * 7, *[("b", "a")] * 6)
    assert score(answers, ["exact-match"], seed=3) == score(answers, ["exact-match"], seed=3)
    assert score(answers, ["exact-match"], seed=3) != score(answers, ["exact-match"], seed=4)


def test_one_row_has_a_value_but_no_interval():
    found = only(predict(("a", "a")), "exact-match")
    assert (found.value, found.low, found.high) == (1.0, None, None)


def test_ten_thousand_rows_are_resampled():
    answers = predict(*[("a", "a"), ("b", "a")] * 5_000)
    assert only(answers, "exact-match").value == 0.5


def test_two_models_that_differ_on_hard_rows_only_are_told_apart_although_their_intervals_overlap():
    better = predict(*[("a" if row % 2 or row < 12 else "b", "a") for row in range(80)])
    worse = predict(*[("a" if row % 2 else "b", "a") for row in range(80)])
    high, low = only(better, "exact-match"), only(worse, "exact-match")
    assert low.high > high.low
    found = compare(better, worse, "exact-match")
    assert found.value == pytest.approx(6 / 80)
    assert found.distinguishable
    assert 0 < found.low < found.value < found.high


def test_two_models_that_trade_rows_are_not_told_apart():
    one = predict(*[("a" if row < 42 else "b", "a") for row in range(80)])
    other = predict(*[("a" if row >= 40 else "b", "a") for row in range(80)])
    found = compare(one, other, "exact-match")
    assert found.value == pytest.approx(2 / 80)
    assert not found.distinguishable
    assert found.low < 0 < found.high


def test_models_measured_on_other_data_are_not_compared():
    one = predict(("a", "a"), ("b", "b"))
    for other in (predict(("a", "a")), predict(("a", "a"), ("b", "c")), [*one, one[0]]):
        found = compare(one, other, "exact-match")
        assert found.value is None
        assert not found.distinguishable
        assert found.why_missing
    assert compare(one, one[::-1], "exact-match").value == 0.0
    assert compare(one[::-1], one, "exact-match").value == 0.0


def test_a_comparison_with_a_missing_score_is_missing():
    measured = predict(("a", "a"), ("b", "b"), nll=1.0, tokens=2)
    assert compare(measured, predict(("a", "a"), ("b", "b")), "perplexity").value is None
    same = compare(measured, measured, "perplexity")
    assert (same.value, same.low, same.high, same.distinguishable) == (0.0, 0.0, 0.0, False)


WORDS = st.text(st.sampled_from('ab 我喜{}":,é!'), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=8))
def test_whatever_is_answered_every_score_lies_in_its_range_within_its_interval(pairs):
    for name, found in score(predict(*pairs, nll=1.5, tokens=3), list(METRICS)).items():
        if found.value is None:
            assert found.why_missing
            continue
        top = {"bleu": 100.0, "perplexity": math.inf}.get(name, 1.0)
        assert -1e-9 <= found.value <= top + 1e-9, name
        if found.low is not None:
            assert found.low <= found.high


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=6))
def test_answers_equal_to_their_references_are_perfect_wherever_a_score_exists(texts):
    for name, found in score(predict(*[(text, text) for text in texts]), list(METRICS)).items():
        if name != "perplexity" and found.value is not None:
            assert found.value == pytest.approx(100.0 if name == "bleu" else 1.0), name


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=2, max_size=6), st.randoms())
def test_the_order_of_rows_changes_no_value(pairs, random):
    rows = predict(*pairs)
    shuffled = rows[:]
    random.shuffle(shuffled)
    names = [name for name in METRICS if name != "perplexity"]
    for name, found in score(rows, names).items():
        other = score(shuffled, [name])[name]
        assert (found.value is None) == (other.value is None)
        if found.value is not None:
            assert found.value == pytest.approx(other.value)
