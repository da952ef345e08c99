"""The names of the files in a run's folder, and the path that a URI names."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

PLAN = "plan.json"
EVENTS = "events.jsonl"
RESULT = "result.json"
LOG = "worker.log"
COMMANDS = "commands"
RECORD = "record.json"
"""With what a tune run trains: versions, device, threads."""
ROWS = "rows"
PREDICTIONS = "predictions"
REPORT = "report.json"
"""What the inspection of a dataset found, with its first problems and rows."""
MODELS = "models.json"
"""What a serving run is to serve from now on."""
TOKEN = "serve.token"
"""The bearer token of a serving run, readable by its owner only. The worker makes it if it is not there."""

CREDENTIALS = "DTX_CREDENTIALS"
"""The environment variable by which a worker is given Secrets: {name: {key: value}} as JSON."""


def path_of(uri: str) -> Path:
    """The path that a file:// URI or a plain path names, as it is written: nothing is refused or looked up.

    Raises ValueError for another scheme.
    """
    scheme, sep, _ = uri.partition("://")
    if not sep:
        return Path(uri)
    if scheme.lower() != "file":
        raise ValueError(f"{uri}: is not on this machine; only file:// URIs and paths are")
    parts = urlsplit(uri, allow_fragments=False)  # # and ? may stand in the name of a file
    return Path(unquote(parts.path + (f"?{parts.query}" if parts.query else "")))


def in_folder(folder_uri: str, name: str) -> str:
    return f"{folder_uri.rstrip('/')}/{name}"


def rows_uri(root_of: str, data_digest: str) -> str:
    """Where the rows of a dataset's training split are noted, one JSON list [mark, text] a line."""
    return in_folder(root_of, f"{ROWS}/{data_digest}.jsonl")
