"""Commands that change objects: apply, stop, resume, delete."""

import asyncio
from collections.abc import Sequence

from datatunerx.cli.check import checked
from datatunerx.cli.connect import exit_code, explained
from datatunerx.cli.documents import Json, load
from datatunerx.cli.errors import BadInput, CommandError, Exit
from datatunerx.cli.failed import hint
from datatunerx.cli.names import KindName, kind_and_name, kind_named, of_model
from datatunerx.cli.trainable import untrainable
from datatunerx.client import Api, ApiError, NotFound, Plural
from datatunerx.resources import GROUP, FinetuneJob
from datatunerx.resources.enums import StopMode

DELETE_WAIT_SECONDS = 15.0
SETTLE_SECONDS = 2.0
"""Until the controllers have seen that what held an object is gone."""
MANAGER = "dtx"
SUSPENDED_BY = f"{GROUP}/suspended-by"
"""Annotation by which a controller notes who suspended an object."""


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
            done, after = await applied(api, body, namespace, dry_run=dry_run, force=force)
        except ApiError as error:
            faults += [f"{document.title}: {line}" for line in explained(error).splitlines()]
            worst = max(worst, exit_code(error))
            continue
        print(f"{done}{' (server dry run)' if dry_run else ''}")
        if done.endswith(" unchanged") and (advice := hint(after)):
            print(advice)
    if dry_run and (told := untrainable(bodies, None)):
        faults, worst = [*faults, *told], max(worst, Exit.FAILED)
    if faults:
        failure = CommandError("\n".join(faults))
        failure.code = worst
        raise failure
    return Exit.OK


async def apply_one(
    api: Api, body: Json, namespace: str, *, dry_run: bool = False, force: bool = False
) -> str:
    """Server-side apply of one object; what became of it, as kubectl words it."""
    return (await applied(api, body, namespace, dry_run=dry_run, force=force))[0]


async def applied(
    api: Api, body: Json, namespace: str, *, dry_run: bool = False, force: bool = False
) -> tuple[str, Json]:
    """`apply_one`, and the object as it then is."""
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
    became = "created" if before is None else "unchanged" if same else "configured"
    return f"{kind.qualified}/{name} {became}", after


def stop_mode(*, keep: bool, discard: bool) -> StopMode | None:
    if keep and discard:
        raise BadInput("--keep and --discard exclude each other")
    return StopMode.KEEP if keep else StopMode.DISCARD if discard else None


async def stop(api: Api, target: str, namespace: str, mode: StopMode | None) -> Exit:
    """Without a mode: suspend, to be resumed. With one: end for good, with a last checkpoint or without."""
    kind, name = kind_and_name(target)
    for_good = mode is not None or kind.kind == "Run"
    spec: Json = {"stop": True} if kind.kind == "Run" else {"stop": mode} if mode else {"suspend": True}
    told_to = await _to_tell(api, kind, name, namespace, mode)
    for at, each in told_to:
        await api.patch(plural(at), each, {"spec": spec}, namespace)
        told = "stopping for good" if for_good else "suspending: it saves a checkpoint and lets the device go"
        print(f"{at.kind.lower()}/{each}: {told}")
    if not for_good:
        print(f"Take it up again with: dtx resume {_short(*told_to[0])}")
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
    owner = _owner(body, "FinetuneJob") if kind.kind == "Finetune" else ""
    return [(job, owner)] if owner else [(kind, name)]


