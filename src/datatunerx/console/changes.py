"""What an action does to which objects, what is lost by it, the same in commands; and doing it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from datatunerx.client import Api, ApiError
from datatunerx.console import equal, figures, kinds, offers, states
from datatunerx.console.visit import Refused
from datatunerx.resources.wire import RETRY

Json = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One request. `body` is a merge patch, or the object to create; None deletes."""

    verb: str
    kind: str
    name: str
    body: Json | None = None


@dataclass
class Change:
    """An action on some objects, before it is done."""

    steps: list[Step] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    lost: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Sentences of the catalogue with their figures."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(object, why nothing is done with it)"""

    def yaml(self) -> str:
        return figures.as_yaml(*(step.body for step in self.steps if step.body is not None))


_INSPECTED = ("LLM", "Dataset")
_TRAINS = (kinds.EXPERIMENT, kinds.JOB)


def parse(targets: Sequence[str]) -> list[tuple[str, str]]:
    """(kind, name) of each fe/name. Raises Refused."""
    found = []
    for target in dict.fromkeys(targets):
        short, _, name = target.partition("/")
        if short not in kinds.BY_SHORT or not name:
            raise Refused("There is no such kind.")
        found.append((kinds.BY_SHORT[short], name))
    if not found:
        raise Refused("Nothing is selected.")
    return found


async def plan(api: Api, do: str, targets: Sequence[str], namespace: str) -> Change:
    """What doing it would send. Raises Refused and ApiError."""
    change = Change()
    jobs: list[Json] | None = None
    for kind, name in parse(targets):
        obj = await kinds.find(api, kind, name, namespace)
        if kind == kinds.EXPERIMENT and jobs is None:
            jobs = await kinds.all_of(api, kinds.JOB, namespace)
        mine = [job for job in jobs or () if kinds.owner(job, kinds.EXPERIMENT) == name]
        match do:
            case "stop" | "keep" | "resume":
                _steer(change, do, kind, obj, mine, namespace)
            case "retry":
                await _retry(change, api, kind, obj, mine, namespace)
            case "delete":
                await _delete(change, api, kind, obj, mine, namespace)
            case _:
                raise Refused("There is no such action.")
    return change


def _steer(change: Change, do: str, kind: str, obj: Json, jobs: list[Json], namespace: str) -> None:
    name, phase = kinds.name_of(obj), states.phase(obj)
    title = f"{kinds.SHORT[kind]}/{name}"
    suspended = bool((obj.get("spec") or {}).get("suspend"))
    if kind == offers.SERVICE and do != "keep":
        _load(change, do, obj, namespace)
    elif kind not in _TRAINS:
        change.skipped.append((title, "only experiments, jobs and services can be stopped and resumed"))
    elif phase in states.ENDED:
        change.skipped.append((title, "has ended, and what has ended stays as it is"))
    elif do == "resume" and not suspended:
        change.skipped.append((title, "is not stopped"))
    elif do == "stop" and suspended:
        change.skipped.append((title, "is stopped already"))
    elif do == "keep":
        told = jobs if kind == kinds.EXPERIMENT else [obj]
        open_jobs = [job for job in told if states.phase(job) not in states.ENDED]
        for job in open_jobs:
            _patch(change, kinds.JOB, kinds.name_of(job), {"spec": {"stop": "keep"}}, namespace)
        change.commands.insert(0, f"dtx stop {title} --keep{equal.place(namespace)}")
    else:
        _patch(change, kind, name, {"spec": {"suspend": do == "stop"}}, namespace)
        change.commands.insert(0, f"dtx {do} {title}{equal.place(namespace)}")


def _load(change: Change, do: str, service: Json, namespace: str) -> None:
    """Unload a service until it is loaded again, or load it."""
    name, loaded = kinds.name_of(service), service["spec"].get("replicas", 1) != 0
    if loaded == (do == "resume"):
        why = "is not stopped" if loaded else "is stopped already"
        return change.skipped.append((f"isvc/{name}", why))
    replicas = 1 if do == "resume" else 0
    change.steps.append(Step("patch", offers.SERVICE, name, {"spec": {"replicas": replicas}}))
    change.commands.append(f"kubectl scale isvc/{name} --replicas={replicas}{equal.place(namespace)}")


