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
    llms: list[str] = []
    """LLM objects. Each is trained with each dataset and each group of values."""
    source: str = ""
    """Typed where a model is not registered yet."""
    datasets: list[str] = []
    data_source: str = ""
    several: list[str] = []
    """Of llm and dataset, what more than one may be chosen of."""
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


class Unread(NamedTuple):
    """A draft that this version cannot read."""

    id: str
    changed: str


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
    """Raises NotFound, also for a ConfigMap that is no draft, or one of another version."""
    found = _kept(await _config_map(api, id, namespace))
    if found is None:
        told = f"{id} was written by another version of datatunerx and cannot be read; it can be discarded"
        raise NotFound(404, "NotFound", told, name=id)
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
    """Also one that cannot be read. Raises NotFound for a ConfigMap that is no draft."""
    await _config_map(api, id, namespace)
    await api.delete(CONFIG_MAPS, id, namespace)


async def unfinished(api: Api, namespace: str, user: str) -> tuple[list[Kept], list[Unread]]:
    """The user's drafts that have not become experiments, and those that cannot be read; the latest first.
    None where they may not look."""
    try:
        found = await api.list(CONFIG_MAPS, namespace, labels=f"{LABEL}={OPEN}")
    except ApiError as error:
        if error.status == 403:
            return [], []
        raise
    mine = [each for each in found if _note(each, USER) == user]
    mine.sort(key=lambda each: _note(each, CHANGED), reverse=True)
    kept = [(each, _kept(each)) for each in mine]
    unread = [Unread(kinds.name_of(each), _note(each, CHANGED)) for each, draft in kept if draft is None]
    return [draft for _, draft in kept if draft], unread


async def _config_map(api: Api, id: str, namespace: str) -> Json:
    found = await api.get(CONFIG_MAPS, id, namespace)
    if LABEL not in (found["metadata"].get("labels") or {}):
        raise NotFound(404, "NotFound", f"{id} is no draft", name=id)
    return found


def _note(found: Json, name: str) -> str:
    return str((found["metadata"].get("annotations") or {}).get(name, ""))


def _data(draft: Draft) -> Json:
    return {KEY: json.dumps(draft.dump(), ensure_ascii=False)}


def _kept(found: Json) -> Kept | None:
    """None for one of another version."""
    try:
        draft = Draft.model_validate_json((found.get("data") or {}).get(KEY, ""))
    except ValidationError:
        return None
    version = str(found["metadata"].get("resourceVersion", ""))
    return Kept(kinds.name_of(found), draft, _note(found, USER), _note(found, CHANGED), version)
