"""Files in any S3-compatible store, read by pyarrow's own client: nothing to install beside the workers."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from datatunerx.storage import web
from datatunerx.storage.errors import Changed, Forbidden, Missing, Refused, StorageError, Unreachable
from datatunerx.storage.remote import PATTERN, Credentials, Remote, few_enough, matching

CHUNK_BYTES = 4 << 20
TIMEOUT_SECONDS = 20.0
DENIED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN|INVALID_CLIENT_TOKEN|"
    r"UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|"
    r"HTTP status 40[13]|HTTP Response code: 40[13]",
    re.IGNORECASE,
)
NOTHING = re.compile(
    r"NO_SUCH_BUCKET|NoSuchBucket|RESOURCE_NOT_FOUND|NO_SUCH_KEY|does not exist|HTTP status 404"
)
NO_ANSWER = re.compile(
    r"NETWORK_CONNECTION|REQUEST_TIMEOUT|SERVICE_UNAVAILABLE|SLOW_DOWN|curlCode", re.IGNORECASE
)


def listed(uri: str, credentials: Credentials) -> list[Remote]:
    """The object of the URI, or those that its pattern takes.

    The Secret's keys: accessKeyId, secretAccessKey, and if need be sessionToken, endpoint, region.
    Without a Secret the request is anonymous: the server's own cloud rights are nobody's to use.
    """
    place = uri[len("s3://") :]
    bucket, _, key = place.partition("/")
    if not bucket or not key or PATTERN.search(bucket):
        raise Refused(f"{uri}: is not s3://bucket/key; name an object, or a pattern of them")
    fs = _filesystem(uri, credentials)
    with _told(uri, credentials):
        if not PATTERN.search(key):
            return [_remote(fs, place, uri, credentials)]
        paths = _under(fs, f"{bucket}/{PATTERN.split(key)[0].rpartition('/')[0]}".rstrip("/"))
        names = matching(paths, place)
        few_enough(len(names), uri)
        if not names:
            raise Missing(f"{uri}: the pattern takes none of the {len(paths)} objects there; check it")
        return [_remote(fs, name, f"s3://{name}", credentials) for name in names]


def _under(fs: Any, folder: str) -> list[str]:
    from pyarrow.fs import FileSelector, FileType

    found = fs.get_file_info(FileSelector(folder, allow_not_found="/" in folder, recursive=True))
    return [info.path for info in found if info.type == FileType.File]


def _remote(fs: Any, place: str, uri: str, credentials: Credentials) -> Remote:
    from pyarrow.fs import FileType

    info = fs.get_file_info(place)
    if info.type == FileType.Directory:
        raise Refused(f"{uri}: is a folder; name the objects in it, as {uri.rstrip('/')}/*.jsonl")
    if info.type != FileType.File:
        raise Missing(f"{uri}: there is no such object; check bucket and key")
    version = _version(fs, place) or f"{info.mtime_ns} {info.size}"
    return Remote(uri, info.size, version, partial(_read, fs, place, uri, version, credentials))


def _version(fs: Any, place: str) -> str:
    with fs.open_input_file(place) as file:
        etag = (file.metadata() or {}).get("ETag", b"")
        return etag.decode() if isinstance(etag, bytes) else str(etag)


@contextmanager
def _read(
    fs: Any, place: str, uri: str, version: str, credentials: Credentials, start: int
) -> Iterator[Iterator[bytes]]:
    def chunks(file: Any) -> Iterator[bytes]:
        with _told(uri, credentials):
            while data := file.read(CHUNK_BYTES):
                yield data
            if version.startswith('"') and _version(fs, place) != version:
                raise Changed(f"{uri}: changed while it was fetched")

    with _told(uri, credentials):
        file = fs.open_input_file(place)
        file.seek(start)
    with file:
        yield chunks(file)


def _filesystem(uri: str, credentials: Credentials) -> Any:
    try:
        from pyarrow import fs
    except ImportError as error:
        raise Refused(f"{uri}: s3:// needs pyarrow; pip install 'datatunerx[train]'") from error
    endpoint = credentials.endpoint or credentials.get("endpoint", "endpointUrl", "AWS_ENDPOINT_URL")
    address = urlsplit(endpoint if "://" in endpoint or not endpoint else f"https://{endpoint}")
    if address.scheme not in ("", "http", "https"):
        raise Refused(f"{uri}: the endpoint {endpoint} is no http(s) URL; write https://host:port")
    web.refuse_metadata(address.hostname or "", uri)
    key = credentials.get("accessKeyId", "AWS_ACCESS_KEY_ID", "accessKey")
    secret = credentials.get("secretAccessKey", "AWS_SECRET_ACCESS_KEY", "secretKey")
    if bool(key) != bool(secret) or (credentials.name and not key):
        raise Forbidden(f"{uri}: {credentials.secret} must hold accessKeyId and secretAccessKey")
    who: dict[str, str | bool] = {"access_key": key, "secret_key": secret} if key else {"anonymous": True}
    if key and (token := credentials.get("sessionToken", "AWS_SESSION_TOKEN")):
        who["session_token"] = token
    return fs.S3FileSystem(
        **who,
        region=credentials.get("region", "AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1",
        scheme=address.scheme or "https",
        endpoint_override=address.netloc or None,
        connect_timeout=TIMEOUT_SECONDS,
        request_timeout=TIMEOUT_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
    )


@contextmanager
def _told(uri: str, credentials: Credentials) -> Iterator[None]:
    """What pyarrow says becomes one of our errors; none repeats the Secret's values."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise Missing(f"{uri}: there is no such bucket or object; check them") from error
    except OSError as error:
        text = str(error)
        if DENIED.search(text):
            raise Forbidden(
                f"{uri}: may not be read with {credentials.secret}; check its values and their rights"
            ) from None
        if NOTHING.search(text):
            raise Missing(f"{uri}: there is no such bucket or object; check them") from None
        if NO_ANSWER.search(text):
            where = credentials.endpoint or credentials.get("endpoint", "endpointUrl") or "s3.amazonaws.com"
            raise Unreachable(f"{uri}: {where} does not answer; check the endpoint") from None
        raise Unreachable(f"{uri}: the store answered: {' '.join(text.split())[:300]}") from None
