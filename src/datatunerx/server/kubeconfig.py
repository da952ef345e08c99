"""The kubeconfig that lets kubectl and every client library in."""

import base64
import json
from pathlib import Path

from datatunerx.server.files import write_private

NAME = "datatunerx"


def write(path: Path, *, server: str, ca: bytes, token: str, namespace: str = "default") -> None:
    """Replace the file atomically, mode 0600. JSON is YAML, and needs no YAML library to write."""
    authority = base64.b64encode(ca).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": NAME, "user": {"token": token}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": namespace}}],
        "current-context": NAME,
    }
    write_private(path, json.dumps(config, indent=2).encode() + b"\n")
