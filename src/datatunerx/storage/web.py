"""Files by http and https: one request a file, continued by range, with few redirects and no surprises."""

import ipaddress
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.parse import quote, urlsplit

from datatunerx.storage.errors import (
    Changed,
    Forbidden,
    Missing,
    NotResumable,
    Refused,
    StorageError,
    Unreachable,
)
from datatunerx.storage.remote import PATTERN, Credentials, Remote

TIMEOUT_SECONDS = 30
"""Without a byte."""
MAX_REDIRECTS = 5
CHUNK_BYTES = 1 << 20
AGENT = "datatunerx"


def listed(uri: str, credentials: Credentials) -> list[Remote]:
    """The one file of the URI; a Secret may hold `token`, or `username` and `password`."""
    if PATTERN.search(urlsplit(uri).path):
        raise Refused(f"{uri}: a web server lists no files; name each file by its own URL")
    if urlsplit(uri).username is not None:
        shown = uri.replace(urlsplit(uri).netloc, urlsplit(uri).hostname or "")
        raise Refused(f"{shown}: a URL must not hold a password; put it into a Secret and name that")
    headers = authorization(credentials)
    with opened(uri, headers, secret=credentials.secret) as answer:
        kind = answer.headers.get_content_type()
        length, version = answer.headers.get("Content-Length"), version_of(answer.headers)
    if kind == "text/html" and not urlsplit(uri).path.lower().endswith((".html", ".htm")):
        raise Refused(f"{uri}: answers with a web page, not a file; use the link that downloads it")
    size = int(length) if length and length.isdigit() else None
    return [Remote(uri, size, version, partial(read, uri, headers, version))]


def authorization(credentials: Credentials) -> dict[str, str]:
    """The header that shows who asks."""
    if token := credentials.get("token"):
        return {"Authorization": f"Bearer {token}"}
    if user := credentials.get("username", "user"):
        from base64 import b64encode

        pair = f"{user}:{credentials.get('password')}".encode()
        return {"Authorization": f"Basic {b64encode(pair).decode()}"}
    return {}


def version_of(headers: HTTPMessage) -> str:
    """What tells one content from another: a strong ETag, else when it was changed and how long it is."""
    etag = headers.get("ETag") or ""
    if etag and not etag.startswith("W/"):
        return etag
    changed, length = headers.get("Last-Modified"), headers.get("Content-Length")
    return f"{changed} {length}" if changed and length else ""


@contextmanager
def read(uri: str, headers: Mapping[str, str], version: str, start: int) -> Iterator[Iterator[bytes]]:
    """The bytes from `start` on. Raises `Changed` if the file is no longer the one that was listed."""
    validator = version if version.startswith('"') else version.rpartition(" ")[0]
    asked = dict(headers) | ({"Range": f"bytes={start}-"} if start else {})
    if start and validator:
        asked["If-Range"] = validator
    with opened(uri, asked) as answer:
        # of a part, the length is another; not every server heeds If-Range
        now = answer.headers.get("ETag" if version.startswith('"') else "Last-Modified", validator)
        is_same = now == validator if answer.status == 206 else version_of(answer.headers) == version
        if version and not is_same:
            raise Changed(f"{uri}: changed while it was fetched; fetch it again")
        if start and answer.status != 206:
            raise NotResumable(uri)
        yield _chunks(answer, uri)


def _chunks(answer: Any, uri: str) -> Iterator[bytes]:
    try:
        while data := answer.read(CHUNK_BYTES):
            yield data
    except (OSError, HTTPException) as error:
        raise Unreachable(f"{uri}: broke off: {said(error)}") from error


@contextmanager
def opened(uri: str, headers: Mapping[str, str], *, secret: str = "the Secret") -> Iterator[Any]:
    """The answer to a GET. Raises `Unreachable`, `Forbidden`, `Missing`, `Refused`."""
    plain = quote(uri, safe="%/:=&?~#+!$,;'@()*[]")
    refuse_metadata(urlsplit(plain).hostname or "", uri)
    request = urllib.request.Request(plain, headers={"User-Agent": AGENT, "Accept-Encoding": "identity"})
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    if "Range" in headers:
        request.add_header("Range", headers["Range"])
    try:
        answer = _opener().open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        raise refusal(uri, error.code, secret) from None
    except StorageError:  # of a redirect
        raise
    except (OSError, HTTPException, ValueError) as error:
        raise Unreachable(
            f"{uri}: cannot be reached: {said(error)}; check the address, and that this machine may reach it"
        ) from error
    with answer:
        yield answer


def refusal(uri: str, code: int, secret: str) -> Exception:
    """What an HTTP status means to the user."""
    if code in (401, 403, 407):
        return Forbidden(f"{uri}: may not be read ({code}) with {secret}; check its values and their rights")
    if code in (404, 410):
        return Missing(f"{uri}: there is no such file ({code}); check the address")
    if code == 416:
        return NotResumable(uri)
    if code == 429 or code >= 500:
        return Unreachable(f"{uri}: its server has trouble ({code}); try again later")
    return Refused(f"{uri}: the server answered {code}; check the address")


def said(error: BaseException) -> str:
    """The reason inside, in a few words."""
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, socket.gaierror):
        return "there is no host of that name"
    if isinstance(reason, TimeoutError):
        return f"no answer within {TIMEOUT_SECONDS} s"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({reason.verify_message})"
    return str(getattr(reason, "strerror", None) or reason or type(reason).__name__).lower()


def refuse_metadata(host: str, uri: str) -> None:
    """Refuse link-local addresses: behind them a cloud hands out this machine's own credentials."""
    try:
        addresses = [ipaddress.ip_address(found[4][0]) for found in socket.getaddrinfo(host, None)]
    except (OSError, ValueError):  # said when the request fails for the same reason
        return
    if any(address.is_link_local for address in addresses):
        raise Refused(f"{uri}: {host} is a link-local address, where no data is; use the address of a server")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Few, never from https to http, never to a file or a cloud's metadata; without the credentials."""

    max_redirections = MAX_REDIRECTS
    max_repeats = 2

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if before.scheme == "https" and after.scheme != "https":
            raise Refused(
                f"{req.full_url}: redirects from https to {after.scheme}; use the address it leads to"
            )
        refuse_metadata(after.hostname or "", req.full_url)
        made = super().redirect_request(req, fp, code, msg, headers, newurl)
        if made is not None and (before.scheme, before.netloc) == (after.scheme, after.netloc):
            for name, value in req.unredirected_hdrs.items():
                made.add_unredirected_header(name, value)
        return made

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except urllib.error.HTTPError as error:
            if "infinite loop" not in str(error.msg) and "would lead to" not in str(error.msg):
                raise
            where = req.full_url
            raise Refused(
                f"{where}: more than {MAX_REDIRECTS} redirects; use the address they lead to"
            ) from None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opener() -> urllib.request.OpenerDirector:
    # Only these handlers: the default ones would follow a redirect to ftp:// too.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(), urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        _Redirects(), urllib.request.HTTPErrorProcessor(), urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):  # fmt: skip
        opener.add_handler(handler)
    return opener
