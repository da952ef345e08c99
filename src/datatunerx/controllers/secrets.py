"""Secrets on their way to a worker: read when it is started, given to it in its environment, kept nowhere."""

import base64
import json

from datatunerx.client.api import Plural
from datatunerx.client.errors import NotFound
from datatunerx.controllers.context import Context
from datatunerx.resources.finetune import Endpoint
from datatunerx.resources.outcome import Run
from datatunerx.runs.files import CREDENTIALS

SECRETS = Plural("", "v1", "secrets")


async def secret_values(context: Context, namespace: str, name: str) -> dict[str, str] | None:
    """The Secret's values by key; None if there is none. One that is no text is left out."""
    try:
        found = await context.api.get(SECRETS, name, namespace)
    except NotFound:
        return None
    values = {}
    for key, coded in (found.get("data") or {}).items():
        try:
            values[key] = base64.b64decode(coded).decode()
        except ValueError:
            continue
    return values


def secrets_of(*endpoints: Endpoint | None) -> list[str]:
    """Names of the Secrets whose values are sent there."""
    refs = [endpoint.secret_ref for endpoint in endpoints if endpoint]
    return sorted({ref.name for ref in refs if ref})


async def environment_of(context: Context, run: Run) -> dict[str, str]:
    """What the run's worker is given to read far files with; empty if it needs nothing."""
    found = {}
    for name in run.spec.secrets:
        values = await secret_values(context, run.metadata.namespace, name)
        if values is not None:  # one that has gone meanwhile is missed, and named, by the worker
            found[name] = values
    return {CREDENTIALS: json.dumps(found)} if found else {}
