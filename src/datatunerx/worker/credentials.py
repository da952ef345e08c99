"""The values of Secrets, taken out of the environment before anything else can see them there."""

import json
from collections.abc import Mapping, MutableMapping

from datatunerx.runs.files import CREDENTIALS
from datatunerx.runs.plan import Access
from datatunerx.storage.remote import Credentials

Secrets = Mapping[str, Mapping[str, str]]
"""Name of the Secret -> its values by key."""


def take(environment: MutableMapping[str, str]) -> Secrets:
    """What this worker was given; gone from the environment, so that no child of it inherits it."""
    found: dict[str, dict[str, str]] = json.loads(environment.pop(CREDENTIALS, "{}"))
    return found


def credentials_for(access: Access | None, secrets: Secrets) -> Credentials:
    """How the plan wants its far files read; a Secret that was not given has no values."""
    if access is None:
        return Credentials()
    return Credentials(secrets.get(access.secret or "", {}), access.endpoint or "", access.secret or "")
