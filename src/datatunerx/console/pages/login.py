"""Logging in and out, and what a browser is remembered by: language, theme, columns of tables."""

import re

from starlette.responses import JSONResponse, Response

from datatunerx.client.errors import Unauthorized
from datatunerx.console import access, words
from datatunerx.console.visit import (
    COLUMNS,
    LANGUAGE,
    PREFIX,
    THEME,
    THEMES,
    YEAR,
    Page,
    Refused,
    Visit,
    cookie_name,
    keep,
)

HOME = f"{PREFIX}/ns/default/experiments"
_COLUMNS = re.compile(r"([a-z-]{1,40}):([a-z0-9.-]{0,400})")
"""A table, and which columns of it are hidden."""
_OURS = re.compile(rf"{PREFIX}/ns/[\w./%-]+(\?[\w.%&=+-]*)?")


def ours(url: str) -> bool:
    """Whether it is a page to go back to: a path of our own, never an address."""
    return _OURS.fullmatch(url) is not None


async def show(visit: Visit) -> Response:
    """The login page; with a code of a one-time link the visitor is let in."""
    if code := visit.query.get("once", ""):
        token = visit.sessions.take(code)
        if token is None:
            return await _page(visit, "This link was used already, or is too old. Ask for a new one.")
        return _let_in(visit, token)
    return await _page(visit)


async def enter(visit: Visit) -> Response:
    """A token was typed in."""
    token = visit.form.get("token", "").strip()
    asking = visit.api_for(token)
    try:
        await access.who(asking)
    except Unauthorized:
        return await _page(visit, "The server does not know this token.")
    return _let_in(visit, token)


def _let_in(visit: Visit, token: str) -> Response:
    back = visit.query.get("next", "")
    response = visit.go(back if ours(back) else HOME)
    return keep(response, visit.request, visit.sessions, visit.sessions.begin(token))


async def _page(visit: Visit, error: str = "") -> Response:
    return await visit.page("login.html", http=401 if error else 200, error=error)


async def leave(visit: Visit) -> Response:
    response = visit.go(f"{PREFIX}/login")
    response.delete_cookie(cookie_name(visit.request), path="/", secure=True, httponly=True)
    return response


async def remember(visit: Visit) -> Response:
    """Language and theme of this browser, and the columns that it hides of one table."""
    response = Response(status_code=204)
    language, theme = visit.form.get("language", ""), visit.form.get("theme", "")
    if language and language not in words.LANGUAGES or theme and theme not in THEMES:
        raise Refused("There is no such language or theme.")
    kept = [(name, value) for name, value in ((LANGUAGE, language), (THEME, theme)) if value]
    if columns := visit.form.get("columns", ""):
        found = _COLUMNS.fullmatch(columns)
        if not found:
            raise Refused("There is no such table.")
        kept.append((COLUMNS + found[1], found[2]))
    for name, value in kept:
        response.set_cookie(
            name, value, path="/", secure=True, httponly=True, samesite="strict", max_age=YEAR
        )
    return response


async def link(visit: Visit) -> Response:
    """A one-time link for who brings a token in the Authorization header: `dtx console` asks for it."""
    scheme, _, token = visit.request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return JSONResponse({"message": "a token is needed"}, 401)
    await access.who(visit.api_for(token))
    return JSONResponse({"path": f"{PREFIX}/login?once={visit.sessions.link(token)}"})


routes = [
    Page("/login", show, anywhere=True, public=True),
    Page("/login", enter, ("POST",), anywhere=True, public=True),
    Page("/logout", leave, ("POST",), anywhere=True, public=True),
    Page("/remember", remember, ("POST",), anywhere=True, public=True),
    Page("/link", link, anywhere=True, public=True),
]
