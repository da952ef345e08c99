"""Pods: a read-only view of runs, so that `kubectl get pods` and `kubectl logs` work without a cluster."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path

from datatunerx.runs.files import LOG
from datatunerx.server import reads
from datatunerx.server.errors import Json, bad_request
from datatunerx.server.http import Request
from datatunerx.server.kinds import READ_VERBS, Column, Facade, Kind
from datatunerx.server.run_files import confined
from datatunerx.server.table import age
from datatunerx.store import Store
from datatunerx.telemetry import logs

CONTAINER = "worker"
FINAL = ("Succeeded", "Failed", "Stopped")
_PHASES = {"Running": "Running", "Succeeded": "Succeeded", "Failed": "Failed", "Stopped": "Failed"}
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def pod_kind(source: str) -> Kind:
    """Pods that show the objects of `source`, the resource of runs."""
    refusal = "pods only show runs; to stop one, stop its Finetune: dtx stop finetune/NAME"
    return Kind(
        "",
        "v1",
        "Pod",
        "pods",
        "pod",
        short_names=("po",),
        categories=("all",),
        builtin=True,
        verbs=READ_VERBS,
        facade=Facade(source, show, refusal),
        columns=tuple(Column(name, "") for name in ("Ready", "Status", "Restarts", "Age")),
        cells=_cells,
        selectable=("status.phase", "spec.nodeName"),
    )


def show(run: Json) -> Json:
    """The pod that stands for a run."""
    meta = {name: value for name, value in run["metadata"].items() if name != "managedFields"}
    status = run.get("status") or {}
    phase = status.get("phase", "Pending")
    state: Json = {"waiting": {"reason": "Pending"}}
    if phase == "Running":
        state = {"running": _times(status, "startedAt")}
    elif phase in FINAL:
        code = status.get("exitCode")
        reason = status.get("reason") or {"Succeeded": "Completed"}.get(phase, phase)
        state = {
            "terminated": {
                "exitCode": code if code is not None else int(phase != "Succeeded"),
                "reason": reason,
                **_times(status, "startedAt", "finishedAt"),
            }
        }
    container = {
        "name": CONTAINER,
        "image": "datatunerx/worker",
        "imageID": "",
        "ready": phase == "Running",
        "restartCount": 0,
        "state": state,
    }
    told = {name: status[name] for name in ("reason", "message") if status.get(name)}
    if started := status.get("startedAt"):
        told["startTime"] = started
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {
            "containers": [{"name": CONTAINER, "image": "datatunerx/worker"}],
            "nodeName": "local",
            "restartPolicy": "Never",
        },
        "status": {"phase": _PHASES.get(phase, "Pending"), "containerStatuses": [container], **told},
    }


def _times(status: Json, *names: str) -> Json:
    return {name: status[name] for name in names if status.get(name)}


def _cells(pod: Json) -> list[object]:
    container = pod["status"]["containerStatuses"][0]
    ended = container["state"].get("terminated")
    status = ended["reason"] if ended else pod["status"]["phase"]
    created = pod["metadata"].get("creationTimestamp", "")
    return [f"{int(container['ready'])}/1", status, "0", age(created, time.time())]


def log_path(run: Json, *, previous: bool, root: Path | None) -> Path:
    """The file a run's worker writes to; 400 when there is none, and as `confined`."""
    status = run.get("status") or {}
    name = run["metadata"]["name"]
    uri = status.get("previousLogUri" if previous else "logUri")
    if not uri:
        if previous:
            raise bad_request(f'previous terminated container "{CONTAINER}" in pod "{name}" not found')
        raise bad_request(
            f'container "{CONTAINER}" in pod "{name}" is waiting to start: the run has no log yet'
        )
    return confined(uri, LOG, f"the log of run {name}", root)


