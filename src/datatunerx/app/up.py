"""Joins the parts into one running platform: store, server, backend and controllers in one process."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datatunerx.app.control import claim_compute, controlled
from datatunerx.app.machine import Machine, machine
from datatunerx.app.settings import Settings
from datatunerx.app.usage import used
from datatunerx.client import Api
from datatunerx.client.bearer import Bearer
from datatunerx.client.transport import InProcess, Transport
from datatunerx.console import PREFIX, Sessions, create_console
from datatunerx.console.host import Host
from datatunerx.resources.crds import crd_manifests
from datatunerx.server import uploads
from datatunerx.server.app import KubeApp, create_app
from datatunerx.server.listen import NotSafe, PortInUse, serve
from datatunerx.server.state import State, open_state
from datatunerx.server.tls import BadCertificate, TlsFiles, alternative_names, given
from datatunerx.store import Locked, StoreError

USER = "datatunerx:controllers"
ADMIN = "datatunerx:admin"
OF_HOME = frozenset(["compute", "data", "db", "kubeconfig", "secret.key", "server.log", "tls", "token"])
"""Everything that lies in a home."""


class StartError(Exception):
    """The platform cannot start here; the message says why and what to do."""


@dataclass(frozen=True)
class Platform:
    """What runs. Ends with the block of `platform_in_process`, or by itself when a part of it breaks."""

    url: str
    kubeconfig: Path
    transport: Transport
    """To the server, without a socket, as the administrator."""
    login: Callable[[], str]
    """A link to the console that lets the administrator in, once."""
    broken: asyncio.Future[None]
    """Done, with the error, when a part ended that should not."""


@asynccontextmanager
async def platform_in_process(settings: Settings, *, any_port: bool = False) -> AsyncIterator[Platform]:
    """The platform, for as long as the block lasts. Workers outlive it and are adopted by the next one.

    Raises StartError when another server has the home or the port; with `any_port` a taken port is
    no error and a free one is used. As long as it lasts, files are made for their owner only, by this
    process and by the workers it starts.
    """
    umask = os.umask(0o077)
    try:
        async with _platform(settings, any_port=any_port) as platform:
            yield platform
    finally:
        os.umask(umask)


@asynccontextmanager
async def _platform(settings: Settings, *, any_port: bool) -> AsyncIterator[Platform]:
    state = _opened(settings.home)
    try:
        data = settings.home / "data"
        data.mkdir(mode=0o700, exist_ok=True)
        files = _certificate(state, settings)
        names = alternative_names(files.certificate)
        sessions = Sessions(state.token.encode())
        look = partial(_host, settings, machine(settings.gpus)) if settings.controllers else None

        def visitor(token: str) -> Api:
            return Api(Bearer(InProcess(app, user=""), token))

        app: KubeApp = create_app(
            state.store, crd_manifests(), tokens=state.tokens, hosts=names, log_root=data,
            allow_paths=settings.allow_paths,
            mounts={uploads.PREFIX: uploads.Uploads(data / "uploads", max_namespace=settings.upload_bytes)},
            pages={PREFIX: create_console(visitor, sessions, look)},
        )  # fmt: skip
        async with (
            _served(app, state, settings, files, any_port=any_port) as (url, serving),
            _controlled(app, settings) as controlling,
        ):
            broken = _first_broken(serving, *controlling)
            yield Platform(
                url, state.kubeconfig, InProcess(app, ADMIN),
                lambda: f"{url}{PREFIX}/login?once={sessions.link(state.token)}", broken,
            )  # fmt: skip
    finally:
        await state.store.close()


async def serve_until_stopped(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises StartError, also when a part breaks on the way."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with platform_in_process(settings) as platform:
        say(f"dtx serves {settings.home} on {platform.url}")
        say(f"  the console, by a link that logs in once: {platform.login()}")
        say(f"  dtx get all; kubectl --kubeconfig {platform.kubeconfig} get dtx")
        if not settings.controllers:
            say("  without controllers: nothing acts on objects until `dtx operator` runs")
        say("  Ctrl-C stops it; what trains goes on, and the next dtx up takes it over")
        await either(asyncio.ensure_future(stop.wait()), platform.broken)
        if platform.broken.done():
            raise StartError(f"the platform broke: {platform.broken.exception()!r}; see the log above")
        say("stopping; workers that train go on, and the next dtx up takes them over")


def _host(settings: Settings, here: Machine) -> Host:
    """What the pages may say of this machine."""
    free = shutil.disk_usage(settings.home).free
    return Host(here.gpus, here.devices, here.memory_bytes, free, here.precision, partial(used, here.gpus))


def _opened(home: Path) -> State:
    try:
        make_private(home)
        return open_state(home)
    except Locked as error:
        raise StartError(f"{error}, with DTX_HOME") from None
    except StoreError as error:
        raise StartError(str(error)) from None
    except OSError as error:
        raise StartError(f"{home}: {error.strerror}; name another folder with DTX_HOME") from None


def make_private(home: Path) -> None:
    """Close a folder made by hand to all but its owner, if it is ours and nothing else lies in it."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    now = home.stat()
    if now.st_mode & 0o077 and now.st_uid == os.geteuid() and OF_HOME.issuperset(os.listdir(home)):
        home.chmod(0o700)


