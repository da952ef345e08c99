"""The console as one ASGI app: its pages, its static files, and the headers that keep it to itself."""

import logging

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import RedirectResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from datatunerx.console.host import Look
from datatunerx.console.live import Hub
from datatunerx.console.pages import PAGES, live
from datatunerx.console.session import Sessions
from datatunerx.console.visit import PREFIX, Connect

POLICY = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "font-src 'self'",
    "connect-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'",
))  # fmt: skip
"""No inline script, no inline style, nothing from another machine."""
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "same-origin",  # with none at all a form of ours would be sent with Origin: null
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
FOREVER = "public, max-age=31536000, immutable"

log = logging.getLogger(__name__)


class _Guard:
    """Puts the headers on every answer; pages are never kept, static files with a digest always."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        static = scope["type"] == "http" and scope["path"].startswith(f"{PREFIX}/static/")
        kept = static and bool(scope.get("query_string"))

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers["cache-control"] = FOREVER if kept else "no-cache" if static else "no-store"
            await send(message)

        await self._app(scope, receive, guarded)


def create_console(connect: Connect, sessions: Sessions, host: Look | None = None) -> Starlette:
    """The pages below `PREFIX`. `connect` is the way to the API for a visitor with that token; `host` tells
    of the machine that trains, where that is this one.

    Who mounts it checks Host and Origin first.
    """
    home = RedirectResponse(f"{PREFIX}/ns/default/experiments")
    routes: list[BaseRoute] = [
        # Only what is the same for everybody is packed: pages hold tokens, and streams would wait.
        Mount(f"{PREFIX}/static", GZipMiddleware(StaticFiles(packages=[(__package__, "static")]))),
        Route(PREFIX, home),
        Route(f"{PREFIX}/", home),
        *(page.route(sessions, connect) for page in PAGES),
        live.socket(sessions, connect),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(_Guard)])
    app.state.hub = Hub()
    app.state.host = host
    app.state.paths = frozenset(route.path for route in routes if isinstance(route, Route))
    return app
