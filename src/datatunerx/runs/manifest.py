"""A checkpoint's manifest as a reader needs it: which files it has, how large, and what names them all."""

import hashlib
import json
from dataclasses import dataclass

MANIFEST = "manifest.json"
"""Written last, into the checkpoint's folder."""


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
