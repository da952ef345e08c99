"""Files as an OCI image layout: blobs named by their digests, a manifest of them, and an index that names it.

A registry is given the same manifest, so what lies in a folder and what was pushed have one digest.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datatunerx.storage.objects import sha256_of

ARTIFACT = "application/vnd.datatunerx.checkpoint.v1+json"
LAYER = "application/octet-stream"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
TITLE, TAG = "org.opencontainers.image.title", "org.opencontainers.image.ref.name"
LATEST = "latest"
"""What the one manifest of a layout is called."""


def lay_out(folder: Path, files: Sequence[Path], config: Path) -> str:
    """Turn the files, all of `folder`, into the blobs of a layout in it; the digest of its manifest.

    `config` is the one of them that says what they are. Nothing is copied: they are renamed.
    """
    blobs = folder / "blobs" / "sha256"
    layers = [
        _described(LAYER, sha256_of(path), path.stat().st_size) | {"annotations": {TITLE: path.name}}
        for path in files
    ]
    about = next(layer for layer, path in zip(layers, files, strict=True) if path == config)
    kind = about | {"mediaType": ARTIFACT}
    del kind["annotations"]
    blobs.mkdir(parents=True)
    for layer, path in zip(layers, files, strict=True):
        path.rename(blob(folder, layer["digest"]))
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": kind, "layers": layers}
    manifest = _json(document)
    digest = hashlib.sha256(manifest).hexdigest()
    (blobs / digest).write_bytes(manifest)
    entry = _described(MANIFEST, digest, len(manifest)) | {"annotations": {TAG: LATEST}}
    (folder / "index.json").write_bytes(_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}))
    (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    return f"sha256:{digest}"


def manifest_of(folder: Path) -> bytes:
    """The manifest of the one artifact in a layout that `lay_out` made."""
    (entry,) = json.loads((folder / "index.json").read_bytes())["manifests"]
    return blob(folder, entry["digest"]).read_bytes()


def blob(folder: Path, digest: str) -> Path:
    """The file of a digest, `sha256:...`."""
    return folder / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _described(type: str, sha256: str, size: int) -> dict[str, Any]:
    return {"mediaType": type, "digest": f"sha256:{sha256}", "size": size}


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