async def _retry(change: Change, api: Api, kind: str, obj: Json, jobs: list[Json], namespace: str) -> None:
    """What failed is tried again, by the annotation on which controllers act once."""
    name = kinds.name_of(obj)
    if kind in _INSPECTED:
        return _again(change, kind, name, namespace)
    if kind not in _TRAINS:
        return change.skipped.append((name, "cannot be retried"))
    told = [obj] if kind == kinds.JOB else jobs
    before = len(change.steps)
    for each, material in await _broken(api, told, namespace):
        if not any((step.kind, step.name) == (each, material) for step in change.steps):
            _again(change, each, material, namespace)
    for job in told:
        if states.phase(job) == "Failed":
            _again(change, kinds.JOB, kinds.name_of(job), namespace)
    if kind == kinds.EXPERIMENT:
        for scoring in await kinds.some(api, "Scoring", namespace):
            if kinds.owner(scoring, kind) == name and states.phase(scoring) == "Failed":
                _again(change, "Scoring", kinds.name_of(scoring), namespace)
    if len(change.steps) == before:
        return change.skipped.append((name, "has nothing that failed"))
    change.commands.insert(0, f"dtx retry {kinds.SHORT[kind]}/{name}{equal.place(namespace)}")


async def _broken(api: Api, jobs: Sequence[Json], namespace: str) -> list[tuple[str, str]]:
    """Models and datasets of these jobs that failed their inspection: the jobs may wait for them."""
    tunes = [job["spec"]["finetune"] for job in jobs]
    wanted = {(kind, tune[key]) for kind, key in (("LLM", "llm"), ("Dataset", "dataset")) for tune in tunes}
    return [
        (kind, kinds.name_of(obj))
        for kind in _INSPECTED
        for obj in await kinds.some(api, kind, namespace)
        if (kind, kinds.name_of(obj)) in wanted and states.phase(obj) == "NotReady"
    ]


def _again(change: Change, kind: str, name: str, namespace: str) -> None:
    """Another value of the annotation than any before."""
    _patch(change, kind, name, {"metadata": {"annotations": {RETRY: str(time.time_ns())}}}, namespace)


async def _delete(change: Change, api: Api, kind: str, obj: Json, jobs: list[Json], namespace: str) -> None:
    name = kinds.name_of(obj)
    change.steps.append(Step("delete", kind, name))
    change.commands.append(f"dtx delete {kinds.SHORT[kind]}/{name}{equal.place(namespace)}")
    change.commands.append(f"kubectl delete {kinds.PLURALS[kind].plural} {name}{equal.place(namespace)}")
    if kind in _TRAINS:
        await _lost_trainings(change, api, name, [obj] if kind == kinds.JOB else jobs, namespace)
    elif kind == "LLMCheckpoint":
        size = (obj.get("spec") or {}).get("bytes")
        change.lost.append(("The files of {name}, {size}", {"name": name, "size": figures.size(size)}))
    else:
        users = len(kinds.status_of(obj).get("usedBy") or ())
        if users:
            change.lost.append(
                ("{name} is used by {n} objects and stays until they are gone", {"name": name, "n": users})
            )
        else:
            change.lost.append(("{name}; its source files stay where they are", {"name": name}))


async def _lost_trainings(change: Change, api: Api, name: str, jobs: list[Json], namespace: str) -> None:
    names = {kinds.name_of(job) for job in jobs}
    tunes = [
        obj
        for obj in await kinds.some(api, kinds.FINETUNE, namespace)
        if kinds.owner(obj, kinds.JOB) in names
    ]
    checkpoints = [ckpt for obj in tunes for ckpt in kinds.status_of(obj).get("checkpoints") or ()]
    size = sum(ckpt.get("bytes") or 0 for ckpt in checkpoints)
    here = datetime.now(UTC)
    statuses = [kinds.status_of(tune) for tune in tunes]
    times = [figures.took(each.get("startedAt"), each.get("finishedAt"), here) for each in statuses]
    seconds = sum(time or 0.0 for time in times)
    change.lost.append(
        (
            "{name}: {jobs} jobs, {n} checkpoints of {size} in all, {time} of training",
            {
                "name": name,
                "jobs": len(jobs),
                "n": len(checkpoints),
                "size": figures.size(size),
                "time": figures.duration(seconds),
            },
        )
    )


def _patch(change: Change, kind: str, name: str, patch: Json, namespace: str) -> None:
    change.steps.append(Step("patch", kind, name, patch))
    change.commands.append(equal.patched(kind, name, namespace, patch))


async def send(api: Api, change: Change, namespace: str) -> list[str]:
    """Do it, one after the other; what went wrong, by object. The others are done all the same."""
    faults = []
    for step in change.steps:
        try:
            await do(api, step, namespace)
        except ApiError as error:
            faults.append(f"{step.name}: {error.message}")
    return faults


async def do(api: Api, step: Step, namespace: str) -> None:
    """One request. Raises ApiError."""
    at = kinds.PLURALS[step.kind]
    if step.verb == "patch":
        await api.patch(at, step.name, step.body or {}, namespace)
    elif step.verb == "create":
        await api.create_raw(at, step.body or {}, namespace)
    else:
        await api.delete(at, step.name, namespace)
