"""What every reconciler is given: the API, a view of the world, the backend, the settings."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from datatunerx.client.api import Api
from datatunerx.client.informer import Key
from datatunerx.compute.backend import Backend
from datatunerx.controllers.following import Feeds
from datatunerx.resources.enums import Precision
from datatunerx.resources.wire import Resource

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True)
class Settings:
    root_uri: str
    """Folder of all data: runs, artifacts, models and cache lie below it. file:// only."""
    private_uri: str | None = None
    """Folder with the server's own files, which no Dataset and no LLM may name."""
    allowed_uris: tuple[str, ...] = ()
    """Folders whose files everybody's Datasets and LLMs may name; beyond them only their owner's may."""
    devices: int = 1
    """Runs that may train at the same time: GPUs, or 1 for the CPU."""
    gpus: int = 0
    """GPUs there are; a training that asks for more waits and is never given a Run."""
    memory_bytes: int = 8 << 30
    """Memory of one device; decides how many trainings share a run."""
    auto_precision: Precision = Precision.FLOAT32
    """What precision auto means here: float32 on a CPU, bfloat16 on a GPU."""
    settle_seconds: float = 0.3
    """How long placement waits for more trainings to come before it packs them."""
    poll_seconds: float = 1.0
    """Between two looks at a running worker."""
    status_seconds: float = 1.0
    """Between two status writes of one training whose phase stays the same."""
    heartbeat_seconds: float = 5.0
    """Between two writes of a Run's last heartbeat."""
    stall_seconds: float = 120.0
    """A running worker silent for this long is reported Stalled."""
    resync_seconds: float = 30.0
    """Every object is looked at this often even if nobody says that it changed."""
    workers: int = 4
    """Objects reconciled at the same time."""


class World(Protocol):
    """The objects as last seen; may be behind the API. Shared: copy an object before changing it."""

    def get(self, model: type[R], namespace: str, name: str) -> R | None: ...

    def all(self, model: type[R], namespace: str | None) -> list[R]:
        """In order of name; None is all namespaces, one after the other."""
        ...

    def owned(self, model: type[R], uid: str) -> list[R]:
        """Objects that name `uid` as an owner, in order of name."""
        ...


@dataclass(frozen=True)
class Context:
    api: Api
    world: World
    backend: Backend
    settings: Settings
    feeds: Feeds = field(default_factory=Feeds)
    """What running workers have said so far; made again from their files after a restart."""
    clock: Callable[[], float] = time.time
    """Seconds since 1970."""


class Reconciler(Protocol):
    """Gets a name, reads the world, writes its own kind's status, says in how many seconds to look again."""

    async def reconcile(self, key: Key) -> float | None: ...
