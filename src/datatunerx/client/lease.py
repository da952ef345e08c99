"""Leader election by a Lease, as Kubernetes' own controllers do it: of many, one acts.

Clocks of different machines are never compared: a lease has run out when it has not changed for its
duration by the clock of who looks. Its holder stops acting earlier, so two never act at once.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from datatunerx.client.api import Api, Json, Plural
from datatunerx.client.errors import AlreadyExists, ApiError, Conflict, NotFound
from datatunerx.client.queue import jittered
from datatunerx.client.transport import Transport

log = logging.getLogger(__name__)

LEASES = Plural("coordination.k8s.io", "v1", "leases")
_HEAD = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class NotLeading(ApiError):
    """We are not the leader any more, or not yet: the request was not sent."""


@dataclass(frozen=True)
class Pace:
    """Seconds. A leader acts for `renew` after its last renewal; another may follow after `lease`."""

    lease: float = 15.0
    renew: float = 10.0
    retry: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.retry < self.renew < self.lease or self.lease < 1:
            raise ValueError(
                f"lease {self.lease:g}, renew {self.renew:g}, retry {self.retry:g}: "
                "must be retry < renew < lease, and lease at least 1 s"
            )


def now() -> float:
    """Seconds that pass while the machine sleeps, too: a laptop may wake up when its lease has run out."""
    return time.clock_gettime(_CLOCK)


class Lease:
    """One candidate for one Lease. `identity` must be its own alone, also after a restart."""

    def __init__(self, api: Api, name: str, namespace: str, identity: str, pace: Pace | None = None) -> None:
        self._api, self._name, self._namespace = api, name, namespace
        self.identity = identity
        self.pace = pace or Pace()
        self._until = 0.0
        self._seen: Json = {}
        self._changed_at = 0.0
        self._trouble = ""

    @property
    def held(self) -> bool:
        """Whether we may act now."""
        return now() < self._until

    @property
    def holder(self) -> str:
        """Who held it when we last looked."""
        return str(self._seen.get("holderIdentity") or "")

    async def acquire(self, ready: Callable[[], bool] = lambda: True) -> None:
        """Wait until it is ours. A server that does not answer is waited for.

        As long as `ready` says no the Lease is only looked at, so that its running out is seen in time.
        """
        told = ""
        while not await self._try(claim=ready()):
            if self.holder not in (told, "", self.identity):
                told = self.holder
                log.info("standing by", extra={"lease": self._name, "leader": told})
            await asyncio.sleep(jittered(self.pace.retry))
        log.info("leading", extra={"lease": self._name, "identity": self.identity})

    async def keep(self) -> None:
        """Renew for as long as it can be; return when we may not act any more."""
        while self.held:
            await asyncio.sleep(min(self.pace.retry, max(0.0, self._until - now())))
            if not self.held:
                break  # slept for too long: it may still be ours, and another may have had it meanwhile
            if not await self._try() and self.holder != self.identity:
                self._until = 0.0  # another has it: it does not matter how
        log.warning("leading no more", extra={"lease": self._name, "leader": self.holder})

    async def release(self) -> None:
        """Give it back, so that the next need not wait. Best effort: else it runs out by itself."""
        if not self.held:
            return
        self._until = 0.0
        try:
            async with asyncio.timeout(self.pace.retry):
                found = await self._api.get(LEASES, self._name, self._namespace)
                if (found.get("spec") or {}).get("holderIdentity") == self.identity:
                    await self._write(found, {"holderIdentity": None, "leaseDurationSeconds": 1})
        except (ApiError, TimeoutError) as error:
            log.warning("lease not released", extra={"lease": self._name, "error": str(error)})

    async def _try(self, *, claim: bool = True) -> bool:
        """Acquire or renew it once; False if it is another's, or if that cannot be known."""
        began = now()
        try:
            async with asyncio.timeout(self._until - began if self.held else self.pace.renew):
                ours = await self._acquire_or_renew(began, claim)
        except (Conflict, AlreadyExists):
            return False  # somebody was faster; the next look tells who
        except (ApiError, TimeoutError) as error:
            said = str(error) or "no answer in time"
            if said != self._trouble:
                log.warning("lease not reached", extra={"lease": self._name, "error": said})
            self._trouble = said
            return False
        self._trouble = ""
        if ours:
            self._until = began + self.pace.renew
        return ours

    async def _acquire_or_renew(self, at: float, claim: bool) -> bool:
        try:
            found = await self._api.get(LEASES, self._name, self._namespace)
        except NotFound:
            if not claim:
                return False
            metadata = {"name": self._name, "namespace": self._namespace}
            lease = {**_HEAD, "metadata": metadata, "spec": self._claim({})}
            self._note(await self._api.create_raw(LEASES, lease, self._namespace), at)
            return True
        spec = self._note(found, at)
        holder = spec.get("holderIdentity")
        if holder not in (None, "", self.identity):
            lasts = float(spec.get("leaseDurationSeconds") or self.pace.lease)
            if at < self._changed_at + lasts:
                return False
        if not claim:
            return False
        self._note(await self._write(found, self._claim(spec)), at)
        return True

    def _note(self, found: Json, at: float) -> Json:
        """What the Lease says, and since when by our own clock."""
        spec: Json = found.get("spec") or {}
        if spec != self._seen:
            self._seen, self._changed_at = spec, at
        return spec

    def _claim(self, before: Json) -> Json:
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        claim: Json = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": math.ceil(self.pace.lease),
            "renewTime": stamp,
        }
        if before.get("holderIdentity") != self.identity:
            claim["acquireTime"] = stamp
            claim["leaseTransitions"] = int(before.get("leaseTransitions", -1)) + 1
        return claim

    async def _write(self, found: Json, spec: Json) -> Json:
        """Conflict if it is not as it was found any more."""
        version = {"resourceVersion": found["metadata"]["resourceVersion"]}
        return await self._api.patch(LEASES, self._name, {"metadata": version, "spec": spec}, self._namespace)


class Fenced:
    """A transport that sends nothing once the lease has run out, whatever its users still wish to do."""

    def __init__(self, inner: Transport, lease: Lease) -> None:
        self._inner, self._lease = inner, lease

    async def request(self, *args: Any, **kwargs: Any) -> Any:
        self._check()
        return await self._inner.request(*args, **kwargs)

    def stream(self, *args: Any, **kwargs: Any) -> Any:
        self._check()
        return self._inner.stream(*args, **kwargs)

    def _check(self) -> None:
        if not self._lease.held:
            raise NotLeading(0, "NotLeading", f"{self._lease.identity} does not lead any more")
