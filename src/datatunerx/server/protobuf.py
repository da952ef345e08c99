"""Reading the few Kubernetes protobuf messages that kubectl sends without a JSON alternative.

Since 1.32 it posts reviews, and namespaces, config maps, secrets and service accounts of `kubectl create`,
this way only. A message is described by field number: (name, how to read it).
"""

import base64
from collections.abc import Callable, Iterator
from typing import Any

from datatunerx.server.errors import Json, bad_request

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"

Reader = Callable[[Any], Any]
Fields = dict[int, tuple[str, Reader]]


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("number too long")


def _members(data: bytes) -> Iterator[tuple[int, Any]]:
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        wire = tag & 7
        value: Any
        if wire == 0:
            value, place = _varint(data, place)
        elif wire == 2:
            size, place = _varint(data, place)
            value, place = data[place : place + size], place + size
            if len(value) != size:
                raise ValueError("message is cut short")
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value, place = data[place : place + size], place + size
        else:
            raise ValueError(f"unknown wire type {wire}")
        yield tag >> 3, value


def _text(value: bytes) -> str:
    return value.decode()


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


class _Many:
    """A repeated field."""

    def __init__(self, one: Reader) -> None:
        self.one = one

    def __call__(self, value: Any) -> Any:
        return self.one(value)


class _Map(_Many):
    """A map with text keys."""

    def __call__(self, value: Any) -> Any:
        pair = dict(_members(value))
        return _text(pair.get(1, b"")), self.one(pair.get(2, b""))


def _message(fields: Fields) -> Reader:
    def read(data: Any) -> Json:
        out: Json = {}
        for number, value in _members(data):
            if number not in fields:
                continue
            name, reader = fields[number]
            if isinstance(reader, _Map):
                key, item = reader(value)
                out.setdefault(name, {})[key] = item
            elif isinstance(reader, _Many):
                out.setdefault(name, []).append(reader(value))
            elif (plain := reader(value)) not in ("", {}):  # protobuf writes out what is not set
                out[name] = plain
        return out

    return read


_META = _message(
    {
        1: ("name", _text),
        2: ("generateName", _text),
        3: ("namespace", _text),
        11: ("labels", _Map(_text)),
        12: ("annotations", _Map(_text)),
        14: ("finalizers", _Many(_text)),
    }
)
_REF = _message({1: ("kind", _text), 2: ("namespace", _text), 3: ("name", _text)})
_LOCAL_REF = _message({1: ("name", _text)})
_RESOURCE = _message(
    {
        1: ("namespace", _text),
        2: ("verb", _text),
        3: ("group", _text),
        4: ("version", _text),
        5: ("resource", _text),
        6: ("subresource", _text),
        7: ("name", _text),
    }
)
_ACCESS = _message(
    {
        1: ("resourceAttributes", _RESOURCE),
        2: ("nonResourceAttributes", _message({1: ("path", _text), 2: ("verb", _text)})),
    }
)
_KINDS: dict[str, Reader] = {
    "Namespace": _message({1: ("metadata", _META)}),
    "ConfigMap": _message(
        {
            1: ("metadata", _META),
            2: ("data", _Map(_text)),
            3: ("binaryData", _Map(_base64)),
            4: ("immutable", bool),
        }
    ),
    "Secret": _message(
        {
            1: ("metadata", _META),
            2: ("data", _Map(_base64)),
            3: ("type", _text),
            4: ("stringData", _Map(_text)),
            5: ("immutable", bool),
        }
    ),
    "ServiceAccount": _message(
        {1: ("metadata", _META), 2: ("secrets", _Many(_REF)), 3: ("imagePullSecrets", _Many(_LOCAL_REF))}
    ),
    "SelfSubjectAccessReview": _message({1: ("metadata", _META), 2: ("spec", _ACCESS)}),
    "SelfSubjectRulesReview": _message(
        {1: ("metadata", _META), 2: ("spec", _message({1: ("namespace", _text)}))}
    ),
    "SelfSubjectReview": _message({1: ("metadata", _META)}),
}
_UNKNOWN = _message(
    {1: ("type", _message({1: ("apiVersion", _text), 2: ("kind", _text)})), 2: ("raw", bytes)}
)


def decode(body: bytes) -> Json | None:
    """The object in a protobuf body; None when it is of a kind we do not read. 400 when it is broken."""
    if not body.startswith(_MAGIC):
        raise bad_request("the body is not Kubernetes protobuf as its header says")
    try:
        outer = _UNKNOWN(body[4:])
        names = outer.get("type", {})
        reader = _KINDS.get(names.get("kind", ""))
        if reader is None:
            return None
        return {"metadata": {}, **names, **reader(outer.get("raw", b""))}
    except (ValueError, IndexError) as error:
        raise bad_request(f"the protobuf body cannot be read: {error}") from None
