"""A real server in this process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from datatunerx.client import Api, InProcess
from datatunerx.resources.crds import crd_manifests
from datatunerx.server.app import KubeApp, create_app
from datatunerx.server.tokens import Tokens
from datatunerx.store import Store


class Server:
    """Can be stopped and started again on its data; a small history forgets old versions soon."""

    def __init__(self, folder: Path, history_bytes: int = 32 << 20) -> None:
        self.folder = folder
        self.history_bytes = history_bytes
        self.store: Store
        self.app: KubeApp

    async def start(self) -> None:
        self.store = Store.open(self.folder, history_bytes=self.history_bytes)
        self.app = create_app(self.store, crd_manifests(), tokens=Tokens({}))
        await self.app.start()

    async def stop(self) -> None:
        await self.app.stop()
        await self.store.close()

    async def __call__(self, scope, receive, send) -> None:
        """As an ASGI app that is whichever server runs now."""
        await self.app(scope, receive, send)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(tmp_path)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def api(server: Server) -> Api:
    return Api(InProcess(server))