def _certificate(state: State, settings: Settings) -> TlsFiles:
    if settings.tls_certificate is None and settings.tls_key is None:
        return state.tls(settings.host)
    if settings.tls_certificate is None or settings.tls_key is None:
        raise StartError("give both --tls-cert and --tls-key, or neither")
    try:
        return given(settings.tls_certificate, settings.tls_key)
    except BadCertificate as error:
        raise StartError(str(error)) from None


@asynccontextmanager
async def _served(
    app: KubeApp, state: State, settings: Settings, files: TlsFiles, *, any_port: bool
) -> AsyncIterator[tuple[str, asyncio.Future[None]]]:
    """The server, answering; its URL, and the task that serves."""
    stop = asyncio.Event()
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    renew = partial(state.tls, settings.host) if settings.tls_certificate is None else None

    def start(port: int) -> asyncio.Task[None]:
        said = ready.set_result
        return asyncio.create_task(
            serve(app, settings.host, port, files, renew=renew, ready=said, stop=stop, signals=False)
        )

    try:
        serving = start(settings.port)
        await either(serving, ready)
        if any_port and serving.done() and isinstance(serving.exception(), PortInUse):
            serving = start(0)
            await either(serving, ready)
        if not ready.done():
            await serving  # raises what kept it from starting
            raise StartError("the server ended before it answered")
    except (PortInUse, NotSafe) as error:
        raise StartError(str(error)) from None
    except OSError as error:
        raise StartError(f"cannot listen on {settings.host}: {error.strerror}; see --host") from None
    state.write_kubeconfig(ready.result(), settings.host, files)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        yield f"https://{host}:{ready.result()}", serving
    finally:
        stop.set()
        with suppress(asyncio.CancelledError):
            await serving


@asynccontextmanager
async def _controlled(app: KubeApp, settings: Settings) -> AsyncIterator[list[asyncio.Task[None]]]:
    """The task of the controllers; none if an operator is to act instead."""
    if not settings.controllers:
        yield []
        return
    try:
        seat = claim_compute(settings.home)
    except Locked as error:
        raise StartError(f"{error}; or start this one with --no-controllers") from None
    try:
        async with controlled(Api(InProcess(app, USER)), settings) as controlling:
            yield [controlling]
    finally:
        seat.release()


async def either(*futures: "asyncio.Future[Any]") -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _first_broken(*tasks: asyncio.Future[None]) -> asyncio.Future[None]:
    """A future that fails with the first task that ends, for none should."""
    broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ended(task: asyncio.Future[None]) -> None:
        if not broken.done() and not task.cancelled():
            broken.set_exception(task.exception() or RuntimeError("a part of the platform ended"))
            broken.exception()  # seen: who does not wait for it must not be warned of it

    for task in tasks:
        task.add_done_callback(ended)
    return broken
