"""`dtx export` and `dtx rerun`: say in a checkpoint what is wanted of it, and wait for what becomes of it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from datatunerx.cli.errors import BadInput, CommandError, Exit
from datatunerx.client import Api, NotFound
from datatunerx.resources import LLMCheckpoint
from datatunerx.resources.enums import ExportFormat, ExportPhase, ExportType
from datatunerx.resources.export import ExportStatus, Rerun
from datatunerx.runs.exporting import OCI, OCI_LAYOUT

POLL_SECONDS = 0.5
ENDED = (ExportPhase.SUCCEEDED, ExportPhase.FAILED)
T = TypeVar("T", ExportStatus, Rerun)


@dataclass(frozen=True)
class Request:
    to: str
    type: str
    output: str | None
    secret: str | None
    plain_http: bool


def checked(asked: Request) -> dict[str, Any]:
    """The request as an entry of spec.exports, without its name. Raises BadInput listing what is known."""
    forms, types = [f.value for f in ExportFormat], [t.value for t in ExportType]
    if asked.to not in forms:
        raise BadInput(f"--to {asked.to}: must be one of {', '.join(forms)}")
    if asked.type not in types:
        raise BadInput(f"--type {asked.type}: must be one of {', '.join(types)}")
    entry: dict[str, Any] = {"to": asked.to, "type": asked.type}
    if asked.output:
        entry["uri"] = _place(asked.output)
    if asked.secret:
        entry["secret"] = asked.secret
    return entry | ({"plainHttp": True} if asked.plain_http else {})


def _place(output: str) -> str:
    """The URI of --output: a folder's, made absolute here, or a registry's. Raises BadInput for one there."""
    if output.startswith(OCI):
        return output
    layout = output.startswith("oci-layout:")
    folder = Path(output.removeprefix("oci-layout:").removeprefix("//") if layout else output).expanduser()
    if folder.exists():
        raise BadInput(f"--output {output}: is there already; nothing is overwritten")
    uri = folder.absolute().as_uri()
    return OCI_LAYOUT + uri.removeprefix("file://") if layout else uri


async def export(api: Api, name: str, namespace: str, asked: Request, *, wait: bool) -> Exit:
    """Ask for one export; with `wait`, say how it went."""
    entry = checked(asked)
    checkpoint = await checkpoint_named(api, name, namespace)
    there = [one.dump() for one in checkpoint.spec.exports]
    taken = {one["name"] for one in there}
    stem = asked.to if asked.type == "auto" else f"{asked.to}-{asked.type}".replace("_", "-")
    number = next(n for n in range(1, 1000) if (stem if n == 1 else f"{stem}-{n}") not in taken)
    entry = {"name": stem if number == 1 else f"{stem}-{number}", **entry}
    await _patch(api, checkpoint, {"exports": [*there, entry]})
    print(f"llmcheckpoint/{checkpoint.metadata.name}: export {entry['name']} asked for")
    if not wait:
        return Exit.OK
    found = await _until(
        api, checkpoint, lambda c: next((e for e in c.status.exports if e.name == entry["name"]), None)
    )
    if found.phase is ExportPhase.FAILED:
        raise CommandError(f"{found.reason}: {found.message}")
    assert found.outcome
    print(f"{found.outcome.uri} ({found.outcome.bytes / 1e6:,.1f} MB)\n{found.message}")
    if not asked.output:
        at = "" if namespace == "default" else f" -n {namespace}"
        print(f"to this machine: dtx pull {checkpoint.metadata.name} {entry['name']}{at}")
    return Exit.OK


async def rerun(api: Api, name: str, namespace: str, *, wait: bool) -> Exit:
    """Train once more from the record. Exit code 1 if other weights came of it."""
    checkpoint = await checkpoint_named(api, name, namespace)
    asked = checkpoint.spec.rerun + 1
    await _patch(api, checkpoint, {"rerun": asked})
    print(f"llmcheckpoint/{checkpoint.metadata.name}: trained again from its record")
    if not wait:
        return Exit.OK

    def mine(found: LLMCheckpoint) -> Rerun | None:
        return found.status.rerun if found.status.rerun and found.status.rerun.asked == asked else None

    found = await _until(api, checkpoint, mine)
    if not found.same:
        raise CommandError(found.message or "the weights are not the same")
    print(found.message)
    return Exit.OK


async def _patch(api: Api, checkpoint: LLMCheckpoint, spec: dict[str, Any]) -> None:
    metadata = {"resourceVersion": checkpoint.metadata.resource_version}  # two who ask at once are both heard
    body = {"metadata": metadata, "spec": spec}
    await api.patch(LLMCheckpoint, checkpoint.metadata.name, body, checkpoint.metadata.namespace)


async def checkpoint_named(api: Api, name: str, namespace: str) -> LLMCheckpoint:
    """By its name, or as KIND/NAME of the checkpoint, or of the Finetune or job that it is called after."""
    kind, _, bare = name.rpartition("/")
    if kind not in ("", "ckpt", "llmcheckpoint", "llmcheckpoints", "ft", "finetune", "fj", "finetunejob"):
        raise BadInput(f"{name}: name a checkpoint; see dtx get ckpt")
    try:
        return await api.get(LLMCheckpoint, bare, namespace)
    except NotFound:
        there = ", ".join(c.metadata.name for c in await api.list(LLMCheckpoint, namespace)) or "none"
        raise CommandError(f"there is no checkpoint {bare!r}; there are: {there}") from None


async def _until(api: Api, checkpoint: LLMCheckpoint, part: Callable[[LLMCheckpoint], T | None]) -> T:
    """The part of its status, once it has ended; what it does meanwhile is printed."""
    said = ""
    while True:
        now = await api.get(LLMCheckpoint, checkpoint.metadata.name, checkpoint.metadata.namespace)
        found = part(now)
        if found and found.phase in ENDED:
            return found
        if found and found.message and found.message != said:
            said = found.message
            print(f"  {said}", flush=True)
        ready = now.status.condition("Ready")
        if ready and ready.status == "False":
            raise CommandError(f"{ready.reason}: {ready.message}")
        await asyncio.sleep(POLL_SECONDS)
