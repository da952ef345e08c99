"""Whether an object as the API gives it has failed, and what to say of it then."""

from datatunerx.cli.documents import Json
from datatunerx.cli.names import of_model

INSPECTED = ("LLM", "Dataset", "DataPlugin", "ScoringPlugin")
"""Kinds that a Run looks at; of these a Ready that is False is the failure."""
WORKED_ON = ("FinetuneExperiment", "FinetuneJob", "Finetune", "Scoring")


def hint(body: Json) -> str:
    """Of an object that failed, and that applying it once more does not change; else empty."""
    kind, name, status = body["kind"], body["metadata"]["name"], body.get("status") or {}
    if kind in WORKED_ON:
        failed = phase(body) == "Failed" or bool(status.get("failures"))
    else:
        failed = kind in INSPECTED and not_ready(body)
    if not failed:
        return ""
    short = f"{of_model(kind).short}/{name}"
    return f"{short} has failed and stays as it is; to try what failed again: dtx retry {short}"


def not_ready(body: Json) -> bool:
    conditions = (body.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "False" for c in conditions)


def phase(body: Json) -> str:
    return str((body.get("status") or {}).get("phase", "Pending"))
