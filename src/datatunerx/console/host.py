"""What the machine that serves the pages offers: told by the app, where controllers use this machine too."""

from collections.abc import Callable
from typing import NamedTuple

from datatunerx.resources.enums import Precision


class Device(NamedTuple):
    """One device and how it is used."""

    name: str
    """As in a Run's status.devices."""
    model: str
    memory_bytes: int
    used_bytes: int
    busy: float
    """From 0 to 1."""


class Host(NamedTuple):
    """As placement reckons with it."""

    gpus: int
    devices: int
    """Runs that may train at the same time."""
    memory_bytes: int
    """Of one device."""
    free_bytes: int
    """Of the disk that checkpoints are written to."""
    precision: Precision
    """What `auto` means here."""
    look: Callable[[], tuple[Device, ...]] = tuple
    """How its devices are used now. May take a second: asked in a thread."""


Look = Callable[[], Host]
