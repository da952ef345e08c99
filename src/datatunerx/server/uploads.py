"""Files from a caller's machine to the server's disk, part by part; what broke off is gone on with.

POST /uploads/v1/namespaces/NS                     {"name", "size", "sha256"} -> what the server has of it
GET  /uploads/v1/namespaces/NS/ID                  -> the same
PUT  /uploads/v1/namespaces/NS/ID?offset=N         the bytes from N on, at most 64 MiB; 409 tells the right N
POST /uploads/v1/namespaces/NS/ID/complete         checks the digest; -> its upload:// URI
DELETE /uploads/v1/namespaces/NS/ID                gives an unfinished one up

Each answer is {"id", "name", "size", "offset", "uri"}; `uri` is there once it is complete. Whoever may
create Datasets in a namespace may upload to it. The id is of namespace, name and digest: asking again finds
it again.
"""

import asyncio
import hashlib
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from datatunerx import storage
from datatunerx.resources.wire import GROUP
from datatunerx.server import body, roles
from datatunerx.server.errors import ApiError, Json, bad_request, no_such_path, not_allowed, too_large
from datatunerx.server.http import ClientGone, Receive, Request, Scope, Send
from datatunerx.server.roles import Access

PREFIX = "/uploads"
MAX_PART = 64 << 20
MAX_FILE = 256 << 30
MAX_NAMESPACE = 1 << 40
"""Bytes that one namespace may keep here, unfinished uploads included."""
MAX_OPEN = 64
"""Unfinished uploads of one namespace."""
STALE_SECONDS = 24 * 3600.0
SPARE_BYTES = 256 << 20
WRITE_BYTES = 1 << 20
PARTS, META = ".parts", "meta.json"
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ID = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"\w[\w .,+=@()-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass
class _Open:
    """What is remembered of an unfinished upload while the server runs."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    hashed: int = 0
    """Bytes that `hash` has seen; after a restart none."""
    hash: Any = field(default_factory=hashlib.sha256)


@dataclass(frozen=True)
class _Upload:
    namespace: str
    id: str
    name: str
    size: int
    sha256: str


class Uploads:
    """An ASGI app; `root` is what upload:// URIs are below. Memory is bounded by a megabyte an upload."""

    def __init__(
        self,
        root: Path,
        *,
        max_file: int = MAX_FILE,
        max_namespace: int = MAX_NAMESPACE,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        self._root, self._max_file, self._stale = root, max_file, stale_seconds
        self._max_namespace = max_namespace
        self._open: dict[str, _Open] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        request.user = scope["user"]
        try:
            await self._answer(request)
        except ApiError as error:
            await request.refuse(error)
        except OSError as error:
            if isinstance(error, FileNotFoundError):  # its parts went while this request was on its way
                return await request.refuse(_gone())
            if not storage.is_disk_full(error):
                raise
            await request.refuse(_no_room("the disk of the server is full; free some space there and go on"))
        except ClientGone:
            return

    async def _answer(self, request: Request) -> None:
        match request.path.removeprefix(PREFIX).strip("/").split("/"):
            case ["v1", "namespaces", namespace] if _NAMESPACE.fullmatch(namespace):
                self._allow(request, namespace)
                if request.method != "POST":
                    raise not_allowed("POST name, size and sha256 of a file to begin its upload")
                return await request.json(201, await self._begin(request, namespace))
            case ["v1", "namespaces", namespace, id, *rest] if (
                _NAMESPACE.fullmatch(namespace) and _ID.fullmatch(id) and rest in ([], ["complete"])
            ):
                self._allow(request, namespace)
                upload = await asyncio.to_thread(self._known, namespace, id)
                return await request.json(200, await self._continue(request, upload, "".join(rest)))
        raise no_such_path()

    async def _continue(self, request: Request, upload: _Upload, verb: str) -> Json:
        match request.method, verb:
            case "GET", "":
                return await asyncio.to_thread(self._told, upload)
            case "PUT", "":
                return await self._write(request, upload)
            case "POST", "complete":
                return await self._complete(upload)
            case "DELETE", "":
                return await self._give_up(upload)
        raise not_allowed(f"{request.method} is not possible here")

    def _allow(self, request: Request, namespace: str) -> None:
        wanted = Access("create", GROUP, "datasets", namespace)
        if not roles.authorize(request.user, wanted):
            raise roles.refusal(request.user, wanted)

    # What is on disk

    def _final(self, upload: _Upload) -> Path:
        return self._root / upload.namespace / upload.id

    def _part(self, upload: _Upload) -> Path:
        return self._root / PARTS / upload.namespace / upload.id

    def _bytes(self, upload: _Upload) -> Path:
        return self._part(upload) / "files" / upload.name

    def _known(self, namespace: str, id: str) -> _Upload:
        try:
            meta = orjson.loads((self._root / PARTS / namespace / id / META).read_bytes())
            return _Upload(namespace, id, meta["name"], meta["size"], meta["sha256"])
        except FileNotFoundError:
            pass
        done = self._root / namespace / id
        for path in done.iterdir() if done.is_dir() else ():
            return _Upload(namespace, id, path.name, path.stat().st_size, "")
        raise _gone()

    def _told(self, upload: _Upload) -> Json:
        done = (self._final(upload) / upload.name).exists()
        uri = f"upload://{upload.namespace}/{upload.id}/{upload.name}" if done else None
        offset = upload.size if done else _size(self._bytes(upload))
        return {"id": upload.id, "name": upload.name, "size": upload.size, "offset": offset, "uri": uri}

    # Verbs

    async def _begin(self, request: Request, namespace: str) -> Json:
        asked = body.parse(await request.body())
        name, size, sha256 = (
            asked.get(key) if isinstance(asked, dict) else None for key in ("name", "size", "sha256")
        )
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise bad_request("name: must be a file name of letters, digits, spaces and .,+=@()-_")
        if type(size) is not int or not 0 < size <= self._max_file:
            raise bad_request(f"size: must be the file's bytes, from 1 to {self._max_file:,}")
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise bad_request("sha256: must be the file's SHA-256 as 64 hexadecimal digits")
        id = hashlib.sha256(f"{namespace}\n{name}\n{sha256}".encode()).hexdigest()[:32]
        return await asyncio.to_thread(self._make, _Upload(namespace, id, name, size, sha256))

    def _make(self, upload: _Upload) -> Json:
        self.clean()
        if not (self._final(upload) / upload.name).exists() and not (self._part(upload) / META).exists():
            self._root.mkdir(parents=True, exist_ok=True)
            folder = self._part(upload).parent
            if folder.is_dir() and sum(1 for _ in folder.iterdir()) >= MAX_OPEN:
                raise ApiError(
                    429, "TooManyRequests", f"{MAX_OPEN} uploads are unfinished here; finish some first"
                )
            self._check_total(upload)
            free = max(0, shutil.disk_usage(self._root).free - SPARE_BYTES)
            if upload.size > free:
                raise _no_room(
                    f"the file has {upload.size:,} bytes and {free:,} are free for it on the server"
                )
            self._bytes(upload).parent.mkdir(parents=True, exist_ok=True)
            meta = {"name": upload.name, "size": upload.size, "sha256": upload.sha256}
            storage.write_atomic(str(self._part(upload) / META), orjson.dumps(meta))
        return self._told(upload)

    def _check_total(self, upload: _Upload) -> None:
        """413 if the namespace would keep more than it may; what was begun counts with its whole size."""
        kept = sum(_size(path) for path in (self._root / upload.namespace).glob("*/*"))
        begun = (self._root / PARTS / upload.namespace).glob(f"*/{META}")
        kept += sum(orjson.loads(path.read_bytes())["size"] for path in begun)
        if kept + upload.size > self._max_namespace:
            raise ApiError(
                413,
                "RequestEntityTooLarge",
                f"namespace {upload.namespace} has {kept:,} bytes of uploads and may have "
                f"{self._max_namespace:,}; this file has {upload.size:,}. Have the machine's owner delete "
                f"what nobody needs below data/uploads/{upload.namespace}, or set a higher DTX_UPLOAD_BYTES",
            )

    async def _write(self, request: Request, upload: _Upload) -> Json:
        known = self._open.setdefault(upload.id, _Open())
        if known.lock.locked():
            raise ApiError(409, "Conflict", "another request is writing to this upload; wait for it to end")
        async with known.lock:
            told = await asyncio.to_thread(self._told, upload)
            at = request.number("offset")
            if at is None:
                raise bad_request("offset: say in the query where the bytes begin")
            length = request.header("content-length")
            if length.isdigit() and int(length) > MAX_PART:
                raise too_large(MAX_PART)
            if told["uri"] or at != told["offset"]:
                raise ApiError(
                    409, "Conflict", f"the server has {told['offset']} bytes of it; go on there", told
                )
            try:
                await self._receive(request, upload, known, at)
            finally:
                # What came is kept also when the caller has gone: the next request goes on after it.
                offset = await asyncio.to_thread(_size, self._bytes(upload))
        return told | {"offset": offset}

    async def _receive(self, request: Request, upload: _Upload, known: _Open, at: int) -> None:
        start, held = at, bytearray()
        more = True
        while more:
            try:
                data, more = await request.part()
            except ClientGone:
                if held:
                    await asyncio.to_thread(self._append, upload, known, bytes(held), at)
                raise
            held += data
            if at + len(held) > upload.size or at + len(held) - start > MAX_PART:
                raise bad_request(
                    f"more bytes than the {upload.size:,} that were said, or than fit in one part"
                )
            if len(held) >= WRITE_BYTES or (held and not more):
                await asyncio.to_thread(self._append, upload, known, bytes(held), at)
                at += len(held)
                held.clear()

    def _append(self, upload: _Upload, known: _Open, data: bytes, at: int) -> None:
        with self._bytes(upload).open("ab") as file:
            file.write(data)
        if known.hashed == at:
            known.hash.update(data)
            known.hashed += len(data)

    async def _complete(self, upload: _Upload) -> Json:
        known = self._open.setdefault(upload.id, _Open())
        async with known.lock:
            told = await asyncio.to_thread(self._told, upload)
            if not told["uri"]:
                if told["offset"] != upload.size:
                    raise ApiError(
                        409, "Conflict", f"the server has {told['offset']} of {upload.size} bytes", told
                    )
                await asyncio.to_thread(self._publish, upload, known)
                told = await asyncio.to_thread(self._told, upload)
        self._open.pop(upload.id, None)
        return told

    def _publish(self, upload: _Upload, known: _Open) -> None:
        path = self._bytes(upload)
        is_known = known.hashed == upload.size
        found = known.hash.hexdigest() if is_known else storage.sha256_of(path)
        if found != upload.sha256:
            shutil.rmtree(self._part(upload))
            self._open.pop(upload.id, None)
            raise ApiError(
                422, "Invalid", "the bytes that came are not those of the file (SHA-256); upload it again"
            )
        storage.publish_dir(path.parent, self._final(upload))
        shutil.rmtree(self._part(upload), ignore_errors=True)

    async def _give_up(self, upload: _Upload) -> Json:
        known = self._open.setdefault(upload.id, _Open())
        async with known.lock:
            await asyncio.to_thread(shutil.rmtree, self._part(upload), True)
            told = await asyncio.to_thread(self._told, upload)
        self._open.pop(upload.id, None)
        return told

    def clean(self) -> None:
        """Remove unfinished uploads that nobody has gone on with for a day."""
        parts = self._root / PARTS
        for folder in parts.glob("*/*") if parts.is_dir() else ():
            newest = max((path.stat().st_mtime for path in folder.rglob("*")), default=folder.stat().st_mtime)
            known = self._open.get(folder.name)
            if newest < time.time() - self._stale and not (known and known.lock.locked()):
                self._open.pop(folder.name, None)
                shutil.rmtree(folder, ignore_errors=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _gone() -> ApiError:
    return ApiError(404, "NotFound", "there is no such upload, or it was given up; begin it again")


def _no_room(message: str) -> ApiError:
    return ApiError(507, "InsufficientStorage", message)
