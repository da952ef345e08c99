"""Manifests from files, folders and standard input: YAML 1.2 numbers, many documents a file, bounded."""

import math
import re
import sys
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from datatunerx.cli.errors import BadInput

MAX_BYTES = 8 << 20
"""Of one file. The server takes 3 MiB an object."""
MAX_NODES = 200_000
"""Of one document with its aliases followed: a few lines of aliases can unfold into gigabytes."""
MAX_DEPTH = 100
SUFFIXES = (".yaml", ".yml", ".json")

Json = dict[str, Any]


@dataclass(frozen=True)
class Document:
    """One object as written, and where."""

    place: str
    """The file, as the user named it."""
    folder: Path | None
    """Where relative paths in it start; standard input lies nowhere."""
    body: Json

    @property
    def title(self) -> str:
        """file: Kind/name, the head of every error about it."""
        name = (self.body.get("metadata") or {}).get("name") if _is_map(self.body.get("metadata")) else None
        return f"{self.place}: {self.body.get('kind', 'object')}/{name or '?'}"


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


def load(paths: Sequence[str]) -> list[Document]:
    """Every object in the files, the folders (not below them) and, for `-`, standard input, in order.

    Raises BadInput naming file and line for what is not YAML or not an object.
    """
    found = [document for path in paths for document in _load_one(path)]
    if not found:
        raise BadInput(f"no objects in {', '.join(paths)}; a manifest has apiVersion, kind and metadata.name")
    return found


def parse(text: str, place: str, folder: Path | None) -> list[Document]:
    """The documents of one text."""
    try:
        bodies = list(yaml.load_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise BadInput(f"{place}{line}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise BadInput(f"{place}: not YAML: {what}") from None
    return [document for body in bodies for document in _documents(body, place, folder)]


def _load_one(path: str) -> Iterator[Document]:
    if path == "-":
        yield from parse(sys.stdin.read(MAX_BYTES + 1), "standard input", None)
        return
    here = Path(path).expanduser()
    if here.is_dir():
        files = sorted(f for f in here.iterdir() if f.suffix in SUFFIXES and f.is_file())
        if not files:
            raise BadInput(f"{path}: no .yaml, .yml or .json file in this folder")
        for inside in files:
            yield from _load_one(str(inside))
        return
    try:
        with here.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise BadInput(f"{path}: larger than {MAX_BYTES >> 20} MiB; is this data, and not a manifest?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadInput(f"{path}:{line}: not UTF-8; save the file as UTF-8") from None
    yield from parse(text, path, here.resolve().parent)


def _documents(body: Any, place: str, folder: Path | None) -> Iterator[Document]:
    if body is None:
        return  # an empty document, as after a closing ---
    if not _is_map(body):
        raise BadInput(
            f"{place}: expected an object with apiVersion, kind and metadata, found {_shown(body)}"
        )
    _bounded(body, place)
    if body.get("kind") == "List" and isinstance(body.get("items"), list):
        for item in body["items"]:
            yield from _documents(item, place, folder)
        return
    yield Document(place, folder, body)


def _bounded(body: Any, place: str) -> None:
    """Refuse what is huge once its aliases are followed, endless, or not finite."""
    left = MAX_NODES
    stack: list[tuple[Any, int]] = [(body, 0)]
    while stack:
        node, depth = stack.pop()
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise BadInput(f"{place}: too large or too deeply nested once its aliases are followed")
        if isinstance(node, float) and not math.isfinite(node):
            raise BadInput(f"{place}: {node} is not a finite number")
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        stack.extend((child, depth + 1) for child in children)


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def given(files: Sequence[str] | None) -> Sequence[str]:
    """The files of -f; BadInput when there are none."""
    if not files:
        raise BadInput("-f FILE is missing; name a manifest, a folder of them, or - for standard input")
    return files


def scalar(text: str) -> Any:
    """One value as YAML reads it: 8 is a number, true a boolean, cosine text."""
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, str | int | float | bool) else text
