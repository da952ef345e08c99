"""Garbage collection: children follow their owners, namespaces and kinds go when they are empty, events age.

Level-triggered: a change only marks a key; what to do is read from the store when the key's turn comes.
"""

import asyncio
import logging
import time
from datetime import datetime

import orjson

from datatunerx.server import builtin, deletes
from datatunerx.server.deletes import FOREGROUND, ORPHAN
from datatunerx.server.errors import Json
from datatunerx.server.kinds import Kind, Registry
from datatunerx.store import Event, Key, Store, StoreError

log = logging.getLogger(__name__)

EVENT_TTL_SECONDS = 3600
SWEEP_SECONDS = 60.0
RETRY_SECONDS = 1.0


class Collector:
    """Knows who owns whom, and acts when an owner goes."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._alive: dict[str, Key] = {}
        self._owners: dict[Key, tuple[str, ...]] = {}
        self._children: dict[str, set[Key]] = {}
        self._ending: set[Key] = set()
        """Namespaces and CRDs that go when they are empty."""
        self._marked: dict[Key, None] = {}
        self._wake = asyncio.Event()

    def load(self, resources: list[str]) -> None:
        """Learn what there is; mark what a crash may have left half done."""
        for resource in resources:
            for entry in self._store.entries(resource):
                self._learn(entry.key, entry.decode())
        self._store.listen(self.on_event)

    def on_event(self, event: Event) -> None:
        """Keep the index and mark whom the change concerns."""
        obj: Json = orjson.loads(event.data)
        if event.type != "DELETED":
            return self._learn(event.key, obj)
        uid = obj["metadata"]["uid"]
        self._alive.pop(uid, None)
        self._ending.discard(event.key)
        for owner in self._owners.pop(event.key, ()):
            self._children.get(owner, set()).discard(event.key)
            if owner in self._alive:
                self._mark(self._alive[owner])
        for child in self._children.pop(uid, ()):
            self._mark(child)
        for key in self._ending:
            self._mark(key)

    def _learn(self, key: Key, obj: Json) -> None:
        meta = obj["metadata"]
        self._alive[meta["uid"]] = key
        owners = tuple(owner["uid"] for owner in meta.get("ownerReferences") or ())
        moved = owners != self._owners.get(key, ())
        if moved:
            for owner in self._owners.pop(key, ()):
                self._children.get(owner, set()).discard(key)
            if owners:
                self._owners[key] = owners
            for owner in owners:
                self._children.setdefault(owner, set()).add(key)
        deleting = "deletionTimestamp" in meta
        if deleting and key.resource in (builtin.NAMESPACES, builtin.CRDS):
            self._ending.add(key)
        if moved or deleting:  # owners that stayed the same are looked at when they go
            self._mark(key)

    def _mark(self, key: Key) -> None:
        self._marked[key] = None
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        next_sweep = time.monotonic()
        while True:
            wait = max(0.0, next_sweep - time.monotonic())
            try:
                # Not wait_for: in Python 3.11 it can swallow a cancellation that comes with the wake-up.
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                next_sweep = time.monotonic() + SWEEP_SECONDS
                self._sweep_events()
            self._wake.clear()
            await self.settle()

    async def settle(self) -> None:
        """Treat everything marked until nothing is."""
        while self._marked:
            key = next(iter(self._marked))
            del self._marked[key]
            try:
                await self._treat(key)
            except StoreError as error:
                log.warning("collection put off", extra={"key": "/".join(key), "error": str(error)})
                asyncio.get_running_loop().call_later(RETRY_SECONDS, self._mark, key)

    async def _treat(self, key: Key) -> None:
        entry = self._store.latest(key)
        if entry is None:
            return
        obj = entry.decode()
        meta = obj["metadata"]
        if "deletionTimestamp" in meta:
            if key in self._ending:
                return await self._empty(key)
            finalizers = meta.get("finalizers") or []
            if ORPHAN in finalizers:
                await self._orphan(meta["uid"])
                return await self._drop_finalizer(key, ORPHAN)
            if FOREGROUND in finalizers:
                return await self._foreground(key, meta["uid"])
        await self._follow_owners(key, meta)

    async def _follow_owners(self, key: Key, meta: Json) -> None:
        owners = meta.get("ownerReferences") or []
        gone = [owner["uid"] for owner in owners if not self._owns(owner["uid"], key)]
        if not gone:
            return
        if len(gone) < len(owners):
            return await self._strip(key, set(gone))
        if "deletionTimestamp" not in meta:
            await self._remove(key, "Background")

    def _owns(self, uid: str, child: Key) -> bool:
        owner = self._alive.get(uid)
        return owner is not None and owner.namespace in ("", child.namespace)

    async def _foreground(self, key: Key, uid: str) -> None:
        blocked = False
        for child in sorted(self._children.get(uid, ())):
            entry = self._store.latest(child)
            if entry is None:
                continue
            meta = entry.decode()["metadata"]
            owners = meta.get("ownerReferences") or []
            if any(o["uid"] != uid and self._stays(o["uid"], child) for o in owners):
                await self._strip(child, {uid})
                continue
            owner: Json = next((o for o in owners if o["uid"] == uid), {})
            blocked = blocked or bool(owner.get("blockOwnerDeletion"))
            if "deletionTimestamp" not in meta:
                await self._remove(child, "Foreground" if self._children.get(meta["uid"]) else "Background")
        if not blocked:
            await self._drop_finalizer(key, FOREGROUND)

    def _stays(self, uid: str, child: Key) -> bool:
        """Whether an owner keeps the child: it is there, and does not wait for its children to go."""
        entry = self._store.latest(self._alive[uid]) if self._owns(uid, child) else None
        return entry is not None and FOREGROUND not in (entry.decode()["metadata"].get("finalizers") or ())

    async def _orphan(self, uid: str) -> None:
        for child in sorted(self._children.get(uid, ())):
            await self._strip(child, {uid})

    async def _strip(self, key: Key, uids: set[str]) -> None:
        entry = self._store.latest(key)
        if entry is None:
            return
        obj = entry.decode()
        left = [o for o in obj["metadata"].get("ownerReferences") or () if o["uid"] not in uids]
        obj["metadata"]["ownerReferences"] = left
        if not left:
            del obj["metadata"]["ownerReferences"]
        await self._store.write(key, obj, entry.version)

    async def _drop_finalizer(self, key: Key, finalizer: str) -> None:
        entry = self._store.latest(key)
        if entry is None:
            return
        obj = entry.decode()
        left = [f for f in obj["metadata"].get("finalizers") or () if f != finalizer]
        obj["metadata"]["finalizers"] = left
        if left:
            await self._store.write(key, obj, entry.version)
        else:
            del obj["metadata"]["finalizers"]
            await self._store.delete(key, obj, entry.version)

    async def _remove(self, key: Key, policy: str) -> None:
        entry, kind = self._store.latest(key), self._kind(key)
        if entry is not None and kind is not None:
            await deletes.remove(self._store, kind, entry, policy)

    def _kind(self, key: Key) -> Kind | None:
        return self._registry.of_resource(key.resource)

    async def _empty(self, key: Key) -> None:
        """Delete what a namespace or a kind still holds; when nothing is left, the thing itself."""
        if key.resource == builtin.CRDS:
            places: list[tuple[str, str | None]] = [(key.name, None)]
        else:
            places = [(k.resource, key.name) for k in self._registry if k.namespaced and not k.facade]
        for resource, namespace in places:
            for found in self._store.entries(resource, namespace):
                entry = self._store.latest(found.key)
                if entry is not None and "deletionTimestamp" not in entry.decode()["metadata"]:
                    await self._remove(found.key, "Background")
        if any(self._store.entries(resource, namespace) for resource, namespace in places):
            return  # finalizers hold some; their deletion marks this key again
        entry = self._store.latest(key)
        if entry is not None:
            await self._store.delete(key, entry.decode(), entry.version)

    def _sweep_events(self) -> None:
        oldest = time.time() - EVENT_TTL_SECONDS
        for entry in self._store.entries(builtin.EVENTS):
            event = entry.decode()
            if _seen(event) < oldest and self._store.latest(entry.key) == entry:
                self._store.stage(entry.key, event, entry.version, delete=True)


def _seen(event: Json) -> float:
    """When an event last happened, in seconds since 1970; now, when it does not say."""
    for stamp in (builtin.last_seen(event), event["metadata"].get("creationTimestamp", "")):
        try:
            return datetime.fromisoformat(stamp).timestamp()
        except ValueError:
            continue
    return time.time()
