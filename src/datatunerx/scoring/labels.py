"""Answers as labels and as JSON fields: what classification metrics compare."""

from collections.abc import Mapping
from typing import Any

from datatunerx.runs.answers import canonical, parse_object

_WRAPPING = " \t\r\n\"'`.,;:!。，；：！、"


def same_value(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal as JSON: 1 is 1.0, but true is not 1."""
    return canonical(left) == canonical(right)


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
