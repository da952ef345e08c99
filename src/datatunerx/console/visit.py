"""One request of one visitor: who asks, in which language and namespace, by which API; and the answer."""

import functools
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, quote, urlencode

from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from datatunerx.client import NAMESPACES, Api, ApiError
from datatunerx.client.errors import Unauthorized
from datatunerx.console import access, kinds, render, words
from datatunerx.console.live import newest
from datatunerx.console.menu import MENU, Entry
from datatunerx.console.session import Session, Sessions
from datatunerx.resources import GROUP

PREFIX = "/console"
PLACE = f"{PREFIX}/ns/{{namespace}}"
"""Where the pages of a namespace are."""
MAX_FORM = 1 << 20
"""Bytes of a form; files go another way."""
LANGUAGE, THEME, COLUMNS = "dtx-language", "dtx-theme", "dtx-columns-"
THEMES = ("system", "light", "dark")
YEAR = 365 * 86400


class Connect(Protocol):
    """The app's way to the API for a visitor."""

    def __call__(self, token: str) -> Api: ...


class Refused(Exception):
    """The visitor may not do this here; the message is in English and in the catalogue."""


class Visit:
    """What a page needs to answer. `form` holds the last value of each field, `fields` all of them."""

    def __init__(self, request: Request, sessions: Sessions, session: Session, connect: Connect) -> None:
        self.request, self.sessions, self.session = request, sessions, session
        self.api_for = connect
        self.api = connect(session.token)
        self.namespace: str = request.path_params.get("namespace", "default")
        asked = request.cookies.get(LANGUAGE, "")
        self.language = asked if asked in words.LANGUAGES else words.preferred(
            request.headers.get("accept-language", "")
        )  # fmt: skip
        theme = request.cookies.get(THEME, "")
        self.theme = theme if theme in THEMES else THEMES[0]
        self.now = datetime.now(UTC)
        self.rules: access.Rules = ()
        self.user = ""
        self.version = 0
        """Of the API, before anything was read; 0 where it is not known."""
        self.soon = False
        """Whether something of the page is still being made, and it should be looked at again."""
        self.fields: list[tuple[str, str]] = []

    @property
    def form(self) -> dict[str, str]:
        return dict(self.fields)

    @property
    def query(self) -> dict[str, str]:
        return dict(self.request.query_params)

    @property
    def name(self) -> str:
        """The object that the URL names."""
        return str(self.request.path_params["name"])

    @property
    def partial(self) -> bool:
        """Whether a page that stands already asks for its content anew."""
        headers = self.request.headers
        whole = headers.get("hx-history-restore-request") == "true" or headers.get("hx-target") == "body"
        return headers.get("hx-request") == "true" and not whole

    def say(self, text: str, **values: Any) -> str:
        """The text in the visitor's language."""
        return words.say(self.language, text, **values)

    def may(self, verb: str, resource: str, group: str = GROUP) -> bool:
        """Whether the API would let the visitor."""
        return access.allowed(self.rules, verb, resource, group)

    @property
    def watched(self) -> list[str]:
        """The kinds whose changes a page may hear of."""
        return [kind for kind, at in kinds.PLURALS.items() if self.may("watch", at.plural)]

    def hidden(self, table: str) -> frozenset[str]:
        """The columns of a table that this browser leaves out."""
        return frozenset(self.request.cookies.get(COLUMNS + table, "").split("."))

    def url(self, *parts: str, **query: str) -> str:
        """The URL of a page of this namespace: `url("experiments", name)`."""
        path = "/".join(quote(part, safe="") for part in ("ns", self.namespace, *parts))
        return f"{PREFIX}/{path}" + (f"?{urlencode(query)}" if query else "")

    @property
    def csrf(self) -> str:
        return self.sessions.csrf(self.session)

    async def page(self, template: str, *, http: int = 200, **context: Any) -> Response:
        """A template, whole or, for a page that refreshes itself, its content only."""
        if not self.partial and self.user:
            context["namespaces"] = await self._namespaces()
        context["menu"] = self.menu()
        found = render.template(template).render(visit=self, t=self.say, now=self.now, **context)
        return HTMLResponse(found, http, headers={"vary": "HX-Request"})

    def menu(self) -> list[tuple[str, list[Entry]]]:
        """The side bar: what is registered."""
        there = self.request.app.state.paths
        return [(title, [e for e in entries if f"{PLACE}/{e.page}" in there]) for title, entries in MENU]

    def go(self, url: str) -> Response:
        """Lead the visitor to another page."""
        if self.partial:
            return Response(headers={"HX-Redirect": url})
        return RedirectResponse(url, 303)

    async def _namespaces(self) -> Sequence[str]:
        try:
            found = await self.api.list(NAMESPACES)
        except ApiError:  # only who may see all of them gets the list
            return [self.namespace]
        return sorted({each["metadata"]["name"] for each in found} | {self.namespace})


