"""The names of the files in a run's folder."""

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


def in_folder(folder_uri: str, name: str) -> str:
    return f"{folder_uri.rstrip('/')}/{name}"


def rows_uri(root_of: str, data_digest: str) -> str:
    """Where the rows of a dataset's training split are noted, one JSON list [mark, text] a line."""
    return in_folder(root_of, f"{ROWS}/{data_digest}.jsonl")