async def serve_log(
    store: Store,
    target: tuple[Kind, str, str],
    request: Request,
    root: Path | None,
    stopping: Callable[[], bool],
) -> None:
    """GET pods/NAME/log; a followed log ends with its run, its reader or the server."""
    kind, namespace, name = target
    entry = reads.find(store, kind, namespace, name)
    container = request.query.get("container") or CONTAINER
    if container != CONTAINER:
        raise bad_request(f"container {container} is not valid for pod {name}; it has only {CONTAINER}")
    path = log_path(entry.decode(), previous=request.flag("previous"), root=root)
    limit = request.number("limitBytes")
    follow = request.flag("follow")

    offset = _start(path, request)
    left = asyncio.create_task(request.gone())

    def ended() -> bool:
        if not follow or left.done() or stopping():
            return True
        now = store.get(entry.key)
        return now is None or (now.decode().get("status") or {}).get("phase") in FINAL

    chunks = logs.follow(path, offset, stop=ended)
    if request.flag("timestamps"):
        chunks = _stamped(chunks, entry.decode())
    await request.start(200, "text/plain; charset=utf-8")
    sent = 0
    try:
        async for data in chunks:
            data = data if limit is None else data[: limit - sent]
            sent += len(data)
            await request.chunk(data)
            if sent == limit or left.done():
                break
    finally:
        left.cancel()
    await request.chunk(b"", more=False)


def _start(path: Path, request: Request) -> int:
    if not path.exists():
        return 0
    offsets = [0]
    tail = request.number("tailLines")
    if tail is not None:
        offsets.append(logs.tail_offset(path, tail))
    since: float | None = None
    if (seconds := request.number("sinceSeconds")) is not None:
        since = time.time() - seconds
    elif stamp := request.query.get("sinceTime"):
        try:
            since = datetime.fromisoformat(stamp).timestamp()
        except ValueError:
            raise bad_request(f'sinceTime: "{stamp}" is not an RFC 3339 time') from None
    if since is not None:
        offsets.append(since_offset(path, since))
    return max(offsets)


def since_offset(path: Path, since: float) -> int:
    """Where the first line stamped at `since` (seconds) or later begins; the start if none is stamped."""
    if path.stat().st_mtime < since:
        return logs.size(path)
    low, high = 0, logs.size(path)
    stamped = False
    while low < high:  # halving: stamps rise with the offset
        middle = (low + high) // 2
        start, stamp = _next_stamp(path, middle, high)
        if stamp is None:
            high = middle
            continue
        stamped = True
        if stamp < since:
            low = start + 1
        else:
            high = middle
    if not stamped:
        return 0
    start, stamp = _next_stamp(path, low, logs.size(path))
    return start if stamp is not None else logs.size(path)


def _next_stamp(path: Path, offset: int, end: int) -> tuple[int, float | None]:
    """(start of the first stamped line that begins at or after `offset`, its time)."""
    data = logs.read(path, max(0, offset - 1), logs.BLOCK)
    base = max(0, offset - 1)
    place = 0 if offset == 0 else data.find(b"\n") + 1
    while (offset == 0 or place > 0) and place < len(data) and base + place < end:
        if match := _STAMP.match(data, place):
            return base + place, datetime.fromisoformat(match[0].decode()).timestamp()
        place = data.find(b"\n", place) + 1
        if place == 0:
            break
    return end, None


async def _stamped(chunks: AsyncIterator[bytes], run: Json) -> AsyncIterator[bytes]:
    """Every line with a time in front: its own when it has one, else that of the line before."""
    status = run.get("status") or {}
    stamp = str(status.get("startedAt") or run["metadata"]["creationTimestamp"]).encode()
    rest = b""
    async for data in chunks:
        *lines, rest = (rest + data).split(b"\n")
        out = []
        for line in lines:
            if match := _STAMP.match(line):
                stamp = match[0]
                out.append(line)
            else:
                out.append(stamp + b" " + line)
        if out:
            yield b"\n".join(out) + b"\n"
    if rest:
        yield rest if _STAMP.match(rest) else stamp + b" " + rest
