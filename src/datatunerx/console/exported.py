"""Exports of a checkpoint as pages show them: what became of each, and how it is used. Pure."""

import shlex
from typing import Any, NamedTuple

from datatunerx.console import kinds, states
from datatunerx.console.words import Say
from datatunerx.runs.files import path_of

Json = dict[str, Any]


class Shown(NamedTuple):
    """One export of a checkpoint as a page shows it."""

    name: str
    what: str
    phase: str
    why: str
    run: str
    uri: str
    bytes: int | None
    check: Json
    use: list[str]
    """Commands that use it."""


def shown(checkpoint: Json, say: Say) -> list[Shown]:
    """Every export that was asked for, the last one first."""
    said = {each["name"]: each for each in kinds.status_of(checkpoint).get("exports") or ()}
    found = []
    for asked in (checkpoint.get("spec") or {}).get("exports") or ():
        status: Json = said.get(asked["name"], {})
        outcome = status.get("outcome") or {}
        why = states.said(status, say)
        uri = str(outcome.get("uri") or asked.get("uri") or "")
        stored = asked.get("type", "auto")
        what = str(asked["to"]) + ("" if stored == "auto" else f" · {stored}")
        use = commands_of(str(asked["to"]), uri, kinds.name_of(checkpoint)) if outcome else []
        check = outcome.get("check") or {}
        found.append(
            Shown(asked["name"], what, status.get("phase", "Pending"), why, str(status.get("run") or ""), uri,
                  outcome.get("bytes"), check, use)
        )  # fmt: skip
    return found[::-1]


def commands_of(to: str, uri: str, name: str) -> list[str]:
    """What one types to use an export that lies in a folder of this machine."""
    if not uri.startswith("file://"):
        return [f"oras pull {uri.removeprefix('oci://')}"] if uri.startswith("oci://") else []
    folder = str(path_of(uri))
    match to:
        case "gguf":
            return [f"llama-cli -cnv -m {shlex.quote(folder + '/model.gguf')}"]
        case "ollama":
            return [f"cd {shlex.quote(folder)} && ollama create {name} -f Modelfile"]
        case "hf":
            return [f"transformers chat {shlex.quote(folder)}"]
    return [f"vllm serve BASE --enable-lora --lora-modules {name}={shlex.quote(folder)}"]
