"""The kubeconfig that lets kubectl and every client library in."""

import base64
import json
from pathlib import Path

from datatunerx.server.files import write_private

NAME = "datatunerx"


def write(path: Path, *, server: str, ca: bytes | None, token: str, tls_name: str | None = None) -> None:
    """Replace the file atomically, mode 0600; as `text`."""
    write_private(path, text(server, ca, token, tls_name=tls_name).encode())


def text(
    server: str, ca: bytes | None, token: str, *, namespace: str = "default", tls_name: str | None = None
) -> str:
    """A kubeconfig. JSON is YAML, and needs no YAML library to write.

    `ca` None leaves it to the system whom to trust; `tls_name` is what the certificate is for, when the
    server is reached by another name.
    """
    cluster = {"server": server}
    if ca is not None:
        cluster["certificate-authority-data"] = base64.b64encode(ca).decode()
    if tls_name is not None:
        cluster["tls-server-name"] = tls_name
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": cluster}],
        "users": [{"name": NAME, "user": {"token": token}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": namespace}}],
        "current-context": NAME,
    }
    return json.dumps(config, indent=2) + "\n"
