"""Which service gives up its device when other runs wait for one. Pure: facts in, decision out.

The rule, also in docs/serving.md: an idle service gives up its device at once to whatever waits. A busy one
does so after its current answers if what waits has a higher priority, or has waited for PATIENCE_SECONDS.
"""

from collections.abc import Iterable
from dataclasses import dataclass

QUIET_SECONDS = 15.0
"""Without a request for so long, a service is idle; a shorter pause is somebody reading the answer."""
PATIENCE_SECONDS = 300.0


@dataclass(frozen=True)
class Holder:
    """A serve run that holds a device."""

    run: str
    service: str
    priority: int
    busy_until: float
    """When it has been quiet for long enough, in seconds since 1970; infinite while requests are in hand."""
    leaving: bool = False
    """It was told to go already."""


@dataclass(frozen=True)
class Waiter:
    """A run that waits for a device and nothing else."""

    run: str
    service: str
    """Empty if it serves none."""
    priority: int
    since: float
    devices: int = 1


def yielding(holders: Iterable[Holder], waiters: Iterable[Waiter], now: float) -> dict[str, Waiter]:
    """The runs that have to go, and for whom: no more than are needed, those longest idle first.

    Runs that share a device leave one after the other, until what waits has begun.
    """
    left = sorted(holders, key=lambda h: (not h.leaving, h.busy_until, h.priority, h.run))
    going: dict[str, Waiter] = {}
    for waiter in sorted(waiters, key=lambda w: (-w.priority, w.since, w.run)):
        needed = waiter.devices
        for holder in list(left):
            if needed and holder.service != waiter.service and _gives_way(holder, waiter, now):
                going[holder.run] = waiter
                left.remove(holder)
                needed -= 1
    return going


def _gives_way(holder: Holder, waiter: Waiter, now: float) -> bool:
    idle = holder.busy_until <= now
    return (
        holder.leaving or idle or waiter.priority > holder.priority or now - waiter.since >= PATIENCE_SECONDS
    )
