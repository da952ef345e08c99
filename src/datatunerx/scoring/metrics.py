"""The built-in metrics: each turns predictions into sums over rows; `METRICS` names them all.

A metric never raises over what a model answered; a bad answer is a wrong answer.
What the rows cannot support (no reference, no likelihood) raises `Unmeasurable` and becomes a missing score.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from datatunerx.resources.enums import BleuTokenizer, ChineseUnit
from datatunerx.runs.answers import parse_object
from datatunerx.scoring import labels, text
from datatunerx.scoring.errors import Unmeasurable
from datatunerx.scoring.predictions import Prediction
from datatunerx.scoring.statistics import Array, Statistics, divide, ratio

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """One way to score; `options` are what its caller may set, with the allowed values (empty: any)."""

    description: str
    unit: str
    measure: Callable[[Sequence[Prediction], Options], Statistics]
    higher_is_better: bool = True
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def exact_match(predictions: Sequence[Prediction], options: Options) -> Statistics:
    return _share([p.answer.strip() == p.reference.strip() for p in predictions])


def accuracy(predictions: Sequence[Prediction], options: Options) -> Statistics:
    name = options.get("field")
    return _share([labels.label_of(p.answer, name) == _reference_label(p, name) for p in predictions])


def field_accuracy(predictions: Sequence[Prediction], options: Options) -> Statistics:
    """Rows of (fields right, fields of the reference); an answer that is no JSON object has none right."""
    rows = []
    for prediction in predictions:
        reference = _reference_object(prediction)
        answer = parse_object(prediction.answer) or {}
        right = sum(
            name in answer and labels.same_value(answer[name], value) for name, value in reference.items()
        )
        rows.append((right, len(reference)))
    return Statistics(np.array(rows, dtype=np.float64), ratio, len(rows))


def precision(predictions: Sequence[Prediction], options: Options) -> Statistics:
    return _per_class(predictions, options, lambda hit, said, due: divide(hit, said, 0.0))


def recall(predictions: Sequence[Prediction], options: Options) -> Statistics:
    return _per_class(predictions, options, lambda hit, said, due: divide(hit, due, 0.0))


def f1(predictions: Sequence[Prediction], options: Options) -> Statistics:
    return _per_class(predictions, options, lambda hit, said, due: divide(2 * hit, said + due, 0.0))


def perplexity(predictions: Sequence[Prediction], options: Options) -> Statistics:
    rows = []
    for prediction in predictions:
        if prediction.nll is None or prediction.tokens is None:
            raise Unmeasurable(f"row {prediction.row} has no likelihood of its reference")
        if not math.isfinite(prediction.nll):
            raise Unmeasurable(f"row {prediction.row}: the likelihood of its reference is {prediction.nll}")
        rows.append((prediction.nll, prediction.tokens))
    return Statistics(np.array(rows, dtype=np.float64), _exp_ratio, len(rows))


def _exp_ratio(sums_BS: Array) -> Array:
    with np.errstate(over="ignore"):  # beyond what a float holds: infinite, hence missing
        return np.exp(ratio(sums_BS))


def _share(right: Sequence[bool]) -> Statistics:
    rows_NS = np.ones((len(right), 2))
    rows_NS[:, 0] = right
    return Statistics(rows_NS, ratio, len(right))


def _per_class(
    predictions: Sequence[Prediction], options: Options, value: Callable[[Array, Array, Array], Array]
) -> Statistics:
    """Macro mean of a per-class value, over the classes that the references of the drawn rows have.

    An answer outside the references' classes is a miss for its reference, never a class of its own: a model
    that babbles must not be judged by how many different things it says.
    Several JSON fields are averaged field by field.
    Columns: for each class how often it was said and right (C), said (C), due (C).
    """
    columns = _label_columns(predictions, options)
    classes = sorted({(group, due) for group, pairs in enumerate(columns) for due, _ in pairs})
    index = {name: position for position, name in enumerate(classes)}
    groups_C = np.array([group for group, _ in classes])
    width = len(classes)
    rows_NS = np.zeros((len(predictions), 3 * width))
    for group, pairs in enumerate(columns):
        for row, (due, said) in enumerate(pairs):
            rows_NS[row, 2 * width + index[group, due]] += 1
            if said is not None and (group, said) in index:
                rows_NS[row, width + index[group, said]] += 1
                rows_NS[row, index[group, said]] += said == due

    def macro(sums_BS: Array) -> Array:
        hit_BC, said_BC, due_BC = np.split(sums_BS, 3, axis=1)
        value_BC = value(hit_BC, said_BC, due_BC)  # 0 for a class that no drawn row has
        means = []
        for group in range(len(columns)):
            mine = groups_C == group
            present_B = (due_BC[:, mine] > 0).sum(axis=1).astype(np.float64)
            means.append(divide(value_BC[:, mine].sum(axis=1), present_B, np.nan))
        mean_B: Array = np.mean(means, axis=0)
        return mean_B

    return Statistics(rows_NS, macro, len(predictions))


def _label_columns(predictions: Sequence[Prediction], options: Options) -> list[list[tuple[str, str | None]]]:
    """For each field (or the whole text): for each row the label that is due and the one that was said."""
    name = options.get("field")
    if name is None:
        documents = [parse_object(p.reference) for p in predictions]
        names = {key for document in documents if document for key in document}
        if names and all(document and document.keys() == names for document in documents):
            return [_pairs(predictions, key) for key in sorted(names)]
    return [_pairs(predictions, name)]


def _pairs(predictions: Sequence[Prediction], name: str | None) -> list[tuple[str, str | None]]:
    return [(_reference_label(p, name), labels.label_of(p.answer, name)) for p in predictions]


def _reference_label(prediction: Prediction, name: str | None) -> str:
    label = labels.label_of(prediction.reference, name)
    if label is None:
        raise Unmeasurable(f"row {prediction.row}: the reference is not a JSON object with field {name!r}")
    return label


def _reference_object(prediction: Prediction) -> dict[str, Any]:
    document = parse_object(prediction.reference)
    if document is None:
        raise Unmeasurable(
            f"row {prediction.row}: the reference is not a JSON object; use accuracy or exact-match"
        )
    return document


_FIELD: Mapping[str, tuple[str, ...]] = {"field": ()}
_ROUGE: Mapping[str, tuple[str, ...]] = {"chinese": tuple(ChineseUnit)}
_ROUGE_NOTE = "mean over rows; Chinese by characters, or by words if asked"

METRICS: Mapping[str, Metric] = {
    "exact-match": Metric(
        "Answers equal to their reference, but for space around them.", "share", exact_match
    ),
    "accuracy": Metric(
        "Answers with the right label: one JSON field if `field` names it, else the whole answer; "
        "case, repeated spaces, JSON spacing and final punctuation do not matter.",
        "share",
        accuracy,
        options=_FIELD,
    ),
    "field-accuracy": Metric(
        "Fields of the JSON references that the answers have right; "
        "an answer that is not exactly one JSON object has none right.",
        "share",
        field_accuracy,
    ),
    "precision": Metric(
        "How often a label was right when given; macro mean.", "share", precision, options=_FIELD
    ),
    "recall": Metric("How often a label was given when right; macro mean.", "share", recall, options=_FIELD),
    "f1": Metric("Harmonic mean of precision and recall; macro mean.", "share", f1, options=_FIELD),
    "bleu": Metric(
        "Corpus BLEU as sacrebleu computes it; its `zh` tokenizer when the references are Chinese.",
        "points of 100",
        text.bleu,
        options={"tokenizer": tuple(BleuTokenizer)},
    ),
    "rouge-1": Metric(f"F-measure of shared words; {_ROUGE_NOTE}.", "share", text.rouge_1, options=_ROUGE),
    "rouge-2": Metric(
        f"F-measure of shared word pairs; {_ROUGE_NOTE}.", "share", text.rouge_2, options=_ROUGE
    ),
    "rouge-l": Metric(
        f"F-measure of the longest common subsequence; {_ROUGE_NOTE}.", "share", text.rouge_l, options=_ROUGE
    ),
    "perplexity": Metric(
        "How surprised the model is by a token of the references; missing if any row lacks a likelihood.",
        "per token",
        perplexity,
        higher_is_better=False,
    ),
}
