"""Devices and the queue: what runs where, what waits in which order, and changing that order."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from datatunerx.client import ApiError
from datatunerx.console import equal, figures, kinds, queue_order, states
from datatunerx.console.host import Device, Host
from datatunerx.console.listing import Asked, part
from datatunerx.console.progress import activity, share
from datatunerx.console.queue_order import Waiting
from datatunerx.console.tables import Cell, Empty, Line, ago, columns, name_cell, object_url, show, state_cell
from datatunerx.console.visit import Page, Visit

Json = dict[str, Any]
RUNS = columns(
    "Run", "State", "Type", "For", "Device", "Place in the queue", "Heard from", "Age",
    numbers=("Place in the queue", "Heard from", "Age"),
)  # fmt: skip
WAITING = 25
"""Rows of the queue on one page."""


async def table(visit: Visit) -> Response:
    runs = await kinds.all_of(visit.api, "Run", visit.namespace)
    tunes = await kinds.some(visit.api, kinds.FINETUNE, visit.namespace)
    runs.sort(key=kinds.created, reverse=True)
    runs.sort(key=lambda run: kinds.status_of(run).get("position") or 0)
    empty = Empty(
        "Nothing runs",
        "Every inspection, training, scoring and service is a run. They stand here "
        "with their device and their place in the queue.",
    )
    by_name = {kinds.name_of(tune): tune for tune in tunes}
    running = [_running(visit, run, by_name) for run in runs if states.phase(run) == "Running"]
    waiting = [run for run in runs if states.phase(run) == "Pending"]
    queue = _rows(visit, tunes, len(waiting))
    shown = part([*waiting, *queue], Asked.beside(visit.query, "waiting", WAITING))
    runs_of_them = max(0, len(waiting) + 1 - shown.first)
    return await show(
        visit, "Devices & queue", "devices", RUNS, [_line(visit, run) for run in runs], empty,
        template="devices.html", kept=("waiting",), places=_places(await _used(visit), running), line=shown,
        waiting=shown.rows[:runs_of_them], queue=shown.rows[runs_of_them:], queued=len(queue),
        others=sum(_waits(tune) and not _queued(tune) for tune in tunes),
        movable=visit.may("patch", "finetunes"),
    )  # fmt: skip


def _line(visit: Visit, obj: Json) -> Line:
    status, spec = kinds.status_of(obj), obj["spec"]
    first, *more = spec.get("serves") or [""]
    rest = visit.say("and {n} more", n=len(more)) if more else ""
    url = object_url(visit, *first.split("/", 1)) if "/" in first else ""
    cells = (
        name_cell(visit, "Run", kinds.name_of(obj)),
        state_cell(visit, obj),
        Cell("text", spec["type"]),
        Cell("text", first, rest, url),
        Cell("text", ", ".join(status.get("devices") or ())),
        Cell("number", status.get("position")),
        Cell("age", status.get("lastHeartbeat") if states.phase(obj) == "Running" else None),
        ago(kinds.created(obj)),
    )
    return Line(cells, states.phase(obj))


async def _used(visit: Visit) -> tuple[Device, ...]:
    """How the devices are used, where they are this machine's."""
    host: Host | None = look() if (look := visit.request.app.state.host) else None
    return await asyncio.to_thread(host.look) if host else ()


def _running(visit: Visit, run: Json, tunes: dict[str, Json]) -> Json:
    """A run as its device shows it."""
    serves = [str(title) for title in run["spec"].get("serves") or () if "/" in title]
    mine = [tunes[name] for title in serves if (name := title.partition("/")[2]) in tunes]
    return {
        "name": kinds.name_of(run),
        "type": run["spec"]["type"],
        "devices": kinds.status_of(run).get("devices") or [],
        "doing": next(
            (said for tune in mine if (said := activity(tune))), kinds.status_of(run).get("message") or ""
        ),
        "share": sum(map(share, mine)) / len(mine) if mine else None,
        "serves": [(title, object_url(visit, *title.split("/", 1))) for title in serves],
    }


def _places(devices: Sequence[Device], running: Sequence[Json]) -> list[Json]:
    """Each device with what runs on it; at the end what runs on none."""
    names = [device.name for device in devices]
    names += sorted({name for run in running for name in run["devices"]} - set(names))
    known = {device.name: device for device in devices}
    found = [
        {"name": name, "device": known.get(name), "runs": [run for run in running if name in run["devices"]]}
        for name in names
    ]
    rest = [run for run in running if not run["devices"]]
    return found + ([{"name": "", "device": None, "runs": rest}] if rest else [])


