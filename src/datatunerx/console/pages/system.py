"""What happened, and what one may do: events, settings."""

import json
from typing import Any

from starlette.responses import Response

from datatunerx.client import EVENTS, ApiError, Plural
from datatunerx.console import access
from datatunerx.console.tables import Cell, Empty, Line, ago, columns, object_url, show
from datatunerx.console.visit import Page, Visit

Json = dict[str, Any]
TOKENS = Plural("auth.datatunerx.io", "v1", "tokens", namespaced=False)
HAPPENED = columns("Reason", "About", "What happened", "Times", "Last", numbers=("Times", "Last"))


async def events(visit: Visit) -> Response:
    found = await visit.api.list(EVENTS, visit.namespace)
    found.sort(
        key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""), reverse=True
    )
    lines = []
    for event in found:
        about = event.get("involvedObject") or {}
        title = f"{about.get('kind', '')}/{about.get('name', '')}"
        url = object_url(visit, str(about.get("kind", "")), str(about.get("name", "")))
        cells = (
            Cell("words", event.get("reason")),
            Cell("name", title, url=url),
            Cell("text", event.get("message")),
            Cell("number", event.get("count") or 1),
            ago(str(event.get("lastTimestamp") or event.get("eventTime") or "")),
        )
        lines.append(Line(cells, "Warning" if event.get("type") == "Warning" else "Normal"))
    empty = Empty("No events", "What the platform does to your objects, and why, is told here for an hour.")
    return await show(visit, "Events", "events", HAPPENED, lines, empty)


async def settings(visit: Visit) -> Response:
    version = json.loads(await visit.api.raw("/version"))
    tokens: list[Json] | None = None
    if visit.may("list", "tokens", TOKENS.group):
        try:
            tokens = await visit.api.list(TOKENS)
        except ApiError:
            tokens = None
    rights = [
        (title, [verb for verb in ("get", "create", "patch", "delete") if visit.may(verb, plural)])
        for title, plural in (
            ("Experiments", "finetuneexperiments"),
            ("Jobs", "finetunejobs"),
            ("Datasets", "datasets"),
            ("Models", "llms"),
            ("Services", "inferenceservices"),
        )
    ]
    secrets = access.allowed(visit.rules, "get", "secrets", "")
    return await visit.page(
        "settings.html",
        version=version,
        tokens=tokens,
        rights=rights,
        secrets=secrets,
        server=f"https://{visit.request.url.netloc}",
    )


routes = [
    Page("/events", events),
    Page("/settings", settings),
]
