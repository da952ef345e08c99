"""The controllers and the backend they start runs on, over any API: beside our server, or as the operator."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from datatunerx.app.machine import machine
from datatunerx.app.settings import Settings
from datatunerx.client import Api
from datatunerx.compute import LocalBackend
from datatunerx.controllers import run_controllers
from datatunerx.controllers.context import Settings as ControllerSettings
from datatunerx.store.lock import DirectoryLock


def claim_compute(home: Path) -> DirectoryLock:
    """The right to start and end the runs of `home`: two backends would start each run twice.

    Ends with the process, however that ends. Raises Locked, which names who has it.
    """
    folder = home / "compute"
    folder.mkdir(mode=0o700, exist_ok=True)
    return DirectoryLock(folder / "lock")


@asynccontextmanager
async def controlled(api: Api, settings: Settings) -> AsyncIterator[asyncio.Task[None]]:
    """Controllers that act for as long as the block lasts; the task they run in. The home must be claimed.

    Workers outlive the block and are adopted by the next backend of the same home.
    """
    here = machine(settings.gpus)
    data = settings.home / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    backend = LocalBackend(settings.home, gpus=settings.gpus, memory_bytes=here.memory_bytes)
    stop = asyncio.Event()
    told = ControllerSettings(
        root_uri=data.as_uri(),
        private_uri=settings.home.as_uri(),
        allowed_uris=tuple(folder.as_uri() for folder in settings.allow_paths),
        devices=here.devices,
        gpus=here.gpus,
        memory_bytes=here.memory_bytes,
        auto_precision=here.precision,
        poll_seconds=settings.poll_seconds,
    )
    controlling = asyncio.create_task(run_controllers(api, backend, told, stop=stop), name="controllers")
    try:
        yield controlling
    finally:
        stop.set()
        await asyncio.gather(controlling, return_exceptions=True)
        backend.close()
