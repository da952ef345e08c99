"""A mirror of one kind: list, then watch, for ever; what was missed in a gap is found by comparing."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Generic, NamedTuple, TypeVar, cast

from pydantic import ValidationError

from datatunerx.client.api import Api, Change, Json
from datatunerx.client.errors import ApiError, Gone
from datatunerx.client.queue import backoff_seconds, jittered
from datatunerx.resources.wire import API_VERSION, Resource

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 30.0
SHORT_SECONDS = 1.0
WATCH_SECONDS = 300.0
"""A watch is asked to end after one to two times this, and then resumed."""
LATE_SECONDS = 30.0
"""One that has not ended by then hangs on a connection that nobody has told us is gone."""

R = TypeVar("R", bound=Resource)


class Key(NamedTuple):
    namespace: str
    name: str


def key_of(obj: Resource) -> Key:
    return Key(obj.metadata.namespace, obj.metadata.name)


def _key(item: Json) -> Key:
    return Key(item["metadata"].get("namespace", "default"), item["metadata"]["name"])


class Informer(Generic[R]):
    """`on_change(old, new)` is called for every change: old None when added, new None when deleted.

    `on_refused(object, why)` is called with one that our model refuses; the cache keeps what it was before.
    Objects in the cache are shared: copy one before changing it.
    """

    def __init__(
        self,
        api: Api,
        model: type[R],
        on_change: Callable[[R | None, R | None], None] = lambda old, new: None,
        namespace: str | None = None,
        *,
        on_refused: Callable[[Json, str], None] = lambda obj, why: None,
    ) -> None:
        self._api = api
        self._model = model
        self._on_change = on_change
        self._on_refused = on_refused
        self._namespace = namespace
        self._cache: dict[Key, R] = {}
        self._owned: dict[str, set[Key]] = {}
        self.synced = asyncio.Event()
        """Set once the first list is in the cache."""
        self.relists = 0

    def get(self, key: Key) -> R | None:
        return self._cache.get(key)

    def all(self, namespace: str | None = None) -> list[R]:
        """In order of namespace and name."""
        found = [obj for key, obj in self._cache.items() if namespace in (None, key.namespace)]
        return sorted(found, key=key_of)

    def owned(self, uid: str) -> list[R]:
        """Objects that name `uid` among their owners, in order of namespace and name."""
        return [self._cache[key] for key in sorted(self._owned.get(uid, ()))]

    async def run(self) -> None:
        """Mirror until cancelled. A server that goes away is waited for, with a jittered back-off."""
        version = ""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                if not version:
                    version = await self._relist()
                seconds = WATCH_SECONDS * random.uniform(1, 2)
                async with asyncio.timeout(seconds + LATE_SECONDS):
                    async for newer in self._follow(version, seconds):
                        version, failures = newer, 0
                # Ended in good order: go on from the last version, but do not spin on a leaving server.
                failures = failures + 1 if time.monotonic() - began < SHORT_SECONDS else 0
            except Gone:
                version = ""
                failures += 1
            except (ApiError, ValueError, TimeoutError) as error:
                failures += 1
                why = str(error) or "it did not end in time"
                log.warning("watch interrupted", extra={"kind": self._model.kind_name, "error": why})
            if failures:
                wait = backoff_seconds(failures, FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS)
                await asyncio.sleep(jittered(wait))

    async def _relist(self) -> str:
        listed = await self._api.list_raw(self._model, self._namespace)
        self.relists += 1
        uids = {_key(item): item["metadata"].get("uid", "") for item in listed.items}
        for key in list(self._cache):
            # Another object may have the name now: the old one's deletion was missed.
            if uids.get(key) != self._cache[key].metadata.uid:
                self._forget(key)
        for item in listed.items:
            self._see(item)
        self.synced.set()
        return listed.version

    async def _follow(self, version: str, seconds: float) -> AsyncIterator[str]:
        changes = self._api.watch(
            self._model, self._namespace, version=version, timeout_seconds=max(1, round(seconds))
        )
        async with aclosing(cast(Any, changes)) as stream:
            async for change in stream:
                yield self._take(change)

    def _take(self, change: Change) -> str:
        version = str(change.object["metadata"]["resourceVersion"])
        if change.type == "BOOKMARK":
            return version
        if change.type == "DELETED":
            self._forget(_key(change.object))
        else:
            self._see(change.object)
        return version

    def _see(self, item: Json) -> None:
        # Items of a list may leave out what their kind is.
        item = {"apiVersion": API_VERSION, "kind": self._model.kind_name} | item
        try:
            obj = self._model.parse(item)
        except ValidationError as error:
            fields = {".".join(map(str, e["loc"])): e["msg"] for e in error.errors(include_url=False)}
            log.warning(
                "object that our models refuse left out",
                extra={"object": f"{self._model.kind_name}/{_key(item).name}", "fields": fields},
            )
            self._on_refused(item, "; ".join(f"{field}: {why}" for field, why in fields.items()))
        else:
            self._keep(obj)

    def _keep(self, obj: R) -> None:
        key = key_of(obj)
        old = self._cache.get(key)
        if old is not None and old.metadata.resource_version == obj.metadata.resource_version:
            return
        if old is not None:
            self._unown(key, old)
        self._cache[key] = obj
        for owner in obj.metadata.owner_references:
            self._owned.setdefault(owner.uid, set()).add(key)
        self._on_change(old, obj)

    def _forget(self, key: Key) -> None:
        old = self._cache.pop(key, None)
        if old is not None:
            self._unown(key, old)
            self._on_change(old, None)

    def _unown(self, key: Key, obj: R) -> None:
        for owner in obj.metadata.owner_references:
            keys = self._owned.get(owner.uid, set())
            keys.discard(key)
            if not keys:
                self._owned.pop(owner.uid, None)
