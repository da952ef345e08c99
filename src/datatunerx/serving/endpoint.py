"""Listening on loopback, at a port that the system chooses, in a thread of its own."""

import socket
import threading

import uvicorn
from starlette.types import ASGIApp

UNREAD_BYTES = 256 << 10
"""What the system keeps for a client that does not read."""
GRACE_SECONDS = 5


class Endpoint:
    """Answers from `start` to `stop`."""

    def __init__(self, app: ASGIApp) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD_BYTES)
        self._socket.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", ws="none", backlog=1024,
            timeout_graceful_shutdown=GRACE_SECONDS, server_header=False,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="endpoint", daemon=True
        )

    @property
    def url(self) -> str:
        host, port = self._socket.getsockname()
        return f"http://{host}:{port}/v1"

    def start(self) -> None:
        self._socket.listen(1024)  # from here on a connection waits and is not refused
        self._thread.start()

    def stop(self) -> None:
        """Take no more connections, and let the answers under way reach their clients."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
