"""GET runs/NAME/log, /events and /points: what a run's worker has told, by byte offset and in curves.

`pods/NAME/log` is the same log for kubectl; here a reader goes on from where it stood, pages back, searches.
"""

import asyncio
import re
from pathlib import Path

from datatunerx.runs.files import EVENTS, PREDICTIONS
from datatunerx.server import pods, reads
from datatunerx.server.errors import ApiError, Json, bad_request
from datatunerx.server.http import Request
from datatunerx.server.run_files import confined
from datatunerx.server.writes import Target
from datatunerx.store import Store
from datatunerx.telemetry import logs

START, END, SIZE = "x-datatunerx-start", "x-datatunerx-end", "x-datatunerx-size"
"""Headers: the body is these bytes of a file of so many."""
TEXT = "text/plain; charset=utf-8"
LIMIT = 256 << 10
MAX_LIMIT = 4 << 20
AT_ONCE = 64 << 10
SEARCH_SECONDS = 0.4
PREDICTED = f"{PREDICTIONS}/*.jsonl"
_PLAN_ID = re.compile(r"[0-9a-f]{8,64}")


class Told:
    def __init__(self, store: Store, root: Path | None) -> None:
        self._store, self._root = store, root

    async def answer(self, target: Target, request: Request) -> None:
        run = reads.find(self._store, target.kind, target.namespace, target.name).decode()
        match target.subresource:
            case "log":
                previous = request.flag("previous")
                if not previous and not (run.get("status") or {}).get("logUri"):  # it waits for its device
                    return await request.answer(200, b"", TEXT, {START: "0", END: "0", SIZE: "0"})
                path = pods.log_path(run, previous=previous, root=self._root)
                if "search" in request.query or "level" in request.query:
                    return await request.json(200, await _search(path, request))
                await _bytes(path, request)
            case "events":
                await _bytes(self._events(run), request)
            case _:
                await request.answer(200, await asyncio.to_thread(_curves, self._events(run), request))

    async def predictions(self, target: Target, request: Request) -> None:
        """GET scorings/NAME/predictions: what a model answered, a line of JSON each, by byte offset."""
        scoring = reads.find(self._store, target.kind, target.namespace, target.name).decode()
        uri = (scoring.get("status") or {}).get("predictionsUri")
        if not uri:
            raise ApiError(404, "NotFound", f"scoring {target.name} has no answers yet")
        await _bytes(confined(uri, PREDICTED, f"what {target.name} has measured", self._root), request)

    def _events(self, run: Json) -> Path:
        """The file of its events, by the id of its plan under our root: nothing a user can write decides."""
        plan = str(run["spec"].get("planId", ""))
        if self._root is None or not _PLAN_ID.fullmatch(plan):
            raise ApiError(501, "NotImplemented", f"the events of run {run['metadata']['name']} are not here")
        return self._root / "runs" / plan / EVENTS


def _curves(events: Path, request: Request) -> bytes:
    # Loaded with the first chart, and beside the loop: numpy takes longer to load than the server does.
    from datatunerx.server import curves

    return curves.answer(events, request)


async def _bytes(path: Path, request: Request) -> None:
    """Whole lines from `offset` on; with `before` those that end there; with `tail` the last so many.

    With `open` the beginning of the unfinished last line too, after what the headers count.
    """
    limit = min(request.number("limit") or LIMIT, MAX_LIMIT)
    size = logs.size(path)
    before, tail, offset = request.number("before"), request.number("tail"), request.number("offset") or 0
    if not path.exists():
        start, data = 0, b""
        whole = data
    elif before is not None or tail is not None:
        lines = min(tail or 500, 5000)
        start, data = await asyncio.to_thread(logs.lines_before, path, before, lines, limit)
        whole = logs.whole_lines(data)
    else:
        start = offset if offset <= size else 0  # shorter than it was: begun anew
        # A little is read at once: for a page that follows a log two changes of thread are what takes long.
        few = size - start <= AT_ONCE
        data = (
            logs.read(path, start, limit) if few else await asyncio.to_thread(logs.read, path, start, limit)
        )
        whole = logs.whole_lines(data)
    told = {START: str(start), END: str(start + len(whole)), SIZE: str(size)}
    body = data if request.flag("open") else whole
    await request.answer(200, body, TEXT, told)


async def _search(path: Path, request: Request) -> Json:
    level = request.query.get("level", "")
    if level not in ("", *logs.LEVELS):
        raise bad_request(f"level: {level!r} is not one of {', '.join(logs.LEVELS)}")
    if not path.exists():
        return {"lines": [], "before": 0, "size": 0}
    words = request.query.get("search", "")
    found, place = await asyncio.to_thread(
        logs.search, path, request.number("before"), words, level, min(request.number("tail") or 500, 2000),
        SEARCH_SECONDS,
    )  # fmt: skip
    lines = [[offset, line.decode(errors="replace")] for offset, line in found]
    return {"lines": lines, "before": place, "size": logs.size(path)}
