"""Parts of a run's log, for the log pane: the end, older pages, what has some words; and the whole file."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse

from datatunerx.client.api import path_of
from datatunerx.client.errors import from_answer
from datatunerx.console import kinds
from datatunerx.console.live import piece
from datatunerx.console.tail import line_rows, open_row, rows_of
from datatunerx.console.visit import Page, Visit

LINES = 500
DOWNLOAD = 1 << 20


async def part(visit: Visit) -> Response:
    """`before` an offset or the end, `around` one, or with words or a level what has them, as JSON."""
    query = visit.query
    if query.get("search") or query.get("level"):
        return _json(await _found(visit))
    before = query.get("before")
    if around := query.get("around"):
        return _json(await _around(visit, int(around) if around.isdigit() else 0))
    found = await piece(
        visit.api, visit.namespace, visit.name, "log", tail=LINES, open="true",
        before=int(before) if before and before.isdigit() else None,
    )  # fmt: skip
    row = open_row(found.end, found.open) if before is None else None
    rows = line_rows(found.start, found.data)
    return _json({"lines": rows, "start": found.start, "end": found.end, "size": found.size, "open": row})


async def _around(visit: Visit, offset: int) -> dict[str, Any]:
    """Lines before and after an offset; what comes later is not shown, so nothing is followed."""
    old = await piece(visit.api, visit.namespace, visit.name, "log", tail=LINES // 2, before=offset)
    new = await piece(visit.api, visit.namespace, visit.name, "log", offset=old.end, limit=48 << 10)
    later = line_rows(new.start, new.data)
    end = later[LINES][0] if len(later) > LINES else new.end
    rows = line_rows(old.start, old.data) + later[:LINES]
    return {"lines": rows, "start": old.start, "end": end, "size": new.size, "open": None}


async def _found(visit: Visit) -> dict[str, Any]:
    asked = {key: value for key in ("search", "level", "before") if (value := visit.query.get(key))}
    where = path_of(kinds.PLURALS["Run"], visit.namespace, visit.name, "log")
    answer = await visit.api.transport.request("GET", where, query=asked)
    if answer.status >= 300:
        raise from_answer(answer.status, answer.body)
    told = orjson.loads(answer.body)
    return {"lines": rows_of(told["lines"]), "before": told["before"], "size": told["size"]}


async def file(visit: Visit) -> Response:
    """All of it, as it is on the disk."""
    first = await piece(visit.api, visit.namespace, visit.name, "log", limit=DOWNLOAD, open="true")

    async def parts() -> AsyncIterator[bytes]:
        found = first
        while found.data:
            yield found.data
            if found.end >= first.size:
                return
            found = await piece(
                visit.api, visit.namespace, visit.name, "log", offset=found.end, limit=DOWNLOAD, open="true"
            )
        yield found.open

    name = {"content-disposition": f'attachment; filename="{visit.name}.log"'}
    return StreamingResponse(parts(), media_type="text/plain; charset=utf-8", headers=name)


def _json(found: dict[str, Any]) -> Response:
    return Response(orjson.dumps(found), media_type="application/json")


routes = [Page("/logs/{name}", part), Page("/logs/{name}/file", file)]
