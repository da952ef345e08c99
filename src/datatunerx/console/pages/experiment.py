"""One experiment: the verdict, the ranking, its jobs, what differs between them, what failed and why."""

from dataclasses import replace
from typing import Any

from starlette.responses import Response

from datatunerx.console import charts, equal, figures, kinds, parameters, samples, sparklines, states
from datatunerx.console.listing import Asked, Column, Listing, listing, part
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
COLUMNS: list[Column[Json]] = [
    Column("name", "Job", lambda row: row["name"]),
    Column("state", "State", lambda row: row["phase"]),
    Column("progress", "Progress", lambda row: row["share"]),
    Column("loss", "Loss", lambda row: row["loss"], number=True),
    Column("tokens-s", "Tokens/s", lambda row: row["tokens_per_second"], number=True),
    Column("score", "Score", lambda row: row["score"], number=True),
]
SIZES = {"charts": 100, "samples": 25}
"""Jobs on one page of a tab, where it is not the usual number."""
RANKED, FAILURES = 25, 10
"""Rows of the ranking, and failures, on one page."""


async def show(visit: Visit) -> Response:
    obj = await kinds.find(visit.api, kinds.EXPERIMENT, visit.name, visit.namespace)
    jobs, tunes = await jobs_of(visit, visit.name)
    status = kinds.status_of(obj)
    tab = visit.query.get("tab", "overview")
    shown = job_list(visit, jobs, tunes, status, tab)
    listed = {row["name"]: None for row in shown.rows}
    context: Json = {"sparks": {}}
    if tab == "overview":
        seen = {name: tune for name in listed if (tune := tunes.get(name))}
        context["sparks"] = await sparklines.of(visit, seen, jobs)
    if tab == "differences":
        groups = await kinds.some(visit.api, "Hyperparameter", visit.namespace)
        unlike, rows = parameters.differences(jobs, {kinds.name_of(group): group for group in groups})
        context |= {"unlike": unlike, "settings": [row for row in rows if row[0] in listed]}
    if tab == "samples":
        last = visit.query.get("steps") != "all"
        by_name = {kinds.name_of(job): job for job in jobs}
        told = samples.told_by([by_name[name] for name in listed], tunes)
        context |= {
            "grids": samples.grids(*told, last=last),
            "last": last,
            "last_url": visit.url("experiments", visit.name, tab="samples"),
            "all_url": visit.url("experiments", visit.name, tab="samples", steps="all"),
        }
    return await visit.page(
        "experiment.html",
        live=True,
        row=row_of(obj, visit.say),
        phase=states.phase(obj),
        status=status,
        spec=obj["spec"],
        jobs=jobs,
        list=shown,
        place=visit.url("experiments", visit.name),
        hues=charts.hues(jobs),
        tab=tab,
        failed=FAILURES,
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
        **ranked(visit, status),
        **context,
    )


async def jobs_of(visit: Visit, experiment: str) -> tuple[list[Json], dict[str, Json]]:
    """The jobs of an experiment, and the training of each."""
    found = await kinds.some(visit.api, kinds.JOB, visit.namespace)
    jobs = [job for job in found if kinds.owner(job, kinds.EXPERIMENT) == experiment]
    names = {kinds.name_of(job) for job in jobs}
    tunes = await kinds.some(visit.api, kinds.FINETUNE, visit.namespace)
    return jobs, {owner: tune for tune in tunes if (owner := kinds.owner(tune, kinds.JOB)) in names}


def job_list(visit: Visit, jobs: list[Json], tunes: dict[str, Json], status: Json, tab: str) -> Listing[Json]:
    """The jobs that the URL asks for: curves and samples of the best, else what needs somebody first."""
    asked = Asked.of(visit.query, "tab", "steps", "ranked", "job")
    if tab in SIZES and "size" not in visit.query:
        asked = replace(asked, size=SIZES[tab])
    sign = -1 if higher_is_better(status.get("metric", "")) else 1

    def by_score(row: Json) -> tuple[bool, float]:
        return row["score"] is None, sign * (row["score"] or 0.0)

    return listing(
        job_rows(jobs, tunes, status, visit.say), COLUMNS, asked,
        text=lambda row: f"{row['name']} {row['why']}", state=lambda row: row["phase"],
        order=by_score if tab in SIZES else lambda row: states.attention(row["phase"]),
        name="experiment", hidden=visit.hidden("experiment"), target=lambda row: f"fj/{row['name']}",
    )  # fmt: skip


def ranked(visit: Visit, status: Json) -> Json:
    """The part of a ranking that the URL asks for, with every row of a base, and what leads to the others."""
    rows = ranking(status)
    rank = part(rows, Asked.beside(visit.query, "ranked", RANKED))
    shown = [row for n, row in enumerate(rows, 1) if row["base"] or rank.first <= n <= rank.last]
    return {"ranking": shown, "scale": _scale(status), "rank": rank}


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
