"""Manifests from files, folders and standard input: many documents a file, bounded."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatunerx.cli.errors import BadInput
from datatunerx.client.manifests import NotReadable, read, scalar

MAX_BYTES = 8 << 20
"""Of one file. The server takes 3 MiB an object."""
SUFFIXES = (".yaml", ".yml", ".json")

Json = dict[str, Any]

__all__ = ["Document", "Json", "given", "load", "parse", "scalar"]


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
        metadata = self.body.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        return f"{self.place}: {self.body.get('kind', 'object')}/{name or '?'}"


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
        return [Document(place, folder, body) for body in read(text)]
    except NotReadable as error:
        line = f":{error.line}" if error.line else ""
        raise BadInput(f"{place}{line}: {error}") from None


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


def given(files: Sequence[str] | None) -> Sequence[str]:
    """The files of -f; BadInput when there are none."""
    if not files:
        raise BadInput("-f FILE is missing; name a manifest, a folder of them, or - for standard input")
    return files
