"""All jobs in one list, and one job with its tabs."""

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from datatunerx.client import ApiError
from datatunerx.console import equal, figures, kinds, parameters, samples, sparklines, states
from datatunerx.console.answered import answered
from datatunerx.console.progress import activity, eta_seconds, share
from datatunerx.console.tables import Cell, Empty, Line, ago, columns, name_cell, show, state_cell
from datatunerx.console.visit import Page, Visit

Json = dict[str, Any]
TABS = (
    ("overview", "Overview"),
    ("charts", "Charts"),
    ("logs", "Logs"),
    ("samples", "Samples"),
    ("scored", "Scored answers"),
    ("config", "Config"),
    ("files", "Files"),
)
HEADS = columns(
    "Job",
    "State",
    "Experiment",
    "Progress",
    "Loss",
    "Score",
    "Age",
    numbers=("Progress", "Loss", "Score", "Age"),
)
LOSS = 4


async def table(visit: Visit) -> Response:
    jobs = await kinds.all_of(visit.api, kinds.JOB, visit.namespace)
    found = await kinds.some(visit.api, kinds.FINETUNE, visit.namespace)
    tunes = {kinds.owner(tune, kinds.JOB): tune for tune in found}
    jobs.sort(key=kinds.created, reverse=True)
    lines = [_line(visit, job, tunes.get(kinds.name_of(job))) for job in jobs]
    empty = Empty(
        "No jobs yet",
        "A job is one training and its score. An experiment makes them.",
        visit.url("new") if visit.may("create", "finetuneexperiments") else "",
        "New fine-tune",
    )

    async def with_sparks(shown: Sequence[Line]) -> Sequence[Line]:
        names = [line.target.removeprefix("fj/") for line in shown]
        drawn = await sparklines.of(visit, {name: tunes[name] for name in names if name in tunes}, jobs)
        return [
            line._replace(
                cells=tuple(
                    cell._replace(spark=drawn.get(name)) if n == LOSS else cell
                    for n, cell in enumerate(line.cells)
                )
            )
            for name, line in zip(names, shown, strict=True)
        ]

    return await show(visit, "Jobs", "jobs", HEADS, lines, empty, complete=with_sparks)


def _line(visit: Visit, job: Json, tune: Json | None) -> Line:
    name, spec = kinds.name_of(job), job["spec"]["finetune"]
    experiment = kinds.owner(job, kinds.EXPERIMENT)
    done = share(tune) if tune else 0.0
    eta = eta_seconds(tune) if tune else None
    left = visit.say("{time} left", time=figures.duration(eta)) if eta is not None else activity(tune or job)
    metrics = (kinds.status_of(tune).get("metrics") or {}) if tune else {}
    cells = (
        name_cell(visit, kinds.JOB, name, f"{spec['llm']} · {spec['dataset']}"),
        state_cell(visit, job),
        Cell("text", experiment, url=visit.url("experiments", experiment) if experiment else ""),
        Cell("percent", done, left),
        Cell("number", metrics.get("loss")),
        Cell("score", kinds.status_of(job).get("score"), str(kinds.status_of(job).get("metric") or "")),
        ago(kinds.created(job)),
    )
    return Line(cells, states.phase(job), f"fj/{name}")


async def page(visit: Visit) -> Response:
    job = await kinds.find(visit.api, kinds.JOB, visit.name, visit.namespace)
    status = kinds.status_of(job)
    tune = await there(visit, kinds.FINETUNE, str(status.get("finetune") or visit.name))
    seen = kinds.status_of(tune) if tune else {}
    tab = visit.query.get("tab", "overview")
    context: Json = {}
    if tab == "config":
        groups = await kinds.some(visit.api, "Hyperparameter", visit.namespace)
        by_name = {kinds.name_of(group): group for group in groups}
        context["settings"] = parameters.settings(job["spec"]["finetune"], by_name)
    if tab == "samples":
        context["grids"] = samples.of_job(visit.name, seen)
    if tab == "scored":
        context |= await _answers(visit, str(status.get("scoring") or ""))
    if tab == "overview":
        context["scores"] = await scores(visit, str(status.get("scoring") or ""))
        context["events"] = (await visit.api.events(kinds.JOB, visit.name, visit.namespace))[::-1][:20]
    experiment = kinds.owner(job, kinds.EXPERIMENT)
    return await visit.page(
        "job.html",
        live=True,
        job=job,
        name=visit.name,
        phase=states.phase(job),
        why=states.why(job, visit.say),
        status=status,
        tune=tune,
        seen=seen,
        tab=tab,
        experiment=experiment,
        share=share(tune) if tune else 0.0,
        eta=eta_seconds(tune) if tune else None,
        suspended=bool(job["spec"].get("suspend")),
        took=figures.took(seen.get("startedAt"), seen.get("finishedAt"), visit.now),
        tabs=[(name, title, visit.url("jobs", visit.name, tab=name)) for name, title in TABS],
        yaml=figures.as_yaml(equal.manifest(job)),
        commands=[
            *equal.look(kinds.JOB, visit.name, visit.namespace),
            f"dtx logs fj/{visit.name} -f{equal.place(visit.namespace)}",
        ],
        **context,
    )


async def _answers(visit: Visit, scoring: str) -> Json:
    """Some of what the job's model answered when it was scored, and the URLs of the others."""
    unlike, at = visit.query.get("unlike") == "1", visit.query.get("at", "")
    offset = int(at) if at.isascii() and at.isdigit() and len(at) < 16 else 0
    found = await answered(visit.api, visit.namespace, scoring, offset, unlike=unlike) if scoring else None

    def url(**query: str) -> str:
        return visit.url("jobs", visit.name, tab="scored", **query)

    only = {"unlike": "1"} if unlike else {}
    return {
        "answers": found, "unlike": unlike, "first": offset == 0,
        "all_url": url(), "unlike_url": url(unlike="1"),
        "first_url": url(**only), "next_url": url(**only, at=str(found.next)) if found and found.next else "",
    }  # fmt: skip


async def scores(visit: Visit, name: str) -> Json:
    """Everything that the job's Scoring has measured, by metric; the one that ranks comes first."""
    scoring = await there(visit, "Scoring", name) if name else None
    status = kinds.status_of(scoring) if scoring else {}
    metrics: Json = status.get("metrics") or {}
    return dict(sorted(metrics.items(), key=lambda each: each[0] != status.get("metric")))


async def there(visit: Visit, kind: str, name: str) -> Json | None:
    try:
        return await kinds.find(visit.api, kind, name, visit.namespace)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


routes = [Page("/jobs", table), Page("/jobs/{name}", page)]
