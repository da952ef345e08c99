"""One experiment: the verdict, the ranking, its jobs, what differs between them, what failed and why."""

from typing import Any

from starlette.responses import Response

from datatunerx.console import charts, equal, figures, kinds, parameters, samples, states
from datatunerx.console.pages.experiments import higher_is_better, row_of
from datatunerx.console.progress import course, eta_seconds, share
from datatunerx.console.visit import Page, Visit
from datatunerx.console.words import Say

Json = dict[str, Any]
TABS = (
    ("overview", "Overview"),
    ("charts", "Charts"),
    ("samples", "Samples"),
    ("differences", "What differs"),
    ("config", "Config"),
)


async def show(visit: Visit) -> Response:
    obj = await kinds.find(visit.api, kinds.EXPERIMENT, visit.name, visit.namespace)
    jobs = [
        job
        for job in await kinds.some(visit.api, kinds.JOB, visit.namespace)
        if kinds.owner(job, kinds.EXPERIMENT) == visit.name
    ]
    names = {kinds.name_of(job) for job in jobs}
    found = await kinds.some(visit.api, kinds.FINETUNE, visit.namespace)
    tunes = {owner: tune for tune in found if (owner := kinds.owner(tune, kinds.JOB)) in names}
    status = kinds.status_of(obj)
    tab = visit.query.get("tab", "overview")
    unlike: list[str] = []
    rows: list[tuple[str, Json]] = []
    if tab == "differences":
        groups = await kinds.some(visit.api, "Hyperparameter", visit.namespace)
        unlike, rows = parameters.differences(jobs, {kinds.name_of(group): group for group in groups})
    last = visit.query.get("steps") != "all"
    told = samples.told_by(sorted(jobs, key=kinds.created), tunes) if tab == "samples" else ({}, {})
    return await visit.page(
        "experiment.html",
        live=True,
        row=row_of(obj, visit.say),
        phase=states.phase(obj),
        status=status,
        spec=obj["spec"],
        ranking=ranking(status),
        scale=_scale(status),
        jobs=job_rows(jobs, tunes, status, visit.say),
        hues=charts.hues(jobs),
        tab=tab,
        grids=samples.grids(*told, last=last),
        last=last,
        last_url=visit.url("experiments", visit.name, tab="samples"),
        all_url=visit.url("experiments", visit.name, tab="samples", steps="all"),
        unlike=unlike,
        settings=rows,
        course=course(list(tunes.values()), (status.get("jobs") or {}).get("total", 0)),
        suspended=bool(obj["spec"].get("suspend")),
        verdict=beats_base(status),
        took=figures.took(status.get("startedAt"), status.get("finishedAt"), visit.now),
        yaml=figures.as_yaml(equal.manifest(obj)),
        short=short(visit.name),
        tabs=[(name, title, visit.url("experiments", visit.name, tab=name)) for name, title in TABS],
        commands=[
            *equal.look(kinds.EXPERIMENT, visit.name, visit.namespace),
            f"dtx compare-runs {visit.name}{equal.place(visit.namespace)}",
        ],
    )


def ranking(status: Json) -> list[Json]:
    """The rows of the ranking with nothing missing."""
    plain: Json = {
        "rank": None,
        "score": None,
        "low": None,
        "high": None,
        "n": 0,
        "base": False,
        "llm": "",
        "dataset": "",
        "checkpoint": "",
        "againstBase": {},
    }
    rows = []
    for row in status.get("ranking") or ():
        against = row.get("againstBase") or {}
        value = against.get("value")
        better = value is not None and (value > 0) == higher_is_better(status.get("metric", ""))
        rows.append(plain | row | {"better": better})
    return rows


def _scale(status: Json) -> tuple[float, float]:
    """From the lowest to the highest end of an interval, so that all are drawn alike."""
    rows = [row for row in status.get("ranking") or () if row.get("low") is not None]
    lows, highs = [row["low"] for row in rows], [row.get("high", row["low"]) for row in rows]
    return min(lows, default=0.0), max(highs, default=0.0)


def job_rows(jobs: list[Json], tunes: dict[str, Json], status: Json, say: Say) -> list[Json]:
    """Each job as its table shows it, in the order of creation."""
    found = []
    for job in sorted(jobs, key=lambda job: (kinds.created(job), kinds.name_of(job))):
        name = kinds.name_of(job)
        tune = tunes.get(name)
        seen = kinds.status_of(tune) if tune else {}
        found.append(
            {
                "name": name,
                "phase": states.phase(job),
                "why": states.why(job, say),
                "share": share(tune) if tune else 0.0,
                "eta": eta_seconds(tune) if tune else None,
                "loss": (seen.get("metrics") or {}).get("loss"),
                "tokens_per_second": (seen.get("progress") or {}).get("tokensPerSecond"),
                "score": kinds.status_of(job).get("score"),
                "activity": (seen.get("progress") or {}).get("activity", ""),
            }
        )
    return found


def beats_base(status: Json) -> bool:
    """Whether the best job ranks above its base; without a scored base nothing speaks against it."""
    best = status.get("best") or {}
    return not (
        best.get("baseScore") is not None
        and (best["score"] - best["baseScore"] <= 0) == higher_is_better(status.get("metric", ""))
    )


def short(experiment: str) -> Any:
    """Names of jobs without the experiment's in front."""
    return lambda name: str(name).removeprefix(f"{experiment}-")


routes = [Page("/experiments/{name}", show)]