Handler = Callable[[Visit], Awaitable[Response]]


class Page(NamedTuple):
    """A page of a namespace, or with `anywhere` of none; modules in `pages/` offer lists: `routes`."""

    path: str
    handler: Handler
    methods: tuple[str, ...] = ("GET",)
    anywhere: bool = False
    """Its path begins at the console's own prefix."""
    public: bool = False
    """Also for who has not logged in."""

    def route(self, sessions: Sessions, connect: Connect) -> Route:
        answer = functools.partial(_answer, self, sessions, connect)
        return Route(
            (PREFIX if self.anywhere else PLACE) + self.path, _endpoint(answer), methods=self.methods
        )


def _endpoint(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await answer(request)

    return endpoint


def cookie_name(request: HTTPConnection) -> str:
    """A browser keeps cookies by host, not by port; two servers of one machine must not share theirs."""
    return f"__Host-dtx-{request.url.port or 443}"


def keep(response: Response, request: Request, sessions: Sessions, session: Session) -> Response:
    """Give the browser its session."""
    response.set_cookie(
        cookie_name(request), sessions.seal(session), path="/", secure=True, httponly=True,
        samesite="strict", max_age=7 * 86400,
    )  # fmt: skip
    return response


async def _answer(page: Page, sessions: Sessions, connect: Connect, request: Request) -> Response:
    kept = sessions.open(request.cookies.get(cookie_name(request), ""))
    session = kept or sessions.begin()
    visit = Visit(request, sessions, session, connect)
    try:
        if request.method not in ("GET", "HEAD"):
            await _check_genuine(visit)
    except Refused as error:
        return await failed(visit, 403, "Refused", visit.say(str(error)))
    if not page.public:
        try:
            visit.user = await access.who(visit.api) if session.token else ""
        except Unauthorized:
            visit.user = ""
        if not visit.user:
            back = request.url.path if request.method == "GET" else ""
            return visit.go(f"{PREFIX}/login" + (f"?{urlencode({'next': back})}" if back else ""))
        visit.rules = await access.rules(visit.api, visit.namespace)
    try:
        if visit.watched and not visit.partial and request.method == "GET":
            visit.version = await newest(visit.api, visit.watched[0], visit.namespace)
        response = await page.handler(visit)
    except ApiError as error:
        response = await failed(visit, error.status or 503, error.reason, error.message)
    except Refused as error:
        response = await failed(visit, 400, "NotPossible", visit.say(str(error)))
    if kept or "set-cookie" in response.headers:
        return response
    return keep(response, request, sessions, session)


async def failed(visit: Visit, status: int, reason: str, message: str) -> Response:
    """A page that says what went wrong and what to do. As a toast where only a part was asked for."""
    template = "toast.html" if visit.partial and visit.request.method != "GET" else "error.html"
    return await visit.page(template, http=status, code=status, reason=reason, message=message)


async def _check_genuine(visit: Visit) -> None:
    """Read the form; raise Refused unless the change comes from a page of ours in this very session."""
    given = visit.request.headers.get("x-csrf-token", "")
    if visit.request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        if int(visit.request.headers.get("content-length", "0") or 0) > MAX_FORM:
            raise Refused("The form is too large.")
        body = await visit.request.body()
        visit.fields = parse_qsl(body.decode(errors="replace"), keep_blank_values=True, max_num_fields=5000)
        given = given or visit.form.get("csrf", "")
    if not visit.sessions.genuine(visit.session, given):
        raise Refused("This page is too old, or was not made for you. Load it again.")
