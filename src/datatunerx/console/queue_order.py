"""The order of what waits, and how it is changed by priorities alone. Pure.

What waits goes by priority, then by age, then by name: that is the scheduler's rule, not ours. An order is
asked for by changing as few priorities as do.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Waiting(NamedTuple):
    name: str
    priority: int
    created: str


def in_order(items: Sequence[Waiting]) -> list[Waiting]:
    """As they will be taken."""
    return sorted(items, key=lambda item: (-item.priority, item.created, item.name))


def moved(items: Sequence[Waiting], name: str, by: int) -> list[str]:
    """The names in order, with one so many places further down; a place beyond an end is the end."""
    names = [item.name for item in in_order(items)]
    if name in names:
        place = names.index(name)
        names.insert(max(0, min(place + by, len(names) - 1)), names.pop(place))
    return names


def priorities(items: Sequence[Waiting], order: Sequence[str]) -> dict[str, int]:
    """The new priorities that put them in that order, only those that change.

    What the order does not name keeps its place behind what it stands behind now; names of what waits no
    longer are passed over.
    """
    by_name = {item.name: item for item in items}
    wanted = [by_name[name] for name in dict.fromkeys(order) if name in by_name]
    for item in in_order(items):
        if item not in wanted:
            before = [other for other in wanted if _before(other, item)]
            wanted.insert(wanted.index(before[-1]) + 1 if before else 0, item)
    return min(_raised(wanted), _lowered(wanted), key=len)


def _before(one: Waiting, other: Waiting) -> bool:
    return in_order([one, other])[0] == one


def _natural(one: Waiting, other: Waiting) -> bool:
    """Whether it goes first if both have the same priority."""
    return (one.created, one.name) < (other.created, other.name)


def _raised(wanted: Sequence[Waiting]) -> dict[str, int]:
    found: dict[str, int] = {}
    for place in range(len(wanted) - 2, -1, -1):
        item, after = wanted[place], wanted[place + 1]
        least = found.get(after.name, after.priority) + (0 if _natural(item, after) else 1)
        if item.priority < least:
            found[item.name] = least
    return found


def _lowered(wanted: Sequence[Waiting]) -> dict[str, int]:
    found: dict[str, int] = {}
    for place in range(1, len(wanted)):
        item, ahead = wanted[place], wanted[place - 1]
        most = found.get(ahead.name, ahead.priority) - (0 if _natural(ahead, item) else 1)
        if item.priority > most:
            found[item.name] = most
    return found
