"""A checkpoint as both planes know it: its manifest (which files, how large, what names them), its pin."""

import hashlib
import json
from dataclasses import dataclass

MANIFEST = "manifest.json"
"""Written last, into the checkpoint's folder."""
PINNED = "pinned"
"""A file of this name in a checkpoint keeps it from retention; it holds the uids of the objects that pin.

It is not part of the manifest.
"""


@dataclass(frozen=True)
class Manifest:
    digest: str
    """SHA-256 of the manifest's own bytes."""
    sizes: dict[str, int]
    """File -> bytes."""


def parse(content: bytes) -> Manifest | None:
    """What the bytes say; None if they are no manifest."""
    try:
        sizes = {str(name): int(entry["bytes"]) for name, entry in json.loads(content)["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return Manifest(hashlib.sha256(content).hexdigest(), sizes)
