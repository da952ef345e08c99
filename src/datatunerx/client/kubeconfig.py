"""Where the API is and how to prove who asks, read from a kubeconfig or from inside a cluster's pod."""

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from datatunerx.client.exec_plugin import ExecPlugin

IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_IMPERSONATION = ("as", "as-uid", "as-groups", "as-user-extra")
_IMPERSONATION = ("as", "as-uid", "as-groups", "as-user-extra")
_PROOFS = ("exec", "token", "tokenFile", "client-certificate", "client-certificate-data")


class KubeconfigError(Exception):
    """The file is not there, or lacks what its current context needs; the message names the field."""


@dataclass(frozen=True)
class Access:
    """Everything a transport needs. Certificates are PEM; the token is read again when a file holds it."""

    server: str
    namespace: str = "default"
    ca: bytes | None = None
    token: str | None = None
    token_file: Path | None = None
    client_certificate: bytes | None = None
    client_key: bytes | None = None
    verify: bool = True
    tls_name: str | None = None
    """What the certificate is for, when the server is reached by another name."""

    plugin: ExecPlugin | None = None

    def bearer(self) -> str | None:
        """The token as it is now: a cluster rotates the file. Blocks. Raises ExecPluginError."""
        if self.plugin:
            return self.plugin.token()
        return self.token_file.read_text().strip() if self.token_file else self.token


def load(path: Path, context: str | None = None) -> Access:
    """The access of `context`, or of the file's current one. Raises KubeconfigError."""
    try:
        document = yaml.safe_load(path.read_bytes())
    except FileNotFoundError:
        raise KubeconfigError(f"{path}: no such file; `dtx up` writes one, or give --kubeconfig") from None
    except yaml.YAMLError as error:
        raise KubeconfigError(f"{path}: not YAML: {error}") from None
    if not isinstance(document, dict):
        raise KubeconfigError(f"{path}: not a kubeconfig")
    name = context or document.get("current-context")
    if not name:
        raise KubeconfigError(f"{path}: current-context is empty; set it or name a context")
    chosen = _named(document, "contexts", name, "context", path)
    cluster = _named(document, "clusters", chosen.get("cluster", ""), "cluster", path)
    user = _named(document, "users", chosen["user"], "user", path) if chosen.get("user") else {}
    if not cluster.get("server"):
        raise KubeconfigError(f"{path}: cluster {chosen['cluster']!r} has no server")
    token_file = user.get("tokenFile")
    _refuse_unsupported(cluster, user, path)
    return Access(
        server=str(cluster["server"]).rstrip("/"),
        namespace=chosen.get("namespace") or "default",
        ca=_material(cluster, "certificate-authority", path),
        token=user.get("token"),
        token_file=path.parent / token_file if token_file else None,
        client_certificate=_material(user, "client-certificate", path),
        client_key=_material(user, "client-key", path),
        verify=not cluster.get("insecure-skip-tls-verify", False),
        tls_name=cluster.get("tls-server-name"),
        plugin=ExecPlugin(user["exec"], path.parent) if user.get("exec") and not _has_token(user) else None,
    )


def _has_token(user: Mapping[str, Any]) -> bool:
    return bool(user.get("token") or user.get("tokenFile"))


def _refuse_unsupported(cluster: Mapping[str, Any], user: Mapping[str, Any], path: Path) -> None:
    """What would change who asks, or by which way, must not be passed over."""
    found = ["the cluster's proxy-url"] if cluster.get("proxy-url") else []
    proven = any(user.get(name) for name in _PROOFS)
    names = [*_IMPERSONATION, *(() if proven else ("auth-provider", "username"))]
    found += [f"the user's {name}" for name in names if user.get(name)]
    if found:
        fix = "use a user with a token, a token file, a certificate or an exec plugin"
        raise KubeconfigError(f"{path}: not supported: {', '.join(found)}; {fix}")
    if user.get("exec") and not user["exec"].get("command"):
        raise KubeconfigError(f"{path}: the user's exec has no command")


def in_cluster(folder: Path = IN_CLUSTER, environment: Mapping[str, str] = os.environ) -> Access | None:
    """The access of the pod we run in; None when we run in none."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (folder / "token").exists():
        return None
    shown = f"[{host}]" if ":" in host else host
    namespace = (folder / "namespace").read_text().strip() if (folder / "namespace").exists() else "default"
    return Access(
        server=f"https://{shown}:{port}",
        namespace=namespace,
        ca=(folder / "ca.crt").read_bytes(),
        token_file=folder / "token",
    )


def _named(document: Mapping[str, Any], section: str, name: str, inner: str, path: Path) -> dict[str, Any]:
    for entry in document.get(section) or []:
        if entry.get("name") == name:
            return dict(entry.get(inner) or {})
    raise KubeconfigError(f"{path}: {section} has no {name!r}")


def _material(section: Mapping[str, Any], field: str, path: Path) -> bytes | None:
    if data := section.get(f"{field}-data"):
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error:
            raise KubeconfigError(f"{path}: {field}-data is not base64") from None
    if file := section.get(field):
        try:
            return (path.parent / str(file)).read_bytes()
        except OSError as error:
            raise KubeconfigError(f"{path}: {field}: {error}") from None
    return None
