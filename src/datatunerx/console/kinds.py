"""The kinds by the words of the pages: where each is in the API, and which page shows it."""

from typing import Any

from datatunerx.client import Api, ApiError, Plural
from datatunerx.resources import GROUP
from datatunerx.resources.kinds import KINDS
from datatunerx.resources.wire import VERSION

Json = dict[str, Any]

PLURALS = {kind.name: Plural(GROUP, VERSION, kind.plural) for kind in KINDS}
SHORT = {kind.name: kind.short for kind in KINDS}
BY_SHORT = {kind.short: kind.name for kind in KINDS}
EXPERIMENT, JOB, FINETUNE = "FinetuneExperiment", "FinetuneJob", "Finetune"
PAGE = {
    EXPERIMENT: "experiments", JOB: "jobs", FINETUNE: "jobs", "Dataset": "datasets", "LLM": "models",
    "LLMCheckpoint": "models", "Hyperparameter": "hyperparameters", "DataPlugin": "plugins",
    "ScoringPlugin": "plugins", "InferenceService": "services", "Run": "devices",
}  # fmt: skip


async def all_of(api: Api, kind: str, namespace: str) -> list[Json]:
    """Every object of a kind, as JSON: a list of a thousand is not worth a thousand models."""
    return await api.list(PLURALS[kind], namespace)


async def find(api: Api, kind: str, name: str, namespace: str) -> Json:
    return await api.get(PLURALS[kind], name, namespace)


async def some(api: Api, kind: str, namespace: str) -> list[Json]:
    """Like `all_of`, but nothing where the visitor may not look."""
    try:
        return await all_of(api, kind, namespace)
    except ApiError as error:
        if error.status == 403:
            return []
        raise


def name_of(obj: Json) -> str:
    return str(obj["metadata"]["name"])


def status_of(obj: Json) -> Json:
    return obj.get("status") or {}


def owner(obj: Json, kind: str) -> str:
    """Name of the owner of that kind; empty without one."""
    owners = obj["metadata"].get("ownerReferences") or []
    return next((str(each["name"]) for each in owners if each["kind"] == kind), "")


def created(obj: Json) -> str:
    return str(obj["metadata"].get("creationTimestamp") or "")
