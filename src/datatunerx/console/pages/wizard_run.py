"""The wizard after its start: what runs, what came of it, and how it is taken home."""

from typing import Any

from datatunerx.console import charts, equal, figures, kinds, samples, states
from datatunerx.console.listing import Asked, Listing, part
from datatunerx.console.pages import experiment as pages
from datatunerx.console.pages.experiments import row_of
from datatunerx.console.progress import course
from datatunerx.console.visit import Visit
from datatunerx.console.wizard.outlook import Job

Json = dict[str, Any]


async def of_step(visit: Visit, name: str, step: int) -> Json:
    """What the template of a step after the start needs."""
    obj = await kinds.find(visit.api, kinds.EXPERIMENT, name, visit.namespace)
    jobs, tunes = await pages.jobs_of(visit, name)
    status = kinds.status_of(obj)
    phase = states.phase(obj)
    shown = pages.job_list(visit, jobs, tunes, status, "samples" if step == 5 else "overview")
    context: Json = {
        "run": {
            "row": row_of(obj, visit.say), "phase": phase, "ended": phase in states.ENDED,
            "suspended": bool(obj["spec"].get("suspend")), "failures": status.get("failures") or [],
            "course": course(list(tunes.values()), (status.get("jobs") or {}).get("total", 0)),
            "results": bool(status.get("ranking")) or any(map(_kept, jobs)),
            "took": figures.took(status.get("startedAt"), status.get("finishedAt"), visit.now),
        },
        "name": name, "list": shown, "short": pages.short(name), "status": status, "spec": obj["spec"],
        "hues": charts.hues(jobs), "watched": _watched(visit, jobs, tunes), "failed": pages.FAILURES,
    }  # fmt: skip
    if step == 5:
        context |= pages.ranked(visit, status)
        by_name = {kinds.name_of(job): job for job in jobs}
        told = samples.told_by([by_name[row["name"]] for row in shown.rows], tunes)
        context |= {"verdict": pages.beats_base(status), "grids": samples.grids(*told, last=False)}
    if step == 6:
        context["list"] = part(_home(visit, status, jobs), Asked.of({"size": "25"} | visit.query))
    context["made_of"] = _made_of(jobs)
    context["yaml"] = figures.as_yaml(equal.manifest(obj))
    at = equal.place(visit.namespace)
    context["commands"] = [*equal.look(kinds.EXPERIMENT, name, visit.namespace), f"dtx watch {name}{at}"]
    return context


def _made_of(jobs: list[Json]) -> dict[str, str]:
    """By job, what its name may be too short for: its model and its data, where there are several of them."""
    tunes = {kinds.name_of(job): job["spec"]["finetune"] for job in jobs}
    told = [key for key in ("llm", "dataset") if len({tune[key] for tune in tunes.values()}) > 1]
    return {name: " · ".join(tune[key] for key in told) for name, tune in tunes.items()}


def planned(visit: Visit, jobs: list[Job]) -> Listing[Job]:
    """Those of the jobs to come that the URL asks for."""
    return part(jobs, Asked.of(visit.query))


def _watched(visit: Visit, jobs: list[Json], tunes: dict[str, Json]) -> Json:
    """The job whose log is shown: the one that was asked for, else one that works, else the first."""
    jobs = sorted(jobs, key=lambda job: (kinds.created(job), kinds.name_of(job)))
    names = [kinds.name_of(job) for job in jobs]
    asked = visit.query.get("job", "")
    busy = [kinds.name_of(job) for job in jobs if states.phase(job) in states.BUSY]
    name = asked if asked in names else next(iter([*busy, *names]), "")
    run = kinds.status_of(tunes[name]).get("run", "") if name in tunes else ""
    runs = {kinds.status_of(tune).get("run") for tune in tunes.values()}
    return {"job": name, "run": run, "shared": len(runs) == 1}


def _kept(job: Json) -> str:
    """The checkpoint it has made, also where it was stopped."""
    return str(kinds.status_of(job).get("checkpoint") or "")


def _home(visit: Visit, status: Json, jobs: list[Json]) -> list[Json]:
    """Each checkpoint, the best first, and in the end what was stopped and kept: its base beside it to talk
    to, and the commands that take it along."""
    best = (status.get("best") or {}).get("checkpoint")
    ranked = [row for row in status.get("ranking") or () if row.get("checkpoint") and not row.get("base")]
    known = {row["checkpoint"] for row in ranked}
    ranked += [
        {"checkpoint": kept, "llm": job["spec"]["finetune"]["llm"]}
        for job in jobs
        if (kept := _kept(job)) and kept not in known
    ]
    ranked.sort(key=lambda row: (row["checkpoint"] != best, row.get("rank") or 10**6))
    at = equal.place(visit.namespace)
    return [
        {
            "name": row["checkpoint"], "score": row.get("score"), "best": row["checkpoint"] == best,
            "base": row["llm"],
            "commands": [
                f"dtx chat {row['checkpoint']}{at}",
                f"dtx export {row['checkpoint']} --to hf --output ./{row['checkpoint']}{at}",
                f"dtx export {row['checkpoint']} --to gguf --output ./{row['checkpoint']}.gguf{at}",
            ],
        }
        for row in ranked
    ]  # fmt: skip
