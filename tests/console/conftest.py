"""The console over a real server: in this process for what needs no browser, and as its own for Chromium."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from datatunerx.client import Api, InProcess
from datatunerx.client.bearer import Bearer
from datatunerx.client.https import Https
from datatunerx.client.kubeconfig import load
from datatunerx.console import PREFIX, Sessions, create_console
from datatunerx.resources.crds import crd_manifests
from datatunerx.server import uploads
from datatunerx.server.app import create_app
from datatunerx.server.state import open_state
from datatunerx.server.tokens import Tokens, User

from .workers import inspected, score, tell
from .world import fill, queued

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ADMIN_TOKEN, VIEWER_TOKEN = "a" * 40, "v" * 40
HOST = "https://127.0.0.1"


class Console:
    """A visitor without a browser: cookies, and the CSRF token of the last page."""

    def __init__(self, app: Any, api: Api, sessions: Sessions, root: Path) -> None:
        self.api, self.sessions, self._app, self.root = api, sessions, app, root
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
        state.store,
        crd_manifests(),
        tokens=Tokens.of({ADMIN_TOKEN: admin, VIEWER_TOKEN: viewer}),
        log_root=tmp_path / "home" / "data",
        mounts={uploads.PREFIX: uploads.Uploads(tmp_path / "home" / "data" / "uploads")},
        pages={PREFIX: create_console(lambda token: Api(Bearer(InProcess(app, user=""), token)), sessions)},
    )
    await app.start()
    made = Console(app, Api(InProcess(app)), sessions, tmp_path / "home" / "data")
    yield made
    await made.http.aclose()
    await app.stop()
    await state.store.close()


@pytest.fixture
async def filled(console):
    """A visitor who has logged in where everything is."""
    await fill(console.api)
    await console.login()
    return console


@pytest.fixture
async def told(filled):
    """The same where runs have told of their jobs."""
    await tell(filled.api, filled.root)
    return filled


# Chromium


@dataclass
class Place:
    """A server of its own process, and a way to log in."""

    url: str
    home: Path
    environment: dict[str, str]

    def link(self) -> str:
        """A one-time link, as `dtx console` prints it."""
        command = [sys.executable, "-m", "datatunerx.cli", "console"]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=120, check=True
        )
        return done.stdout.strip()


@contextmanager
def _served(home: Path, *options: str) -> Iterator[Place]:
    """`dtx up` in a process of its own."""
    environment = {**os.environ, "DTX_HOME": str(home), "NO_COLOR": "1"}
    environment.pop("DTX_KUBECONFIG", None)
    command = [sys.executable, "-m", "datatunerx.cli", "up", "--port", "0", *options]
    log = home.parent / "up.log"  # not a pipe: nobody reads it, and a full one would hold the server
    with log.open("w") as errors:
        server = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=errors)
    assert server.stdout is not None
    try:
        found = re.search(r"https://\S+:\d+", server.stdout.readline())
        assert found, f"it said nothing but {log.read_text()}"
        yield Place(found[0], home, environment)
    finally:
        server.terminate()
        server.communicate(timeout=60)


@pytest.fixture(scope="module")
def alive(tmp_path_factory) -> Iterator[Place]:
    """`dtx up` with controllers and nothing in it. A module that names it `place` browses there."""
    with _served(tmp_path_factory.mktemp("console") / "home") as place:
        yield place


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    """`dtx up` without controllers, and the whole world in it."""
    home = tmp_path_factory.mktemp("console") / "home"

    async def filled() -> None:
        async with Https(load(home / "kubeconfig")) as transport:
            await fill(Api(transport))
            await tell(Api(transport), home / "data")
            await score(Api(transport), home / "data")
            await inspected(Api(transport), home / "data")
            await queued(Api(transport))

    with _served(home, "--no-controllers") as place:
        # Playwright has a loop in this thread already
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(filled())).result()
        yield place


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(chromium, place) -> Iterator[Any]:
    """A browser that has logged in by a one-time link."""
    made = chromium.new_context(
        ignore_https_errors=True,
        viewport={"width": 1440, "height": 900},
        locale="en-GB",
        reduced_motion="reduce",
    )
    made.set_default_timeout(120_000)
    page = made.new_page()
    page.goto(place.link())
    page.close()
    yield made
    made.close()


@pytest.fixture
def browse(context, place) -> Iterator[Any]:
    """Opens a page of the namespace; whatever the browser complains of fails the test at its end."""
    opened, complaints = [], []

    def begin(path: str) -> Any:
        page = context.new_page()
        opened.append(page)
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda asked: (
                None
                if asked.url.startswith((place.url, "data:"))
                else complaints.append(f"asked for {asked.url}")
            ),
        )
        page.goto(f"{place.url}{PREFIX}/ns/default/{path}")
        return page

    begin.complaints = complaints
    yield begin
    for page in opened:
        page.close()
    assert not complaints
