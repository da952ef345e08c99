"""What runs where and what happened: devices and the queue, events, settings."""

import json
from typing import Any

from starlette.responses import Response

from datatunerx.client import EVENTS, ApiError, Plural
from datatunerx.console import access, equal, figures, kinds, states
from datatunerx.console.tables import Cell, Empty, Line, ago, columns, name_cell, object_url, show, state_cell
from datatunerx.console.visit import Page, Visit

Json = dict[str, Any]
TOKENS = Plural("auth.datatunerx.io", "v1", "tokens", namespaced=False)
RUNS = columns(
    "Run",
    "State",
    "Type",
    "For",
    "Place in the queue",
    "Heard from",
    "Age",
    numbers=("Place in the queue", "Heard from", "Age"),
)
HAPPENED = columns("Reason", "About", "What happened", "Times", "Last", numbers=("Times", "Last"))


async def one(visit: Visit) -> Response:
    """A run."""
    kind = "Run"
    obj = await kinds.find(visit.api, kind, visit.name, visit.namespace)
    return await visit.page(
        "running.html",
        live=True,
        obj=obj,
        spec=obj["spec"],
        status=kinds.status_of(obj),
        name=visit.name,
        kind=kind,
        phase=states.phase(obj),
        why=states.why(obj),
        trail=[(visit.say("Devices & queue"), visit.url("devices"))],
        used_by=(),
        target=[f"{kinds.SHORT[kind]}/{visit.name}"],
        plural=kinds.PLURALS[kind].plural,
        serves=_serves(visit, obj),
        yaml=figures.as_yaml(equal.manifest(obj)),
        commands=equal.look(kind, visit.name, visit.namespace),
    )


def _serves(visit: Visit, obj: Json) -> list[tuple[str, str]]:
    titles = [str(title) for title in obj["spec"].get("serves") or () if "/" in title]
    return [(title, object_url(visit, *title.split("/", 1))) for title in titles]


async def devices(visit: Visit) -> Response:
    runs = await kinds.all_of(visit.api, "Run", visit.namespace)
    runs.sort(key=kinds.created, reverse=True)
    runs.sort(key=lambda run: kinds.status_of(run).get("position") or 0)
    lines = []
    for obj in runs:
        status, spec = kinds.status_of(obj), obj["spec"]
        first, *more = spec.get("serves") or [""]
        rest = visit.say("and {n} more", n=len(more)) if more else ""
        cells = (
            name_cell(visit, "Run", kinds.name_of(obj)),
            state_cell(obj),
            Cell("text", spec["type"]),
            Cell("text", first, rest),
            Cell("number", status.get("position")),
            Cell("age", status.get("lastHeartbeat") if states.phase(obj) == "Running" else None),
            ago(kinds.created(obj)),
        )
        lines.append(Line(cells, states.phase(obj)))
    running = [run for run in runs if states.phase(run) == "Running"]
    waiting = [run for run in runs if states.phase(run) == "Pending"]
    empty = Empty(
        "Nothing runs",
        "Every inspection, training, scoring and service is a run. They stand here "
        "with their device and their place in the queue.",
    )
    return await show(
        visit,
        "Devices & queue",
        "devices",
        RUNS,
        lines,
        empty,
        template="devices.html",
        running=running,
        waiting=waiting,
    )


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
            Cell("text", event.get("reason")),
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
    Page("/devices", devices),
    Page("/devices/{name}", one),
    Page("/events", events),
    Page("/settings", settings),
]
