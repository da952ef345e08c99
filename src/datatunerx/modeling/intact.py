"""Whether a model's files are still those that were inspected: by size and time, by content where in doubt.

A folder of safetensors is used where it lies, so anybody may edit it after its inspection.
"""

import contextlib
import hashlib
import json
from pathlib import Path

from datatunerx import storage

MANIFEST = "manifest.json"
MARKS = "marks"
"""Folder in the model store: one file per inspected folder and digest."""
_PARTS = ("*.safetensors", "*.json", "*.model", "*.jinja", "*.txt")

Marks = dict[str, list[int]]
"""File -> its bytes and its time of change in nanoseconds."""


class ModelChanged(ValueError):
    """The model's files are not those whose digest was recorded."""


def parts(folder: Path) -> list[Path]:
    """The files that make the model."""
    return sorted({p for part in _PARTS for p in folder.glob(part) if p.name != MANIFEST})


def digest(folder: Path) -> str:
    """SHA-256 over the digests of the files."""
    lines = (f"{path.name} {storage.sha256_of(path)}\n" for path in parts(folder))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def marks(folder: Path) -> Marks:
    return {path.name: [seen.st_size, seen.st_mtime_ns] for path in parts(folder) if (seen := path.stat())}


def remember(folder: Path, wanted: str, seen: Marks, store: Path) -> None:
    """Note how the files looked, before they were read, when they had the digest `wanted`."""
    storage.write_atomic(str(_place(folder, wanted, store)), json.dumps(seen, indent=1).encode())


def must_be(folder: Path, wanted: str, store: Path, name: str) -> None:
    """Raise `ModelChanged`, naming the files, unless the folder of the LLM `name` has the digest `wanted`."""
    seen, known = marks(folder), _known(_place(folder, wanted, store))
    if seen == known:
        return
    if digest(folder) == wanted:
        with contextlib.suppress(OSError):  # only a shortcut for the next time
            remember(folder, wanted, seen, store)
        return
    differ = sorted(file for file in {*seen, *known} if seen.get(file) != known.get(file)) if known else []
    files = f"{', '.join(differ[:20])} in {folder}" if differ else f"files in {folder}"
    raise ModelChanged(
        f"{files} changed since LLM {name} was inspected; put them back, or have it inspected again "
        f"(kubectl annotate llm {name} datatunerx.io/retry=$(date +%s) --overwrite) and train anew"
    )


def _place(folder: Path, wanted: str, store: Path) -> Path:
    where = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()
    return store / MARKS / f"{wanted[:32]}-{where[:16]}.json"


def _known(path: Path) -> Marks:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
