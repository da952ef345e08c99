"""Files in a run's folder that a status names by URI."""

from pathlib import Path

from datatunerx.runs.files import path_of
from datatunerx.server.errors import ApiError, forbidden


def confined(uri: str, file: str, what: str, root: Path | None) -> Path:
    """The path of `what`: the `file` of a run's folder under the data `root`.

    501 when it is not on this machine. 403 when it is another file: who may write a status may write any URI.
    """
    if not uri.startswith("file://"):
        raise ApiError(501, "NotImplemented", f"{what} is at {uri}; read it there")
    path = path_of(uri).resolve()
    if root is not None and (path.name != file or path.parent.parent != root.resolve() / "runs"):
        raise forbidden(f"{what} ({path}) is not {root}/runs/PLAN/{file}; read it there")
    return path
