"""GET datasets/NAME/report: what a dataset's inspection wrote down, with its first problems and rows."""

import asyncio
from pathlib import Path

from datatunerx.runs.files import REPORT, path_of
from datatunerx.server import reads
from datatunerx.server.errors import ApiError, forbidden
from datatunerx.server.http import JSON, Request
from datatunerx.server.writes import Target
from datatunerx.store import Store

MAX_BYTES = 64 << 20


async def serve_report(store: Store, target: Target, request: Request, root: Path | None) -> None:
    """The file behind status.reportUri; 404 while there is none."""
    dataset = reads.find(store, target.kind, target.namespace, target.name).decode()
    path = _path(target.name, (dataset.get("status") or {}).get("reportUri"), root)
    try:
        data = await asyncio.to_thread(_read, path)
    except FileNotFoundError:
        raise _none(target.name, "its file is gone; have the dataset inspected again") from None
    await request.answer(200, data, JSON)


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise ApiError(501, "NotImplemented", f"the report has more than {MAX_BYTES:,} bytes: {path}")
    return path.read_bytes()


def _path(name: str, uri: str | None, root: Path | None) -> Path:
    """403 when it is not a report in a run's folder: who may write a status may write any URI."""
    if not uri:
        raise _none(name, "it has not been inspected, or cannot be used; its Ready condition says which")
    if not uri.startswith("file://"):
        raise ApiError(501, "NotImplemented", f"the report of dataset {name} is at {uri}; read it there")
    path = path_of(uri).resolve()
    if root is not None and (path.name != REPORT or path.parent.parent != root.resolve() / "runs"):
        raise forbidden(f"the report of dataset {name} ({path}) is not {root}/runs/PLAN/{REPORT}")
    return path


def _none(name: str, why: str) -> ApiError:
    return ApiError(404, "NotFound", f"dataset {name} has no report: {why}")
