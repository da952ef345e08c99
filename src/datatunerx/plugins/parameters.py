"""Parameters against a plugin's JSON Schema: which one is wrong, what it is and what it must be."""

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

MOST = 5
"""Problems that are told at a time."""


def schema_problem(schema: Mapping[str, Any]) -> str | None:
    """Why this is no JSON Schema; None if it is one. Nothing outside it is fetched."""
    try:
        _validator(schema)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        return f"not a JSON Schema: {_line(error)}"
    return None


def parameter_problem(schema: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
    """Which parameters the schema does not take, by path; None if it takes all. The schema must be one."""
    found = []
    for error in _validator(schema).iter_errors(dict(given)):
        path = ".".join(["parameters", *map(str, error.instance_path)])
        found.append(f"{path}: {_line(error)}")
    if not found:
        return None
    more = f"; and {len(found) - MOST} more" if len(found) > MOST else ""
    return "; ".join(found[:MOST]) + more


def _validator(schema: Mapping[str, Any]) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(dict(schema), retriever=_refuse)


def _refuse(uri: str) -> Any:
    raise ValueError(f"a parameter schema may not refer to {uri}")


def _line(error: Exception) -> str:
    message = getattr(error, "message", None) or str(error)
    return " ".join(message.split())
