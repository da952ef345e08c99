"""The names of the files in a run's folder."""

PLAN = "plan.json"
EVENTS = "events.jsonl"
RESULT = "result.json"
LOG = "worker.log"
COMMANDS = "commands"
PREDICTIONS = "predictions"

CREDENTIALS = "DTX_CREDENTIALS"
"""The environment variable by which a worker is given Secrets: {name: {key: value}} as JSON."""


def in_folder(folder_uri: str, name: str) -> str:
    return f"{folder_uri.rstrip('/')}/{name}"
