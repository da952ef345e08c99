"""Files in the repositories of a hub: Hugging Face's through its own library, ModelScope's by its HTTP API.

Only listed and read: nothing of a repository is ever run. The files of one URI are of one commit.
"""

import json
import os
import re
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from datatunerx.storage import web
from datatunerx.storage.errors import Forbidden, Missing, Refused, Unreachable
from datatunerx.storage.remote import PATTERN, Credentials, Remote, few_enough, matching

MODELSCOPE = "https://www.modelscope.cn"
PAGE = 200
LIST_BYTES = 16 << 20
_PLACE = re.compile(
    r"(?:hf|modelscope)://(datasets/)?([\w.-]+/[\w.-]+)(?:@([^/]+))?(?:/(.*))?", re.IGNORECASE
)


def hugging_face(uri: str, credentials: Credentials) -> list[Remote]:
    """What a hf:// URI stands for. The Secret's `token` counts before HF_TOKEN, as the endpoint does."""
    try:
        import httpx2  # what the hub's own client asks with
        from huggingface_hub import HfApi, hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
        from huggingface_hub.hf_api import RepoFile
    except ImportError as error:
        raise Refused(f"{uri}: hf:// needs huggingface_hub; pip install 'datatunerx[train]'") from error
    kind, repository, revision, wanted = _parts(uri)
    endpoint, token = hub_of(credentials, uri)
    api = HfApi(endpoint=endpoint, token=token or False)
    try:
        commit = api.repo_info(repository, repo_type=kind, revision=revision).sha or revision or "main"
        tree = api.list_repo_tree(repository, repo_type=kind, revision=commit, recursive=True)
        files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    except HFValidationError as error:
        raise Refused(f"{uri}: is not hf://datasets/org/name[@revision][/path]; correct it") from error
    except HfHubHTTPError as error:
        raise web.refusal(uri, _status(error), credentials.secret) from None
    except (OSError, httpx2.HTTPError) as error:
        raise _silent(uri, error) from error
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    found = []
    for path in _chosen(list(files), wanted, uri):
        entry = files[path]
        url = hf_hub_url(repository, path, repo_type=kind, revision=commit, endpoint=endpoint)
        version, sha256 = f"{commit} {entry.blob_id}", entry.lfs.sha256 if entry.lfs else ""
        found.append(
            Remote(_shown(uri, path), entry.size, version, partial(web.read, url, headers, ""), sha256 or "")
        )
    return found


def hub_of(credentials: Credentials, uri: str) -> tuple[str | None, str]:
    """Which hub is asked, and the token for it: HF_TOKEN is for the server's own hub and goes nowhere else.

    Raises `Refused` for an endpoint where no hub is.
    """
    given = credentials.endpoint or credentials.get("endpoint")
    if given:
        web.refuse_metadata(urlsplit(given).hostname or "", uri)
        return given, credentials.get("token")
    return os.environ.get("HF_ENDPOINT") or None, credentials.get("token") or os.environ.get("HF_TOKEN", "")


def modelscope(uri: str, credentials: Credentials) -> list[Remote]:
    """What a modelscope:// URI stands for; MODELSCOPE_ENDPOINT and the Secret's `token` are honoured."""
    kind, repository, revision, wanted = _parts(uri)
    given = credentials.endpoint or credentials.get("endpoint") or os.environ.get("MODELSCOPE_ENDPOINT")
    base = f"{(given or MODELSCOPE).rstrip('/')}/api/v1/{kind}s/{quote(repository)}/repo"
    token = credentials.get("token")
    headers = {"Cookie": f"m_session_id={token}", "Authorization": f"Bearer {token}"} if token else {}
    revision = revision or "master"
    listing = _modelscope_tree if kind == "dataset" else _modelscope_files
    files = {str(entry["Path"]): entry for entry in listing(uri, base, revision, headers, credentials.secret)}
    found = []
    for path in _chosen(list(files), wanted, uri):
        entry = files[path]
        url = f"{base}?{urlencode({'Revision': revision, 'FilePath': path})}"
        sha256 = str(entry.get("Sha256") or "").lower()
        version = sha256 or f"{entry.get('Revision') or ''} {entry.get('Size')}"
        size = int(entry["Size"]) if entry.get("Size") is not None else None
        found.append(Remote(_shown(uri, path), size, version, partial(web.read, url, headers, ""), sha256))
    return found


def _modelscope_files(
    uri: str, base: str, revision: str, headers: dict[str, str], secret: str
) -> list[dict[str, Any]]:
    query = urlencode({"Revision": revision, "Recursive": "True"})
    return _blobs(uri, _json(uri, f"{base}/files?{query}", headers, secret))


def _modelscope_tree(
    uri: str, base: str, revision: str, headers: dict[str, str], secret: str
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    page = 1
    while True:
        asked = {"Revision": revision, "Root": "/", "Recursive": "True", "PageNumber": page, "PageSize": PAGE}
        answer = _json(uri, f"{base}/tree?{urlencode(asked)}", headers, secret)
        found += _blobs(uri, answer)
        few_enough(len(found), uri)
        if len(answer["Data"]["Files"]) < PAGE:
            return found
        page += 1


def _json(uri: str, url: str, headers: dict[str, str], secret: str) -> dict[str, Any]:
    try:
        with web.opened(url, headers, secret=secret) as answer:
            found: dict[str, Any] = json.loads(answer.read(LIST_BYTES))
        if not isinstance(found["Data"]["Files"], list):
            raise TypeError("no list")
    except (Forbidden, Missing, Refused, Unreachable) as error:
        raise type(error)(str(error).replace(url, uri, 1)) from None
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{uri}: the hub's answer is no list of files; check the endpoint") from error
    return found


def _blobs(uri: str, answer: dict[str, Any]) -> list[dict[str, Any]]:
    del uri
    return [entry for entry in answer["Data"]["Files"] if entry.get("Type") != "tree" and entry.get("Path")]


def _parts(uri: str) -> tuple[str, str, str | None, str]:
    """(dataset or model, org/name, revision, path or pattern in it)"""
    match = _PLACE.fullmatch(uri)
    if match is None:
        scheme = uri.partition("://")[0]
        raise Refused(f"{uri}: is not of the form {scheme}://datasets/org/name[@revision][/path]; correct it")
    return "dataset" if match[1] else "model", match[2], match[3], match[4] or ""


def _chosen(names: list[str], wanted: str, uri: str) -> list[str]:
    if not wanted:
        chosen = sorted(names)
    elif PATTERN.search(wanted):
        chosen = matching(names, wanted)
    else:
        chosen = [wanted] if wanted in names else []
        if not chosen and any(name.startswith(f"{wanted.rstrip('/')}/") for name in names):
            raise Refused(f"{uri}: is a folder; name the files in it, as {uri.rstrip('/')}/*.parquet")
    few_enough(len(chosen), uri)
    if not chosen:
        raise Missing(f"{uri}: none of the repository's {len(names)} files is meant by that; check the path")
    return chosen


def _shown(uri: str, path: str) -> str:
    """The URI of one file in the repository that `uri` is of."""
    match = _PLACE.fullmatch(uri)
    assert match
    return f"{uri[: match.start(4)].rstrip('/') if match[4] is not None else uri.rstrip('/')}/{path}"


def _status(error: Any) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


def _silent(uri: str, error: BaseException) -> Unreachable:
    return Unreachable(
        f"{uri}: the hub cannot be reached: {web.said(error)}; check the endpoint and the network"
    )
