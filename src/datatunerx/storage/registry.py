"""Files put into an OCI registry as one artifact: `oci://registry[:port]/repository[:tag]`.

The manifest comes last, so a push that breaks off leaves nothing that can be pulled.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from datatunerx.storage.errors import Forbidden, Refused, StorageError, Unreachable
from datatunerx.storage.layout import MANIFEST, blob, manifest_of
from datatunerx.storage.remote import Credentials

SCHEME = "oci://"
CHUNK_BYTES = 16 << 20
SECONDS = 30
_TARGET = re.compile(
    r"oci://([a-z0-9.\-]+(?::\d{1,5})?)/([a-z0-9]+(?:[._/-]+[a-z0-9]+)*)(?::(\w[\w.-]{0,127}))?"
)


class TargetExists(StorageError):
    """Something is at the target already; nothing is overwritten."""


def parse_target(uri: str) -> tuple[str, str, str]:
    """(registry, repository, tag) of a target. Raises `Refused`."""
    found = _TARGET.fullmatch(uri)
    if found is None:
        raise Refused(f"{uri}: write it as oci://registry.example.com/name/model:tag, in small letters")
    return found[1], found[2], found[3] or "latest"


def must_be_free(uri: str, credentials: Credentials, *, plain_http: bool) -> None:
    """Raise unless the registry answers, takes the credentials, and has no such tag yet."""
    client, registry, repository, tag = _client(uri, credentials, plain_http)
    if _manifest(client, registry, repository, tag).status_code == 200:
        raise TargetExists(f"{uri}: there is such a tag already; choose another, nothing is overwritten")


def push(uri: str, folder: Path, credentials: Credentials, *, plain_http: bool) -> str:
    """Push the artifact of a layout and read back what the registry then offers; the digest of its manifest.

    Raises StorageError.
    """
    import requests

    client, registry, repository, tag = _client(uri, credentials, plain_http)
    container = client.get_container(f"{registry}/{repository}:{tag}")
    manifest = manifest_of(folder)
    parts = json.loads(manifest)
    try:
        for part in (*parts["layers"], parts["config"]):
            path = str(blob(folder, part["digest"]))
            _taken(client.upload_blob(path, container, part, do_chunked=True, chunk_size=CHUNK_BYTES))
        where = f"{client.prefix}://{container.manifest_url()}"
        _taken(client.do_request(where, "PUT", data=manifest, headers={"Content-Type": MANIFEST}))
        answer = _manifest(client, registry, repository, tag)
    except (ValueError, requests.RequestException) as error:
        raise Forbidden(
            f"{uri}: the registry did not take it ({' '.join(str(error).split())[:300]}); "
            f"{credentials.secret} must be allowed to push there"
        ) from error
    if answer.status_code != 200 or answer.content != manifest:
        raise StorageError(f"{uri}: the registry does not offer what was pushed")
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def _taken(answer: Any) -> None:
    """Raise ValueError with the registry's words unless it took what it was given."""
    if not answer.ok:
        raise ValueError(f"{answer.status_code} {answer.text[:300]}")


def _client(uri: str, credentials: Credentials, plain_http: bool) -> tuple[Any, str, str, str]:
    """A client that has been let in. Raises `Unreachable` and `Forbidden`."""
    import requests
    from oras.client import OrasClient

    registry, repository, tag = parse_target(uri)
    user, password = credentials.get("username", "user"), credentials.get("password", "token")
    asked = f"{'http' if plain_http else 'https'}://{registry}/v2/"
    try:
        answer = requests.get(asked, timeout=SECONDS, allow_redirects=False)
        basic = answer.headers.get("www-authenticate", "").lower().startswith("basic")
        if answer.status_code == 401 and basic:
            answer = requests.get(asked, auth=(user, password), timeout=SECONDS, allow_redirects=False)
            if answer.status_code in (401, 403):
                who = f"Secret {credentials.name}" if credentials.name else "nobody (--secret)"
                raise Forbidden(f"{uri}: {registry} does not take the username and password of {who}")
    except requests.RequestException as error:
        hint = "" if plain_http else "; a registry without TLS needs plainHttp"
        raise Unreachable(f"{uri}: {registry} does not answer{hint} ({type(error).__name__})") from error
    client: Any = OrasClient(
        hostname=registry, insecure=plain_http, auth_backend="basic" if basic else "token"
    )
    client.auth.load_configs = lambda *_, **__: (
        True
    )  # the Secret counts, not what this machine's Docker knows
    if user or password:
        client.auth.set_basic_auth(user, password)
    return client, registry, repository, tag


def _manifest(client: Any, registry: str, repository: str, tag: str) -> Any:
    url = f"{client.prefix}://{registry}/v2/{repository}/manifests/{tag}"
    return client.do_request(url, "GET", headers={"Accept": MANIFEST})
