"""Files of a run that its objects name by URI: in its folder, and what an export has written."""

from collections.abc import Callable
from pathlib import Path

from datatunerx.runs.exporting import OCI_LAYOUT
from datatunerx.runs.files import path_of
from datatunerx.server.errors import ApiError, Json, forbidden


def confined(uri: str, file: str, what: str, root: Path | None) -> Path:
    """The path of `what`: the `file` of a run's folder under the data `root`; it may be predictions/*.jsonl.

    501 when it is not on this machine. 403 when it is another file: who may write a status may write any URI.
    """
    if not uri.startswith("file://"):
        raise ApiError(501, "NotImplemented", f"{what} is at {uri}; read it there")
    path = path_of(uri).resolve()
    above = [str(folder) for folder in path.parents][file.count("/") + 1 :][:1]
    if root is not None and (not path.match(file) or above != [str(root.resolve() / "runs")]):
        raise forbidden(f"{what} ({path}) is not {root}/runs/PLAN/{file}; read it there")
    return path


def export_folder(checkpoint: Json, export: Json, root: Path | None, may_read: Callable[[str], bool]) -> Path:
    """The folder that an entry of `spec.exports` was written to; what a status says of it counts for nothing.

    501 when it is not on this machine. 403 when somebody named a folder that the caller may not read.
    """
    name, uri = export["name"], export.get("uri")
    if not uri and root is not None:
        return root / "exports" / str(checkpoint["metadata"]["uid"]) / str(name)
    place = str(uri or "the platform's own storage")
    local = f"file://{place.removeprefix(OCI_LAYOUT)}" if place.startswith(OCI_LAYOUT) else place
    if not local.startswith(("file://", "/")):
        raise ApiError(501, "NotImplemented", f"export {name} is at {place}; fetch it there")
    if not may_read(local):
        raise forbidden(
            f"export {name} is at {place}, outside the folders opened to you; copy it on the "
            "server's machine, or export without a place of its own"
        )
    return path_of(local)