async def resume(api: Api, target: str, namespace: str) -> Exit:
    """Take up what was suspended, from its last whole checkpoint.

    A Finetune is taken up by way of its job. A job of a suspended experiment is refused: the experiment
    would suspend it again at once, and to take up all of its jobs is more than was asked.
    """
    kind, name = kind_and_name(target)
    if kind.kind not in ("FinetuneExperiment", "FinetuneJob", "Finetune"):
        raise BadInput(f"{kind.kind} cannot be resumed; name an experiment, a job or a finetune")
    body = await api.get(plural(kind), name, namespace)
    _not_ended(kind, name, body)
    if not body["spec"].get("suspend"):
        raise CommandError(f"{target} is not suspended; its phase is {_phase(body)}")
    wanted = [(kind, name, body)]
    if kind.kind == "Finetune" and (above := await _suspended_owner(api, body, "FinetuneJob", namespace)):
        # the job takes back its own suspension; one that somebody else made stays until it is taken back too
        by_job = body["metadata"].get("annotations", {}).get(SUSPENDED_BY) == f"FinetuneJob/{above[1]}"
        wanted = [above] if by_job else [above, *wanted]
    top, its_name, its_body = wanted[0]
    if top.kind == "FinetuneJob":
        above = await _suspended_owner(api, its_body, "FinetuneExperiment", namespace)
        if above:
            raise CommandError(
                f"{_short(top, its_name)} is suspended with its experiment; "
                f"take up the whole with: dtx resume {_short(*above[:2])}"
            )
    for at, each, _ in wanted:
        await api.patch(plural(at), each, {"spec": {"suspend": False}}, namespace)
        print(f"{at.kind.lower()}/{each}: goes on from its last whole checkpoint")
    return Exit.OK


async def _suspended_owner(
    api: Api, body: Json, owner: str, namespace: str
) -> tuple[KindName, str, Json] | None:
    """The owner of that kind, if it is suspended itself and so keeps `body` suspended."""
    name = _owner(body, owner)
    if not name:
        return None
    kind = of_model(owner)
    try:
        found = await api.get(plural(kind), name, namespace)
    except NotFound:
        return None
    return (kind, name, found) if found["spec"].get("suspend") else None


def _owner(body: Json, kind: str) -> str:
    """Name of the owner of that kind, empty if there is none."""
    owners = body["metadata"].get("ownerReferences", [])
    return next((str(o["name"]) for o in owners if o["kind"] == kind), "")


def _short(kind: KindName, name: str) -> str:
    """As a user would write it: fj/tickets-r8."""
    return f"{kind.short}/{name}"


async def delete(api: Api, targets: Sequence[tuple[KindName, str]], namespace: str, *, wait: bool) -> Exit:
    """Delete each; wait until it is gone. One that is still held is told with its holder, and no success."""
    missing: list[str] = []
    held: list[tuple[KindName, str, str]] = []
    for kind, name in targets:
        try:
            found = await api.get(plural(kind), name, namespace)
            await api.delete(plural(kind), name, namespace)
        except NotFound as error:
            missing.append(error.message)
            continue
        uid = found["metadata"]["uid"]
        if wait and await _held(api, kind, name, namespace, uid):
            held.append((kind, name, uid))
        else:
            print(f'{kind.qualified} "{name}" {"deleted" if wait else "is marked for deletion"}')
    faults = missing
    for kind, name, uid in held:
        # what holds it may have been the next one to be deleted
        patience = SETTLE_SECONDS if len(targets) > 1 else 0.0
        if holder := await _held(api, kind, name, namespace, uid, patience):
            faults.append(f"{kind.kind}/{name} is marked for deletion and stays for now: {holder}")
        else:
            print(f'{kind.qualified} "{name}" deleted')
    if faults:
        raise CommandError("\n".join(faults))
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


async def _held(api: Api, kind: KindName, name: str, namespace: str, uid: str, patience: float = 0.0) -> str:
    """Wait until that very object is gone; what holds it if it is in use (after `patience`) or takes long."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        try:
            body = await api.get(plural(kind), name, namespace)
        except NotFound:
            return ""
        if body["metadata"]["uid"] != uid:
            return ""
        in_use = _condition(body, "InUse")
        if in_use and in_use.get("status") == "True" and loop.time() - began >= patience:
            return str(in_use.get("message"))
        if loop.time() - began > DELETE_WAIT_SECONDS:
            return f"still held by {', '.join(body['metadata'].get('finalizers') or ['nothing we know of'])}"
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
