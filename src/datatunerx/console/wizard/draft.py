"""Drafts of experiments: ConfigMaps with a label, each of one user; a wizard is left and resumed by them."""

import json
import secrets
from typing import Any, NamedTuple

from pydantic import ValidationError

from datatunerx.client import Api, ApiError, NotFound, Plural
from datatunerx.console import kinds
from datatunerx.resources.enums import Method
from datatunerx.resources.wire import API_VERSION, GROUP, Wire

Json = dict[str, Any]
CONFIG_MAPS = Plural("", "v1", "configmaps")
LABEL = f"{GROUP}/draft"
USER = f"{GROUP}/user"
"""Annotation: whose draft it is. A user's name need not be a label."""
CHANGED = f"{GROUP}/changed"
OPEN, STARTED = "open", "started"
KEY = "draft.json"
STEPS = 6


class Draft(Wire):
    """What was chosen and typed so far, as it was typed: what is wrong is kept too, and said at its field."""

    name: str = ""
    """Of the experiment."""
    method: Method = Method.LORA
    llm: str = ""
    """An LLM object."""
    source: str = ""
    """Typed where a model is not registered yet."""
    dataset: str = ""
    data_source: str = ""
    find: dict[str, str] = {}
    """What models and data are searched for."""
    values: dict[str, list[str]] = {}
    """By YAML path, of parameters and of the experiment."""
    preset: str = ""
    yaml: str | None = None
    """Written by hand, in place of what the values make."""
    step: int = 1
    """Where it was left."""
    experiment: str = ""
    """What it became."""


class Kept(NamedTuple):
    """A draft with what its ConfigMap says."""

    id: str
    draft: Draft
    user: str
    changed: str
    version: str = ""
    """To write over this one and no newer one."""


async def begin(api: Api, draft: Draft, namespace: str, user: str, now: str) -> str:
    """Keep a new draft; its id."""
    name = f"draft-{secrets.token_hex(4)}"
    metadata = {"name": name, "labels": {LABEL: OPEN}, "annotations": {USER: user, CHANGED: now}}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": _data(draft)}
    await api.create_raw(CONFIG_MAPS, body, namespace)
    return name


async def load(api: Api, id: str, namespace: str) -> Kept:
    """Raises NotFound, also for a ConfigMap that is no draft."""
    found = _kept(await api.get(CONFIG_MAPS, id, namespace))
    if found is None:
        raise NotFound(404, "NotFound", f"{id} is no draft", name=id)
    return found


async def keep(api: Api, id: str, draft: Draft, namespace: str, now: str, version: str = "") -> None:
    """Raises Conflict when there is a newer one than `version`."""
    patch: Json = {"data": _data(draft), "metadata": {"annotations": {CHANGED: now}}}
    if version:
        patch["metadata"]["resourceVersion"] = version
    if draft.experiment:
        patch["metadata"]["labels"] = {LABEL: STARTED}
    await api.patch(CONFIG_MAPS, id, patch, namespace)


async def hand_over(api: Api, id: str, experiment: Json, namespace: str) -> None:
    """The draft goes when its experiment does."""
    name, uid = kinds.name_of(experiment), experiment["metadata"]["uid"]
    owner = {"apiVersion": API_VERSION, "kind": kinds.EXPERIMENT, "name": name, "uid": uid}
    await api.patch(CONFIG_MAPS, id, {"metadata": {"ownerReferences": [owner]}}, namespace)


async def drop(api: Api, id: str, namespace: str) -> None:
    await load(api, id, namespace)  # no other ConfigMap
    await api.delete(CONFIG_MAPS, id, namespace)


async def unfinished(api: Api, namespace: str, user: str) -> list[Kept]:
    """The user's drafts that have not become experiments, the latest first; none where they may not look."""
    try:
        found = await api.list(CONFIG_MAPS, namespace, labels=f"{LABEL}={OPEN}")
    except ApiError as error:
        if error.status == 403:
            return []
        raise
    mine = [kept for each in found if (kept := _kept(each)) and kept.user == user]
    return sorted(mine, key=lambda kept: kept.changed, reverse=True)


def _data(draft: Draft) -> Json:
    return {KEY: json.dumps(draft.dump(), ensure_ascii=False)}


def _kept(found: Json) -> Kept | None:
    """None for what is no draft, or one of another version."""
    metadata = found["metadata"]
    notes = metadata.get("annotations") or {}
    if LABEL not in (metadata.get("labels") or {}):
        return None
    try:
        draft = Draft.model_validate_json((found.get("data") or {}).get(KEY, ""))
    except ValidationError:
        return None
    user, changed = str(notes.get(USER, "")), str(notes.get(CHANGED, ""))
    return Kept(str(metadata["name"]), draft, user, changed, str(metadata.get("resourceVersion", "")))
