"""Listening: HTTPS by uvicorn inside a running loop, stopped quickly and in the right order."""

import asyncio
import contextlib
import errno
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn

from datatunerx.server.app import KubeApp
from datatunerx.server.tls import TlsFiles

GRACE_SECONDS = 1


class PortInUse(Exception):
    """Another program listens there; the message says what to do."""


class _Server(uvicorn.Server):
    """uvicorn without hands on the signals: who runs the loop decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one. PortInUse names the port and the fix."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    # A server that has just died leaves connections behind; without this the next one could not start.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} on {host} is in use by another program; stop it, or choose another with --port"
            ) from None
        raise
    return sock


async def serve(
    app: KubeApp,
    host: str,
    port: int,
    tls: TlsFiles,
    *,
    ready: Callable[[int], None] | None = None,
    stop: asyncio.Event | None = None,
    signals: bool = True,
) -> None:
    """Serve until `stop` is set, or SIGTERM or SIGINT comes when `signals`.

    `ready` is called with the bound port once requests are answered. Raises PortInUse. Watches end first, so
    that their clients hear of it and nothing is cut off.
    """
    sock = bind(host, port)
    # The writer thread gets its turn sooner: at the default of 5 ms a busy loop delays every commit by that.
    sys.setswitchinterval(0.001)
    stop = stop or asyncio.Event()
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        ssl_certfile=tls.certificate,
        ssl_keyfile=tls.key,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config)
    loop = asyncio.get_running_loop()
    caught = (signal.SIGTERM, signal.SIGINT) if signals else ()
    for each in caught:
        loop.add_signal_handler(each, stop.set)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        await _until(lambda: server.started or serving.done())
        if server.started and ready is not None:
            ready(sock.getsockname()[1])
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
    finally:
        app.watches.end_all()
        server.should_exit = True
        for each in caught:
            loop.remove_signal_handler(each)
        await serving
        sock.close()


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)
