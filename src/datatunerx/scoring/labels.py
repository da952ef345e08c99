"""Answers as labels and as JSON fields: what classification metrics compare."""

import json
from collections.abc import Mapping
from typing import Any

_WRAPPING = " \t\r\n\"'`.,;:!。，；：！、"


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


def same_value(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal as JSON: 1 is 1.0, but true is not 1."""
    return canonical(left) == canonical(right)


def canonical(value: Any) -> str:
    """One text for one JSON value, whatever its spacing, key order or way to write a number."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=True)


def normal_label(text: str) -> str:
    """A label without what does not matter to it: case, repeated spaces, quotes and final punctuation."""
    return " ".join((text.strip(_WRAPPING) or text).casefold().split())


def label_of(text: str, field: str | None) -> str | None:
    """The label an answer gives: its JSON field `field`, or the whole text; None without such a field."""
    document = parse_object(text)
    if field is None:
        return normal_label(text) if document is None else canonical(document)
    return None if document is None else field_label(document, field)


def field_label(document: Mapping[str, Any], field: str) -> str | None:
    if field not in document:
        return None
    value = document[field]
    return normal_label(value) if isinstance(value, str) else canonical(value)


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
