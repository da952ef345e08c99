"""A real app over a real store, called in process; and a real server process for what needs one."""

import asyncio
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from datatunerx.server.app import KubeApp, create_app
from datatunerx.server.state import State, open_state

G = "/apis/example.com/v1"
MERGE = "application/merge-patch+json"
WIDGET, RUN = yaml.safe_load_all((Path(__file__).parent / "kinds_of_tests.yaml").read_text())


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def ok(self) -> Any:
        assert self.status < 300, self.body.decode()
        return self.json


class Stream:
    """An open watch."""

    def __init__(self, task: asyncio.Task[None], lines: asyncio.Queue[Any], leave: asyncio.Event) -> None:
        self._task, self._lines, self._leave = task, lines, leave

    async def next(self, timeout: float = 3) -> Any:
        return await asyncio.wait_for(self._lines.get(), timeout)

    async def names(self, count: int) -> list[tuple[str, str]]:
        events = [await self.next() for _ in range(count)]
        return [(event["type"], event["object"]["metadata"]["name"]) for event in events]

    async def ended(self, timeout: float = 60) -> bool:
        await asyncio.wait_for(self._task, timeout)
        return self._lines.empty()

    async def close(self) -> None:
        self._leave.set()
        await asyncio.wait_for(self._task, 60)


