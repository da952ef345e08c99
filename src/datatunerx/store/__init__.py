"""Versioned objects on SQLite: a log table, a current table, one writer thread, a watch cache."""

from datatunerx.store.errors import Broken, Busy, Conflict, DiskFull, Expired, Locked, StoreError
from datatunerx.store.model import Entry, Event, Json, Key, Seal, Seals
from datatunerx.store.store import Store
from datatunerx.store.watch import Watch

__all__ = [
    "Broken",
    "Busy",
    "Conflict",
    "DiskFull",
    "Entry",
    "Event",
    "Expired",
    "Json",
    "Key",
    "Locked",
    "Seal",
    "Seals",
    "Store",
    "StoreError",
    "Watch",
]
