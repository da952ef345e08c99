"""Listening: HTTPS by uvicorn inside a running loop, stopped quickly and in the right order."""

import asyncio
import contextlib
import errno
import gc
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn

from datatunerx.server.app import KubeApp
from datatunerx.server.tls import BadCertificate, TlsFiles
from datatunerx.server.tokens import Tokens

GRACE_SECONDS = 1
RENEW_SECONDS = 3600.0
"""How often the certificate is looked at."""

log = logging.getLogger(__name__)


class PortInUse(Exception):
    """Another program listens there; the message says what to do."""


class NotSafe(Exception):
    """What is asked for would let anyone in; the message says what is missing."""


class _Server(uvicorn.Server):
    """uvicorn without hands on the signals: who runs the loop decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def check_exposure(host: str, tokens: Tokens) -> None:
    """Refuse (NotSafe) an address that others can reach while nobody needs a token. TLS there always is."""
    if not len(tokens) and not is_loopback(host):
        raise NotSafe(f"{host} can be reached by others and there is no token; listen on 127.0.0.1")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address, or every address behind the name."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(row[4][0]).partition("%")[0]).is_loopback for row in found)


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
    renew: Callable[[], object] | None = None,
    ready: Callable[[int], None] | None = None,
    stop: asyncio.Event | None = None,
    signals: bool = True,
) -> None:
    """Serve until `stop` is set, or SIGTERM or SIGINT comes when `signals`.

    `ready` is called with the bound port once requests are answered. Raises PortInUse and NotSafe. Watches
    end first, so that their clients hear of it and nothing is cut off. `renew` is called now and then to make
    the files of `tls` anew when it is time; new connections get what is in them, whoever changed them.
    """
    check_exposure(host, app.tokens)
    sock = bind(host, port)
    # The writer thread gets its turn sooner: at the default of 5 ms a busy loop delays every commit by that.
    sys.setswitchinterval(0.001)
    stop = stop or asyncio.Event()
    config = _config(app, tls)
    server = _Server(config)
    loop = asyncio.get_running_loop()
    caught = (signal.SIGTERM, signal.SIGINT) if signals else ()
    for each in caught:
        loop.add_signal_handler(each, stop.set)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    fresh = asyncio.create_task(_keep_fresh(config, tls, renew), name="certificate")
    try:
        await _until(lambda: server.started or serving.done())
        # What is there now will stay. Looking it through again and again, as the garbage collector does,
        # would hold up every answer by some 50 ms each time.
        gc.collect()
        gc.freeze()
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
        fresh.cancel()
        await asyncio.gather(fresh, return_exceptions=True)
        sock.close()


def _config(app: KubeApp, tls: TlsFiles) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=1 << 20,
        # Much of what is sent is small and in a hurry, and packing it takes the loop's time.
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        ssl_certfile=tls.certificate,
        ssl_keyfile=tls.key,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


async def _keep_fresh(config: uvicorn.Config, tls: TlsFiles, renew: Callable[[], object] | None) -> None:
    """Load the certificate again when its files change."""
    before = _stamps(tls)
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        try:
            if renew is not None:
                await asyncio.to_thread(renew)
            now = _stamps(tls)
            if now != before and config.ssl is not None:
                config.ssl.load_cert_chain(tls.certificate, tls.key)
                before = now
        except (OSError, BadCertificate) as error:  # ssl's errors are OSErrors; the old one still serves
            log.error("certificate not renewed", extra={"error": str(error)})


def _stamps(tls: TlsFiles) -> tuple[int, int]:
    return tls.certificate.stat().st_mtime_ns, tls.key.stat().st_mtime_ns
