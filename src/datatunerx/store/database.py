"""The SQLite file: its tables, how it is opened, what is read from it at start.

A change is one row of `log` (in order of version, with the object before it); a trigger keeps `current`, the
newest version of each object, in step within the same transaction. `meta` remembers what `log` forgot.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datatunerx.store.errors import Broken
from datatunerx.store.model import Entry, Event, Key, Seals

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE log (
    version INTEGER PRIMARY KEY, type TEXT NOT NULL, resource TEXT NOT NULL, namespace TEXT NOT NULL,
    name TEXT NOT NULL, data BLOB NOT NULL, prev BLOB, at REAL NOT NULL
);
CREATE TABLE current (
    resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL,
    data BLOB NOT NULL, PRIMARY KEY (resource, namespace, name)
) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('version', 0), ('floor', 0);
"""

# Not in the file but in the writing connection: a batch is then one statement, and so one turn of the
# interpreter's lock, which a busy loop gives away only once in a while.
_TRIGGERS = """
CREATE TEMP TRIGGER keep_current AFTER INSERT ON main.log WHEN NEW.type <> 'DELETED' BEGIN
    INSERT OR REPLACE INTO current VALUES (NEW.resource, NEW.namespace, NEW.name, NEW.version, NEW.data);
END;
CREATE TEMP TRIGGER drop_current AFTER INSERT ON main.log WHEN NEW.type = 'DELETED' BEGIN
    DELETE FROM current WHERE resource = NEW.resource AND namespace = NEW.namespace AND name = NEW.name;
END;
"""


def connect(path: Path) -> sqlite3.Connection:
    """A connection fit for writing: WAL, and every commit on the disk before it returns."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    db.execute("PRAGMA journal_mode = WAL")
    # FULL: a commit returns only after its fsync; NORMAL would lose acknowledged writes at power loss.
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA wal_autocheckpoint = 2000")
    return db


def prepare(db: sqlite3.Connection) -> None:
    """Make the tables in a new file; refuse a file from a newer release."""
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found > SCHEMA_VERSION:
        raise Broken(
            f"the database has schema {found}, this release knows {SCHEMA_VERSION}; use the newer release"
        )
    if found == 0:
        db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


def counters(db: sqlite3.Connection) -> tuple[int, int]:
    """(version, floor): the newest version given out, and the newest one no longer in the log."""
    found = dict(db.execute("SELECT name, value FROM meta"))
    newest = db.execute("SELECT MAX(version) FROM log").fetchone()[0]
    return max(found["version"], found["floor"], newest or 0), found["floor"]


def place(resource: str, namespace: str, name: str) -> bytes:
    """What sealed bytes are bound to: no object's bytes open as another's."""
    return f"{resource}\0{namespace}\0{name}".encode()


def bind(db: sqlite3.Connection, seals: Seals) -> None:
    """Seal anew, all or none, what was sealed before sealed bytes were bound to their place.

    What does not open stays as it is: reading it tells why.
    """
    db.execute("BEGIN IMMEDIATE")
    for resource, seal in seals.items():
        for table, columns in (("current", ("data",)), ("log", ("data", "prev"))):
            rows = db.execute(
                f"SELECT version, namespace, name, {', '.join(columns)} FROM {table} WHERE resource = ?",
                (resource,),
            ).fetchall()
            for version, namespace, name, *stored in rows:
                at = place(resource, namespace, name)
                if not any(data and seal.is_unbound(data) for data in stored):
                    continue
                try:
                    fresh = [data and seal.seal(seal.unseal(data, at), at) for data in stored]
                except ValueError:
                    continue
                assigned = ", ".join(f"{column} = ?" for column in columns)
                db.execute(f"UPDATE {table} SET {assigned} WHERE version = ?", (*fresh, version))
    db.execute("COMMIT")


def read_current(db: sqlite3.Connection, seals: Seals, locked: dict[str, str]) -> Iterator[Entry]:
    """Every object as it is now. A resource that cannot be unsealed is left out; `locked` says why."""
    for resource, namespace, name, version, data in db.execute(
        "SELECT resource, namespace, name, version, data FROM current"
    ):
        if resource in locked:
            continue
        if seal := seals.get(resource):
            try:
                data = seal.unseal(data, place(resource, namespace, name))
            except ValueError as error:
                locked[resource] = str(error)
                continue
        yield Entry(Key(resource, namespace, name), version, data)


def read_log(db: sqlite3.Connection, seals: Seals, locked: dict[str, str]) -> Iterator[Event]:
    """The kept history, newest first, so that the reader may stop when it has enough; `locked` as above."""
    for version, type_, resource, namespace, name, data, prev, at in db.execute(
        "SELECT version, type, resource, namespace, name, data, prev, at FROM log ORDER BY version DESC"
    ):
        if resource in locked:
            continue
        if seal := seals.get(resource):
            try:
                at_ = place(resource, namespace, name)
                data, prev = seal.unseal(data, at_), prev and seal.unseal(prev, at_)
            except ValueError as error:
                locked[resource] = str(error)
                continue
        yield Event(version, type_, Key(resource, namespace, name), data, prev, at)


def follow(db: sqlite3.Connection) -> None:
    """Make this connection keep `current` in step with `log`; before its first `apply`."""
    db.execute("PRAGMA temp_store = MEMORY")
    db.executescript(_TRIGGERS)


def apply(db: sqlite3.Connection, events: list[Event], seals: Seals) -> None:
    """Commit changes, all or none: returns when they are on the disk."""
    values: list[Any] = []
    for event in events:
        data, prev = event.data, event.prev
        if seal := seals.get(event.key.resource):
            at = place(*event.key)
            data, prev = seal.seal(data, at), prev and seal.seal(prev, at)
        values += (event.version, event.type, *event.key, data, prev, event.at)
    db.execute("INSERT INTO log VALUES " + ",".join(["(?,?,?,?,?,?,?,?)"] * len(events)), values)


def compact(db: sqlite3.Connection, floor: int, limit: int) -> bool:
    """Forget at most `limit` changes up to version `floor`; True when some are left to forget."""
    db.execute("BEGIN IMMEDIATE")
    rows = db.execute(
        "SELECT version FROM log WHERE version <= ? ORDER BY version LIMIT ?", (floor, limit)
    ).fetchall()
    if rows:
        db.execute("DELETE FROM log WHERE version <= ?", (rows[-1][0],))
        db.execute("UPDATE meta SET value = MAX(value, ?) WHERE name = 'floor'", (rows[-1][0],))
    db.execute("COMMIT")
    return len(rows) == limit
