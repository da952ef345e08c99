"""The console over a real server: in this process for what needs no browser, and as its own for Chromium."""

import re
import shutil
from typing import Any

import httpx
import pytest

from datatunerx.client import Api, InProcess
from datatunerx.client.bearer import Bearer
from datatunerx.console import PREFIX, Sessions, create_console
from datatunerx.resources.crds import crd_manifests
from datatunerx.server.app import create_app
from datatunerx.server.state import open_state
from datatunerx.server.tokens import Tokens, User

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ADMIN_TOKEN, VIEWER_TOKEN = "a" * 40, "v" * 40
HOST = "https://127.0.0.1"


class Console:
    """A visitor without a browser: cookies, and the CSRF token of the last page."""

    def __init__(self, app: Any, api: Api, sessions: Sessions) -> None:
        self.api, self.sessions, self._app = api, sessions, app
        self.csrf = ""
        self.http = self.another()

    def another(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url=HOST)

    async def login(self, token: str = ADMIN_TOKEN) -> None:
        answer = await self.http.get(f"{PREFIX}/login?once={self.sessions.link(token)}")
        assert answer.status_code == 303, answer.text

    async def get(self, path: str, code: int = 200, **options: Any) -> str:
        answer = await self.http.get(f"{PREFIX}/ns/default/{path}", **options)
        assert answer.status_code == code, answer.text
        if found := re.search(r'"X-CSRF-Token":"(\w+)"', answer.text):
            self.csrf = found[1]
        return answer.text

    async def post(self, path: str, fields: dict[str, Any], code: int = 200) -> httpx.Response:
        headers = {"x-csrf-token": self.csrf, "origin": HOST, "hx-request": "true"}
        answer = await self.http.post(f"{PREFIX}/ns/default/{path}", data=fields, headers=headers)
        assert answer.status_code == code, answer.text
        return answer


@pytest.fixture
async def console(tmp_path):
    """The real server with the console mounted; nothing reconciles, so a test may write every status."""
    state = open_state(tmp_path / "home")
    admin = User("ada", role="admin", namespaces=("*",), groups=("system:masters", "system:authenticated"))
    viewer = User("vera", role="viewer", namespaces=("default",))
    sessions = Sessions(b"secret")
    app = create_app(
        state.store, crd_manifests(), tokens=Tokens.of({ADMIN_TOKEN: admin, VIEWER_TOKEN: viewer}),
        pages={PREFIX: create_console(lambda token: Api(Bearer(InProcess(app, user=""), token)), sessions)},
    )  # fmt: skip
    await app.start()
    made = Console(app, Api(InProcess(app)), sessions)
    yield made
    await made.http.aclose()
    await app.stop()
    await state.store.close()
