"""What a JSON answer or reference is, and whether a reference is one that a metric can be held against."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from datatunerx.resources.enums import Metric
from datatunerx.resources.finetune import OPTIONS_OF, MetricOptions


def parse_object(text: str) -> dict[str, Any] | None:
    """The JSON object that `text` is, or None if it is anything else.

    Strict: only white space around it, no NaN or Infinity, no key twice.
    """
    try:
        document = json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
        canonical(document)  # nesting that parses can still be too deep to compare
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def canonical(value: Any) -> str:
    """One text for one JSON value, whatever its spacing, key order or way to write a number."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=True)


def unfit(
    reference: str, metrics: Iterable[Metric], options: Mapping[Metric, MetricOptions]
) -> dict[Metric, str]:
    """The metrics that the reference leaves without a value, and why: one such row is enough."""
    document = parse_object(reference)
    found: dict[Metric, str] = {}
    for metric in metrics:
        given = options.get(metric)
        field = given.field if given and metric in OPTIONS_OF["field"] else None
        if metric is Metric.FIELD_ACCURACY and document is None:
            found[metric] = f"{metric} needs a JSON object as reference; or use accuracy or exact-match"
        elif field is not None and field not in (document or {}):
            found[metric] = f"{metric} needs a JSON object with the field {field!r} as reference"
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key appears twice")
    return document
