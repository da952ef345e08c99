"""GET datasets/NAME/report: what a dataset's inspection wrote down, with its first problems and rows."""

import asyncio
from pathlib import Path

from datatunerx.runs.files import REPORT
from datatunerx.server import reads
from datatunerx.server.errors import ApiError
from datatunerx.server.http import JSON, Request
from datatunerx.server.run_files import confined
from datatunerx.server.writes import Target
from datatunerx.store import Store

MAX_BYTES = 64 << 20


async def serve_report(store: Store, target: Target, request: Request, root: Path | None) -> None:
    """The file behind status.reportUri; 404 while there is none."""
    dataset = reads.find(store, target.kind, target.namespace, target.name).decode()
    uri = (dataset.get("status") or {}).get("reportUri")
    if not uri:
        raise _none(
            target.name, "it has not been inspected, or cannot be used; its Ready condition says which"
        )
    path = confined(uri, REPORT, f"the report of dataset {target.name}", root)
    try:
        data = await asyncio.to_thread(_read, path)
    except FileNotFoundError:
        raise _none(target.name, "its file is gone; have the dataset inspected again") from None
    await request.answer(200, data, JSON)


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise ApiError(501, "NotImplemented", f"the report has more than {MAX_BYTES:,} bytes: {path}")
    return path.read_bytes()


def _none(name: str, why: str) -> ApiError:
    return ApiError(404, "NotFound", f"dataset {name} has no report: {why}")
