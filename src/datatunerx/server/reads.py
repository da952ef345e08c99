"""Get and list: from memory, in the form that was asked for, in chunks of one unmoving version."""

import base64
import binascii

import orjson

from datatunerx.server import negotiate, selectors
from datatunerx.server.errors import ApiError, Json, bad_request, expired, not_found
from datatunerx.server.http import JSON, Request
from datatunerx.server.kinds import Kind
from datatunerx.server.table import partial, table
from datatunerx.store import Entry, Expired, Key, Store


def shown_bytes(kind: Kind, data: bytes) -> bytes:
    """An object as the kind shows it."""
    if kind.facade is None:
        return data
    return orjson.dumps(kind.facade.show(orjson.loads(data)))


def listed_bytes(kind: Kind, data: bytes) -> bytes:
    """An object as lists and watches show it."""
    return shown_bytes(kind, data) if kind.listed is None else orjson.dumps(kind.listed(orjson.loads(data)))


def listed(kind: Kind, data: bytes) -> Json:
    """The same, decoded."""
    return shown(kind, data) if kind.listed is None else kind.listed(orjson.loads(data))


def shown(kind: Kind, data: bytes) -> Json:
    """The same, decoded."""
    obj: Json = orjson.loads(data)
    return kind.facade.show(obj) if kind.facade else obj


def key_of(kind: Kind, namespace: str, name: str) -> Key:
    """Where the kind's objects are stored."""
    return Key(kind.stored_as, namespace, name)


def find(store: Store, kind: Kind, namespace: str, name: str) -> Entry:
    """The committed object; 404 when there is none."""
    entry = store.get(key_of(kind, namespace, name))
    if entry is None:
        raise not_found(kind.resource, name)
    return entry


async def answer_object(request: Request, kind: Kind, data: bytes, code: int = 200) -> None:
    """Send one object in the form the request accepts."""
    form = negotiate.form(request.header("accept"))
    if form == "object":
        return await request.answer(code, shown_bytes(kind, data))
    obj = shown(kind, data)
    if form == "partial":
        return await request.json(code, partial(obj))
    version = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
    include = request.query.get("includeObject", "Metadata")
    await request.json(code, table(kind, [obj], include, version))


def matcher(request: Request, kind: Kind) -> selectors.Matches | None:
    """The request's selectors as one test; None when everything matches."""
    return selectors.both(
        selectors.labels(request.query.get("labelSelector", "")),
        selectors.fields(request.query.get("fieldSelector", ""), kind.selectable),
    )


def entries(
    store: Store, kind: Kind, namespace: str | None, request: Request, at: int | None = None
) -> list[Entry]:
    """What the selectors of the request choose."""
    name = selectors.name_in(request.query.get("fieldSelector", ""))
    matches = matcher(request, kind)
    if name and namespace is not None and at is None:
        one = store.get(key_of(kind, namespace, name))
        found = [one] if one else []
    else:
        found = store.entries(kind.stored_as, namespace, at)
    return [entry for entry in found if matches(shown(kind, entry.data))] if matches else found


async def list_objects(store: Store, kind: Kind, namespace: str | None, request: Request) -> None:
    """Answer a LIST."""
    version, after = _version(store, request)
    try:
        found = entries(store, kind, namespace, request, version)
    except Expired as error:
        raise expired(f"The provided continue parameter is too old: {error}") from None
    version = store.version if version is None else version
    metadata: Json = {"resourceVersion": str(version)}
    if after is not None:
        found = [entry for entry in found if entry.key[1:] > after]
    limit = request.number("limit")
    if limit and len(found) > limit:
        last = found[limit - 1].key
        metadata["continue"] = _token(version, last)
        if not request.query.get("labelSelector") and not request.query.get("fieldSelector"):
            metadata["remainingItemCount"] = len(found) - limit
        found = found[:limit]
    form = negotiate.form(request.header("accept"))
    if form == "object":
        head = kind.listed_metadata + b',"metadata":' + orjson.dumps(metadata) + b',"items":['
        data = b",".join([listed_bytes(kind, entry.data) for entry in found])
        return await request.answer(200, head + data + b"]}", JSON)
    objects = [listed(kind, entry.data) for entry in found]
    if form == "table":
        include = request.query.get("includeObject", "Metadata")
        return await request.json(200, table(kind, objects, include, metadata))
    items = [partial(obj) for obj in objects]
    names = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
    await request.json(200, names | {"metadata": metadata, "items": items})


def _version(store: Store, request: Request) -> tuple[int | None, tuple[str, str] | None]:
    """(version to list at, or None for now; the place after which a continued list goes on)."""
    if token := request.query.get("continue"):
        return _untoken(token)
    match = request.query.get("resourceVersionMatch", "")
    if match and match not in ("Exact", "NotOlderThan"):
        raise bad_request(f'resourceVersionMatch: "{match}" is neither Exact nor NotOlderThan')
    version = request.number("resourceVersion")
    if match and version is None:
        raise bad_request("resourceVersionMatch is forbidden unless resourceVersion is provided")
    if version and version > store.version:
        message = f"Too large resource version: {version}, current: {store.version}"
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        raise ApiError(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})
    return (version if match == "Exact" else None), None


def _token(version: int, last: Key) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([version, last.namespace, last.name])).decode()


def _untoken(token: str) -> tuple[int, tuple[str, str]]:
    try:
        version, namespace, name = orjson.loads(base64.urlsafe_b64decode(token))
        return int(version), (str(namespace), str(name))
    except (binascii.Error, ValueError, TypeError):
        raise bad_request("continue key is not valid: list again from the start") from None
