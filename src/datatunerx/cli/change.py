"""Commands that change objects: apply, stop, resume, delete."""

import asyncio
from collections.abc import Sequence

from datatunerx.cli.check import checked
from datatunerx.cli.connect import exit_code, explained
from datatunerx.cli.documents import Json, load
from datatunerx.cli.errors import BadInput, CommandError, Exit
from datatunerx.cli.names import KindName, kind_and_name, kind_named, of_model
from datatunerx.client import Api, ApiError, NotFound, Plural
from datatunerx.resources import FinetuneJob
from datatunerx.resources.enums import StopMode

DELETE_WAIT_SECONDS = 15.0
MANAGER = "dtx"


def plural(kind: KindName) -> Plural:
    return Plural(kind.group, kind.version, kind.plural, kind.namespaced)


async def apply(api: Api, paths: Sequence[str], namespace: str, *, dry_run: bool, force: bool) -> Exit:
    """Apply every object of the files; each is told as created, configured or unchanged."""
    documents = load(paths)
    bodies = checked(documents)
    worst = Exit.OK
    faults: list[str] = []
    for document, body in zip(documents, bodies, strict=True):
        try:
            done = await apply_one(api, body, namespace, dry_run=dry_run, force=force)
        except ApiError as error:
            faults += [f"{document.title}: {line}" for line in explained(error).splitlines()]
            worst = max(worst, exit_code(error))
            continue
        print(f"{done}{' (server dry run)' if dry_run else ''}")
    if faults:
        failure = CommandError("\n".join(faults))
        failure.code = worst
        raise failure
    return Exit.OK


async def apply_one(
    api: Api, body: Json, namespace: str, *, dry_run: bool = False, force: bool = False
) -> str:
    """Server-side apply of one object; what became of it, as kubectl words it."""
    kind = _kind_of(body)
    target, name = plural(kind), body["metadata"].get("name", "")
    where = body["metadata"].get("namespace") or namespace
    if not name:
        raise BadInput(f"{kind.kind}: metadata.name is missing; apply needs a name to find the object by")
    try:
        before = (await api.get(target, name, where))["metadata"].get("resourceVersion")
    except NotFound:
        before = None
    after = await api.apply(target, name, body, where, manager=MANAGER, force=force, dry_run=dry_run)
    same = before is not None and after["metadata"].get("resourceVersion") == before
    return f"{kind.qualified}/{name} {'created' if before is None else 'unchanged' if same else 'configured'}"


def stop_mode(*, keep: bool, discard: bool) -> StopMode | None:
    if keep and discard:
        raise BadInput("--keep and --discard exclude each other")
    return StopMode.KEEP if keep else StopMode.DISCARD if discard else None


async def stop(api: Api, target: str, namespace: str, mode: StopMode | None) -> Exit:
    """Without a mode: suspend, to be resumed. With one: end for good, with a last checkpoint or without."""
    kind, name = kind_and_name(target)
    for_good = mode is not None or kind.kind == "Run"
    spec: Json = {"stop": True} if kind.kind == "Run" else {"stop": mode} if mode else {"suspend": True}
    for at, each in await _to_tell(api, kind, name, namespace, mode):
        await api.patch(plural(at), each, {"spec": spec}, namespace)
        told = "stopping for good" if for_good else "suspending: it saves a checkpoint and lets the device go"
        print(f"{at.kind.lower()}/{each}: {told}")
    if not for_good:
        print(f"Take it up again with: dtx resume {target}")
    return Exit.OK


async def _to_tell(
    api: Api, kind: KindName, name: str, namespace: str, mode: StopMode | None
) -> list[tuple[KindName, str]]:
    """Whose spec says it. An experiment has no stop of its own: each of its unfinished jobs gets it."""
    if kind.kind == "Run":
        return [(kind, name)]
    if kind.kind not in ("FinetuneExperiment", "FinetuneJob", "Finetune"):
        raise BadInput(f"{kind.kind} cannot be stopped; name an experiment, a job, a finetune or a run")
    body = await api.get(plural(kind), name, namespace)
    _not_ended(kind, name, body)
    job = of_model("FinetuneJob")
    if kind.kind == "FinetuneExperiment" and mode is not None:
        jobs = await api.list(FinetuneJob, namespace)
        mine = [j for j in jobs if any(o.uid == body["metadata"]["uid"] for o in j.metadata.owner_references)]
        return [(job, j.metadata.name) for j in mine if not j.status.phase.terminal]
    # a job passes its own suspend and stop down, so it is the one to tell
    owners = [o["name"] for o in body["metadata"].get("ownerReferences", []) if o["kind"] == "FinetuneJob"]
    return [(job, owners[0])] if kind.kind == "Finetune" and owners else [(kind, name)]


