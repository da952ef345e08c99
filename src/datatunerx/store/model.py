"""The few shapes a store speaks: keys, entries, events and what is written."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

import orjson

Json = dict[str, Any]
EventType = Literal["ADDED", "MODIFIED", "DELETED"]


class Key(NamedTuple):
    """Where an object lives. `resource` is plural.group, or the bare plural of the core group."""

    resource: str
    namespace: str
    """Empty for what belongs to no namespace."""
    name: str


class Entry(NamedTuple):
    """One version of one object, kept as the JSON bytes that clients receive."""

    key: Key
    version: int
    data: bytes

    def decode(self) -> Json:
        """A fresh dict; the caller may change it."""
        obj: Json = orjson.loads(self.data)
        return obj


class Event(NamedTuple):
    """One change. `data` is the object after it (for DELETED: as it last was), `prev` before it."""

    version: int
    type: EventType
    key: Key
    data: bytes
    prev: bytes | None
    at: float
    """Seconds since 1970."""

    @property
    def size(self) -> int:
        """Bytes this event is charged in the history; the overhead is an estimate of the Python objects."""
        return len(self.data) + len(self.prev or b"") + 300


class Seal(Protocol):
    """How the objects of one resource are made unreadable on disk."""

    def seal(self, data: bytes, place: bytes) -> bytes:
        """Plain bytes in, stored bytes out, which open at this place only."""

    def unseal(self, data: bytes, place: bytes) -> bytes:
        """The reverse; ValueError when the bytes were changed or moved, or the key is another one."""

    def is_unbound(self, data: bytes) -> bool:
        """Whether the stored bytes open anywhere: they are sealed anew when the store is opened."""


Seals = Mapping[str, Seal]


def encode(obj: Json, version: int) -> bytes:
    """The object's bytes with its version written into the metadata."""
    obj["metadata"]["resourceVersion"] = str(version)
    return orjson.dumps(obj)
