"""`dtx retry`: what failed is tried again, by an annotation that the controllers act on once."""

import asyncio
import time
from collections.abc import Iterable

from datatunerx.cli.change import plural
from datatunerx.cli.documents import Json
from datatunerx.cli.errors import CommandError, Exit
from datatunerx.cli.failed import INSPECTED, not_ready, phase
from datatunerx.cli.names import KindName, kind_and_name, of_model
from datatunerx.cli.progress import named_materials
from datatunerx.client import Api, NotFound
from datatunerx.resources import FinetuneExperiment, FinetuneJob, Scoring
from datatunerx.resources.enums import JobPhase, ScoringPhase
from datatunerx.resources.wire import RETRY

SEEN_SECONDS = 10.0
"""How long a controller is waited for, so that the next command finds it under way."""

Found = tuple[KindName, str]


async def retry(api: Api, target: str, namespace: str) -> Exit:
    """Have what failed of an experiment, a job, a Scoring, a model or a dataset tried again."""
    kind, name = await _named(api, target, namespace)
    body = await api.get(plural(kind), name, namespace)
    failed = await _failed_of(api, kind, body, namespace)
    if not failed:
        stands = (body.get("status") or {}).get("phase") or "as it is said in its conditions"
        raise CommandError(f"nothing of {kind.short}/{name} has failed; it is {stands}")
    value = str(time.time_ns())  # one that no earlier try had
    for at, each in failed:
        await api.patch(plural(at), each, {"metadata": {"annotations": {RETRY: value}}}, namespace)
        print(f"{at.kind.lower()}/{each}: {_what(at)}")
    if not await _taken_up(api, failed, namespace):
        raise CommandError(
            "no controller has taken it up yet; is one running? dtx up starts them, and goes on with it"
        )
    if kind.kind == "FinetuneExperiment":
        await _under_way(api, name, namespace)
        print(f"Follow it with: dtx watch fe/{name}")
    return Exit.OK


async def _named(api: Api, target: str, namespace: str) -> Found:
    """KIND/NAME, or the bare name of an experiment or else of a job."""
    if "/" in target:
        return kind_and_name(target)
    for kind in (of_model("FinetuneExperiment"), of_model("FinetuneJob")):
        try:
            await api.get(plural(kind), target, namespace)
        except NotFound:
            continue
        return kind, target
    raise CommandError(f'no experiment or job is called "{target}" here; see dtx get fe,fj')


async def _failed_of(api: Api, kind: KindName, body: Json, namespace: str) -> list[Found]:
    """The objects behind it that failed by themselves, materials first: the others may wait for them."""
    name, uid = body["metadata"]["name"], body["metadata"]["uid"]
    if kind.kind == "FinetuneExperiment":
        jobs = await api.list(FinetuneJob, namespace)
        mine = [job for job in jobs if any(o.uid == uid for o in job.metadata.owner_references)]
        found = await _materials(api, named_materials(FinetuneExperiment.parse(body)), namespace)
        job_kind, scoring_kind = of_model("FinetuneJob"), of_model("Scoring")
        found += [(job_kind, job.metadata.name) for job in mine if job.status.phase is JobPhase.FAILED]
        for scoring in await api.list(Scoring, namespace):
            own = any(o.uid == uid for o in scoring.metadata.owner_references)
            if own and scoring.status.phase is ScoringPhase.FAILED:
                found.append((scoring_kind, scoring.metadata.name))
        return found
    if kind.kind in ("FinetuneJob", "Finetune"):
        spec = body["spec"]["finetune"] if kind.kind == "FinetuneJob" else body["spec"]
        owner = [o["name"] for o in body["metadata"].get("ownerReferences", []) if o["kind"] == "FinetuneJob"]
        top = (of_model("FinetuneJob"), owner[0]) if kind.kind == "Finetune" and owner else (kind, name)
        found = await _materials(api, [f"LLM/{spec['llm']}", f"Dataset/{spec['dataset']}"], namespace)
        return [*found, top] if phase(body) == "Failed" else found
    if kind.kind == "Scoring":
        return [(kind, name)] if phase(body) == "Failed" or _without_score(body) else []
    if kind.kind in INSPECTED:
        return [(kind, name)] if not_ready(body) else []
    raise CommandError(
        f"{kind.kind} is not tried again by itself; name an experiment, a job, a scoring, an LLM or a Dataset"
    )


async def _materials(api: Api, titles: Iterable[str], namespace: str) -> list[Found]:
    found: list[Found] = []
    for title in sorted(titles):
        word, _, name = title.partition("/")
        if word not in INSPECTED:
            continue
        kind = of_model(word)
        try:
            body = await api.get(plural(kind), name, namespace)
        except NotFound:
            continue
        if not_ready(body):
            found.append((kind, name))
    return found


async def _taken_up(api: Api, asked: list[Found], namespace: str) -> bool:
    """Wait until each is no longer as it failed; False if none moves in SEEN_SECONDS."""
    deadline = time.monotonic() + SEEN_SECONDS
    while time.monotonic() < deadline:
        bodies = [await api.get(plural(kind), name, namespace) for kind, name in asked]
        if all(_moved(body) for body in bodies):
            return True
        await asyncio.sleep(0.1)
    return False


async def _under_way(api: Api, name: str, namespace: str) -> None:
    """Wait until the experiment itself says that it goes on, or has ended once more."""
    deadline = time.monotonic() + SEEN_SECONDS
    before = (await api.get(FinetuneExperiment, name, namespace)).status
    while time.monotonic() < deadline and before.phase.terminal:
        now = (await api.get(FinetuneExperiment, name, namespace)).status
        if not now.phase.terminal or now.finished_at != before.finished_at:
            return
        await asyncio.sleep(0.1)


def _without_score(body: Json) -> bool:
    """Of a Scoring that has ended and stands alone; one of a job stays as it was ranked."""
    status = body.get("status") or {}
    return (
        status.get("phase") == "Succeeded"
        and status.get("score") is None
        and not body["metadata"].get("ownerReferences")
    )


def _moved(body: Json) -> bool:
    if body["kind"] in INSPECTED:
        return True  # its inspection is a Run of its own, which the conditions tell of
    return bool(
        (body.get("status") or {}).get("retriedFor") == body["metadata"].get("annotations", {}).get(RETRY)
    )


def _what(kind: KindName) -> str:
    if kind.kind == "Scoring":
        return "measured again"
    return "inspected again" if kind.kind in INSPECTED else "tried again, from its last whole checkpoint"