async def resume(api: Api, target: str, namespace: str) -> Exit:
    """Take up what was suspended, from its last whole checkpoint."""
    kind, name = kind_and_name(target)
    if kind.kind not in ("FinetuneExperiment", "FinetuneJob", "Finetune"):
        raise BadInput(f"{kind.kind} cannot be resumed; name an experiment, a job or a finetune")
    body = await api.get(plural(kind), name, namespace)
    _not_ended(kind, name, body)
    if not body["spec"].get("suspend"):
        raise CommandError(f"{target} is not suspended; its phase is {_phase(body)}")
    await api.patch(plural(kind), name, {"spec": {"suspend": False}}, namespace)
    print(f"{kind.kind.lower()}/{name}: goes on from its last whole checkpoint")
    return Exit.OK


async def delete(api: Api, targets: Sequence[tuple[KindName, str]], namespace: str, *, wait: bool) -> Exit:
    """Delete each; wait until it is gone, or say what still holds it."""
    missing: list[str] = []
    for kind, name in targets:
        try:
            found = await api.get(plural(kind), name, namespace)
            await api.delete(plural(kind), name, namespace)
        except NotFound as error:
            missing.append(error.message)
            continue
        held = await _held(api, kind, name, namespace, found["metadata"]["uid"]) if wait else ""
        print(f'{kind.qualified} "{name}" {f"is being deleted: {held}" if held else "deleted"}')
    if missing:
        raise CommandError("\n".join(missing))
    return Exit.OK


def delete_targets(words: Sequence[str], files: Sequence[str]) -> list[tuple[KindName, str]]:
    """KIND/NAME each, or KIND NAME NAME, or the objects of manifests, last first."""
    targets: list[tuple[KindName, str]] = []
    if words and "/" not in words[0]:
        kind = kind_named(words[0])
        if len(words) == 1:
            raise BadInput(f"which {kind.plural}? write dtx delete {words[0]} NAME")
        targets = [(kind, name) for name in words[1:]]
    else:
        targets = [kind_and_name(word) for word in words]
    if files:
        found = [(_kind_of(d.body), str(d.body["metadata"]["name"])) for d in load(files)]
        targets += reversed(found)
    if not targets:
        raise BadInput("nothing to delete; name KIND/NAME, or a manifest with -f")
    return targets


async def _held(api: Api, kind: KindName, name: str, namespace: str, uid: str) -> str:
    deadline = asyncio.get_running_loop().time() + DELETE_WAIT_SECONDS
    while True:
        try:
            body = await api.get(plural(kind), name, namespace)
        except NotFound:
            return ""
        if body["metadata"]["uid"] != uid:
            return ""
        in_use = _condition(body, "InUse")
        if in_use and in_use.get("status") == "True":
            return str(in_use.get("message"))
        if asyncio.get_running_loop().time() > deadline:
            return f"held by {', '.join(body['metadata'].get('finalizers') or ['nothing we know of'])}"
        await asyncio.sleep(0.2)


def _condition(body: Json, type: str) -> Json | None:
    conditions = (body.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == type), None)


def _kind_of(body: Json) -> KindName:
    group, _, version = str(body.get("apiVersion", "")).rpartition("/")
    try:
        known = of_model(str(body.get("kind", "")))
    except KeyError:
        known = None
    if known is not None and known.group == group and known.version == version:
        return known
    # a kind that a CRD of the user's own brought: its plural follows the usual rule
    word = str(body.get("kind", "")).lower()
    return KindName(
        group, version, f"{word}es" if word.endswith(("s", "x")) else f"{word}s", str(body["kind"])
    )


def _not_ended(kind: KindName, name: str, body: Json) -> None:
    if _phase(body) in ("Succeeded", "Failed", "Stopped"):
        raise CommandError(f"{kind.kind}/{name} has ended ({_phase(body)}); what has ended stays as it is")


def _phase(body: Json) -> str:
    return str((body.get("status") or {}).get("phase", "Pending"))