def _waits(tune: Json) -> bool:
    spec, status = tune.get("spec") or {}, kinds.status_of(tune)
    asked_off = spec.get("suspend") or spec.get("stop") or tune["metadata"].get("deletionTimestamp")
    return states.phase(tune) in ("Pending", "Retrying") and not status.get("run") and not asked_off


def _queued(tune: Json) -> bool:
    """Whether a device is all that it waits for."""
    return _waits(tune) and (
        kinds.status_of(tune).get("reason") == "Queued" or states.phase(tune) == "Retrying"
    )


def _waiting(tune: Json) -> Waiting:
    return Waiting(kinds.name_of(tune), (tune["spec"].get("priority") or 0), kinds.created(tune))


def _rows(visit: Visit, tunes: Sequence[Json], ahead: int) -> list[Json]:
    """What waits for a device, in order; so many runs are ahead."""
    queued = {kinds.name_of(tune): tune for tune in tunes if _queued(tune)}
    rows = []
    for place, item in enumerate(queue_order.in_order([_waiting(tune) for tune in queued.values()]), 1):
        tune = queued[item.name]
        owner = kinds.owner(tune, kinds.JOB)
        rows.append({
            "name": item.name,
            "place": ahead + place,
            "ends": (place == 1, place == len(queued)),
            "url": visit.url("jobs", owner) if owner else "",
            "about": f"{tune['spec']['llm']} · {tune['spec']['dataset']}",
            "priority": item.priority,
            "start": kinds.status_of(tune).get("expectedStart"),
            "why": states.why(tune, visit.say),
        })  # fmt: skip
    return rows


async def reorder(visit: Visit) -> Response:
    """Change priorities so that what waits goes in this `order`, or one `name` goes `by` a place."""
    tunes = await kinds.all_of(visit.api, kinds.FINETUNE, visit.namespace)
    items = [_waiting(tune) for tune in tunes if _queued(tune)]
    order = [value for name, value in visit.fields if name == "order"]
    by = visit.form.get("by", "")
    if not order and by in ("-1", "1"):
        order = queue_order.moved(items, visit.form.get("name", ""), int(by))
    changes = queue_order.priorities(items, order)
    patches = {name: {"spec": {"priority": priority}} for name, priority in changes.items()}
    faults = []
    for name, patch in patches.items():
        try:
            await visit.api.patch(kinds.PLURALS[kinds.FINETUNE], name, patch, visit.namespace)
        except ApiError as error:
            faults.append(f"{name}: {error.message}")
    if faults:
        return await visit.page("toast.html", http=409, message="; ".join(faults))
    told = ", ".join(f"{name} {priority:+d}" for name, priority in changes.items())
    said = visit.say("Priority: {what}", what=told) if told else visit.say("It stands there already.")
    return Response(headers={"HX-Trigger": json.dumps({"dtx:toast": said, "dtx:changed": True})})


async def one(visit: Visit) -> Response:
    """A run."""
    obj = await kinds.find(visit.api, "Run", visit.name, visit.namespace)
    titles = [str(title) for title in obj["spec"].get("serves") or () if "/" in title]
    return await visit.page(
        "running.html",
        live=True,
        obj=obj,
        spec=obj["spec"],
        status=kinds.status_of(obj),
        name=visit.name,
        kind="Run",
        phase=states.phase(obj),
        why=states.why(obj, visit.say),
        trail=[(visit.say("Devices & queue"), visit.url("devices"))],
        used_by=(),
        target=[f"{kinds.SHORT['Run']}/{visit.name}"],
        plural=kinds.PLURALS["Run"].plural,
        serves=[(title, object_url(visit, *title.split("/", 1))) for title in titles],
        yaml=figures.as_yaml(equal.manifest(obj)),
        commands=[
            *equal.look("Run", visit.name, visit.namespace),
            f"kubectl logs {visit.name}{equal.place(visit.namespace)}",
        ],
    )


routes = [
    Page("/devices", table),
    Page("/devices/_queue", reorder, ("POST",)),
    Page("/devices/{name}", one),
]
