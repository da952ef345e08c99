"""Objects as people write them: YAML 1.2 numbers, many documents in one text, bounded. Reads no file."""

import math
import re
from collections.abc import Hashable, Iterator
from typing import Any

import yaml

MAX_NODES = 200_000
"""Of one document with its aliases followed: a few lines of aliases can unfold into gigabytes."""
MAX_DEPTH = 100

Json = dict[str, Any]


class NotReadable(ValueError):
    """The text is not YAML, or holds no objects; `line` is where, None if it is all of it."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


class _Loader(yaml.SafeLoader):
    """Safe, with YAML 1.2's idea of numbers: `2e-4` is one, `yes` and `12:30` are text."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str" and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"a key must be text, found {key.value!r}; put it in quotes", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_WORDS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    "merge": (r"<<", ["<"]),
}
for _name, (_pattern, _first) in _WORDS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), _first)


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    for prefix, base in (("0o", 8), ("0x", 16)):
        if text.startswith(prefix):
            return int(text, base)
    if len(text) > 40:  # more digits than any field takes
        raise yaml.constructor.ConstructorError(
            None, None, f"a number of {len(text)} digits", node.start_mark
        )
    return int(text, 10)  # in YAML 1.2, 010 is ten


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)).replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def read(text: str) -> list[Json]:
    """Every object in the text, in order; the items of a List one by one. Raises NotReadable."""
    try:
        bodies = list(yaml.load_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise NotReadable(f"not YAML: {error.problem or error.context}", line) from None
    except (yaml.YAMLError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise NotReadable(f"not YAML: {what}") from None
    return [found for body in bodies for found in _objects(body)]


def _objects(body: Any) -> Iterator[Json]:
    if body is None:
        return  # an empty document, as after a closing ---
    if not isinstance(body, dict):
        raise NotReadable(f"expected an object with apiVersion, kind and metadata, found {_shown(body)}")
    _bounded(body)
    if body.get("kind") == "List" and isinstance(body.get("items"), list):
        for item in body["items"]:
            yield from _objects(item)
        return
    yield body


def _bounded(body: Any) -> None:
    """Refuse what is huge once its aliases are followed, endless, or not finite."""
    left = MAX_NODES
    stack: list[tuple[Any, int]] = [(body, 0)]
    while stack:
        node, depth = stack.pop()
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise NotReadable("too large or too deeply nested once its aliases are followed")
        if isinstance(node, float) and not math.isfinite(node):
            raise NotReadable(f"{node} is not a finite number")
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        stack.extend((child, depth + 1) for child in children)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def scalar(text: str) -> Any:
    """One value as YAML reads it: 8 is a number, true a boolean, cosine text."""
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, str | int | float | bool) else text