class Api:
    """Calls the app in this process."""

    def __init__(self, app: KubeApp, user: str | None = "tester") -> None:
        self.app, self.user = app, user

    def _scope(self, method: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
        parts = urlsplit(path)
        found = {"host": "127.0.0.1", "user-agent": "tests/1", **{k.lower(): v for k, v in headers.items()}}
        return {
            "type": "http",
            "method": method,
            "path": parts.path,
            "query_string": parts.query.encode(),
            "headers": [(k.encode(), v.encode()) for k, v in found.items()],
            "extensions": {"datatunerx.user": self.user} if self.user else {},
        }

    async def call(
        self, method: str, path: str, body: Any = None, type: str = "application/json", **headers: str
    ):
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            headers["content-type"] = type
        sent: list[dict[str, Any]] = []
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if asked:
                await asyncio.Event().wait()
            asked = True
            return {"type": "http.request", "body": data}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(self._scope(method, path, headers), receive, send)
        head = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
        return Answer(sent[0]["status"], head, b"".join(message["body"] for message in sent[1:]))

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.call("GET", path, **headers)

    async def post(self, path: str, body: Any) -> Answer:
        return await self.call("POST", path, body)

    async def put(self, path: str, body: Any) -> Answer:
        return await self.call("PUT", path, body)

    async def patch(self, path: str, body: Any, type: str = MERGE) -> Answer:
        return await self.call("PATCH", path, body, type)

    async def apply(self, path: str, body: Any, manager: str, force: bool = False) -> Answer:
        query = f"?fieldManager={manager}&force={str(force).lower()}"
        return await self.call("PATCH", path + query, body, "application/apply-patch+yaml")

    async def delete(self, path: str, body: Any = None) -> Answer:
        return await self.call("DELETE", path, body)

    async def watch(self, path: str, **headers: str) -> Stream:
        lines: asyncio.Queue[Any] = asyncio.Queue()
        leave, started = asyncio.Event(), asyncio.Event()
        rest = b""

        async def receive() -> dict[str, Any]:
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            nonlocal rest
            started.set()
            if message["type"] == "http.response.body":
                *whole, rest = (rest + message["body"]).split(b"\n")
                for line in whole:
                    lines.put_nowait(json.loads(line))

        task = asyncio.ensure_future(self.app(self._scope("GET", path, headers), receive, send))
        waiting = asyncio.ensure_future(started.wait())
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        return Stream(task, lines, leave)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = open_state(tmp_path / "home")
    yield state
    if not state.store._closed:
        asyncio.run(state.store.close())


@pytest.fixture
async def app(state: State) -> AsyncIterator[KubeApp]:
    app = create_app(state.store, [WIDGET, RUN], tokens=state.tokens)
    await app.start()
    yield app
    await app.stop()
    await state.store.close()


@pytest.fixture
def api(app: KubeApp) -> Api:
    return Api(app)


@pytest.fixture
def stranger(app: KubeApp) -> Api:
    return Api(app, user=None)


@pytest.fixture
def stranger_of() -> Callable[[KubeApp], Api]:
    """Who calls an app from outside."""
    return lambda app: Api(app, user=None)


TOKENS = "/apis/auth.datatunerx.io/v1/tokens"


class Caller:
    """Who calls from outside, with a token."""

    def __init__(self, stranger: Api, token: str) -> None:
        self._stranger = stranger
        self.header = {"authorization": f"Bearer {token}"}

    async def __call__(
        self, method: str, path: str, body: Any = None, type: str = "", **headers: str
    ) -> Answer:
        type = type or (MERGE if method == "PATCH" else "application/json")
        return await self._stranger.call(method, path, body, type, **self.header, **headers)

    async def watch(self, path: str) -> Stream:
        return await self._stranger.watch(path, **self.header)


@pytest.fixture
async def team(api: Api) -> None:
    for name in ("team", "other"):
        (await api.post("/api/v1/namespaces", {"metadata": {"name": name}})).ok()


@pytest.fixture
def make_token(api: Api, team: None) -> Callable[..., Any]:
    """Makes one, for the namespace `team` unless told otherwise: (the token, the name of its object)."""

    async def make_token(
        role: str, *namespaces: str, user: str = "ann", seconds: float | None = None
    ) -> tuple[str, str]:
        token = secrets.token_urlsafe(32)
        spec: dict[str, Any] = {"user": user, "role": role, "namespaces": namespaces or ["team"]}
        spec["sha256"] = hashlib.sha256(token.encode()).hexdigest()
        if seconds is not None:
            spec["expires"] = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
        made = await api.post(TOKENS, {"metadata": {"generateName": f"{user}-"}, "spec": spec})
        return token, made.ok()["metadata"]["name"]

    return make_token


@pytest.fixture
def caller(stranger: Api, make_token: Callable[..., Any]) -> Callable[..., Any]:
    async def caller(role: str, *namespaces: str, **more: Any) -> Caller:
        return Caller(stranger, (await make_token(role, *namespaces, **more))[0])

    return caller


@pytest.fixture
def widgets() -> str:
    return f"{G}/namespaces/default/widgets"


@pytest.fixture
def widget() -> Callable[..., dict[str, Any]]:
    def make(name: str, size: int = 3, meta: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
        metadata = {"name": name, **(meta or {})}
        return {
            "apiVersion": "example.com/v1",
            "kind": "Widget",
            "metadata": metadata,
            "spec": {"size": size, **spec},
        }

    return make


@pytest.fixture
def eventually() -> Callable[..., Any]:
    async def eventually(what: Callable[[], Any], seconds: float = 60) -> Any:
        end = time.monotonic() + seconds
        while True:
            found = await what()
            if found or time.monotonic() > end:
                return found
            await asyncio.sleep(0.01)

    return eventually


SERVER = """
import sys
from pathlib import Path
import uvloop
from datatunerx.resources.crds import crd_manifests
from datatunerx.server.app import create_app
from datatunerx.server.listen import serve
from datatunerx.server.state import open_state

async def main(home, port):
    state = open_state(Path(home))
    app = create_app(state.store, crd_manifests(), tokens=state.tokens)
    def ready(port):
        state.write_kubeconfig(port)
        print(port, flush=True)
    await serve(app, "127.0.0.1", int(port), state.tls(), ready=ready)
    await state.store.close()

uvloop.run(main(*sys.argv[1:]))
"""


class Process:
    """A server in a process of its own, restarted on the same port and data."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, 0
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> "Process":
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(self.home), str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.process.communicate()[1])
        self.port = int(line)
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> str:
        if self.process is None:
            return ""
        self.process.send_signal(how)
        _, errors = self.process.communicate(timeout=60)
        self.process = None
        return errors

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return (self.home / "token").read_text().strip()

    @property
    def env(self) -> dict[str, str]:
        config = {"KUBECONFIG": str(self.home / "kubeconfig"), "KUBECACHEDIR": str(self.home / "cache")}
        return {**os.environ, **config}


class Kubectl:
    """An unmodified kubectl that speaks to a server of ours."""

    def __init__(self, program: str, server: Process, namespace: str = "default") -> None:
        self.program, self.server, self.namespace = program, server, namespace

    def __call__(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, "--namespace", self.namespace, *arguments],
            input=stdin, capture_output=True, text=True, env=self.server.env,
            timeout=90,
        )  # fmt: skip

    def ok(self, *arguments: str, stdin: Any = None) -> str:
        """What it printed; the command must succeed. `stdin` may be an object."""
        text = stdin if stdin is None or isinstance(stdin, str) else json.dumps(stdin)
        ran = self(*arguments, stdin=text)
        assert ran.returncode == 0, f"{' '.join(arguments)}: {ran.stderr}"
        return ran.stdout + ran.stderr

    def refused(self, *arguments: str, stdin: Any = None) -> str:
        """What it said; the command must fail."""
        text = stdin if stdin is None or isinstance(stdin, str) else json.dumps(stdin)
        ran = self(*arguments, stdin=text)
        assert ran.returncode != 0, f"{' '.join(arguments)}: {ran.stdout}"
        return ran.stdout + ran.stderr


KUBECTLS = Path(os.environ.get("DTX_KUBECTLS") or Path(__file__).resolve().parents[2] / ".venv" / "kubectl")
"""MINOR/kubectl of each version; `make kubectl` puts them there."""


def kubectl_of(minor: str | None, server: Process) -> Kubectl:
    """The one of that minor version; with None the newest there is, or the one on the PATH."""
    if minor is None:
        found = sorted(KUBECTLS.glob("*/kubectl"))
        program = str(found[-1]) if found else shutil.which("kubectl")
    else:
        path = KUBECTLS / minor / "kubectl"
        program = str(path) if path.exists() else None
    if program is None:
        pytest.skip(f"no kubectl {minor or ''} here: make kubectl")
    return Kubectl(program, server)


@pytest.fixture
def kubectl(server: Process) -> Kubectl:
    return kubectl_of(None, server)


@pytest.fixture
def kubectl_of_minor(shared_server: Process) -> Callable[[str | None], Kubectl]:
    """A kubectl of one version, in a namespace of its own on the shared server."""

    def find(minor: str | None) -> Kubectl:
        kubectl = kubectl_of(minor, shared_server)
        kubectl.namespace = f"test-{secrets.token_hex(4)}"
        assert "created" in kubectl.ok("create", "namespace", kubectl.namespace)
        return kubectl

    return find


@pytest.fixture
def k(kubectl_of_minor: Callable[[str | None], Kubectl]) -> Kubectl:
    """The newest, in a namespace of its own."""
    return kubectl_of_minor(None)


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One server for many tests, each in a namespace of its own."""
    process = Process(tmp_path_factory.mktemp("shared") / "home").start()
    yield process
    process.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path / "home").start()
    yield process
    process.stop()
