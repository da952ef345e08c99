"""The data of charts, as JSON to draw and as CSV to keep; the words below them in the reader's language."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator

import orjson
from starlette.responses import Response, StreamingResponse

from datatunerx.console import charts, kinds
from datatunerx.console.pages.experiment import job_list
from datatunerx.console.visit import Page, Visit

MAX_JOBS, MAX_CHARTS = 200, 20


async def data(visit: Visit) -> Response:
    """Of the jobs named by `job`, or those of `experiment`, a chart for each `name`, in their order."""
    lines = await _lines(visit)
    drawn, left = lines[:MAX_JOBS], len(lines) - MAX_JOBS
    names = visit.request.query_params.getlist("name")[:MAX_CHARTS] or ["loss"]
    asked = [charts.Asked.of(visit.query | {"name": name}) for name in names]
    found = await asyncio.gather(*(charts.chart(visit.api, visit.namespace, drawn, each) for each in asked))
    for each in found:
        if said := each["said"]:
            text, values = said
            each["said"] = visit.say(text, **values)
            if left > 0:
                each["said"] += " " + visit.say("{n} more jobs are not drawn.", n=left)
    return Response(orjson.dumps(found), media_type="application/json")


async def table(visit: Visit) -> Response:
    """Every point of a chart."""
    lines, asked = await _lines(visit), charts.Asked.of(visit.query)

    async def rows() -> AsyncIterator[str]:
        yield _csv([["job", "run", asked.x, asked.name]])
        for line in lines:
            for run in line.runs:
                query = {"x": asked.x, "y": asked.name, "raw": "1"}
                told = await charts.points(visit.api, visit.namespace, run, {line.finetune: {}}, query)
                curve = told.get("curves", {}).get(line.finetune, {"x": [], "y": []})
                pairs = zip(curve["x"], curve["y"], strict=True)
                yield _csv([[line.job, run, x, y] for x, y in pairs])

    headers = {"content-disposition": f'attachment; filename="{asked.name}.csv"'}
    return StreamingResponse(rows(), media_type="text/csv; charset=utf-8", headers=headers)


def _csv(rows: list[list[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


async def _lines(visit: Visit) -> list[charts.Line]:
    jobs = await kinds.all_of(visit.api, kinds.JOB, visit.namespace)
    runs = await kinds.some(visit.api, "Run", visit.namespace)
    names = visit.request.query_params.getlist("job")
    if experiment := visit.query.get("experiment"):
        obj = await kinds.find(visit.api, kinds.EXPERIMENT, experiment, visit.namespace)
        mine = [job for job in jobs if kinds.owner(job, kinds.EXPERIMENT) == experiment]
        names = [row["name"] for row in job_list(visit, mine, {}, kinds.status_of(obj), "charts").rows]
    return charts.lines(names, jobs, runs)


routes = [Page("/charts", data), Page("/charts.csv", table)]
