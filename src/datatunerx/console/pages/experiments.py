"""Home: every experiment, what needs somebody first."""

from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from datatunerx.console import kinds, states
from datatunerx.console.listing import Asked, Column, listing
from datatunerx.console.progress import Course, course
from datatunerx.console.visit import Page, Visit
from datatunerx.console.wizard.draft import unfinished
from datatunerx.console.words import Say
from datatunerx.resources.enums import Metric

Json = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One experiment as the list shows it."""

    name: str
    phase: str
    why: str
    best: str
    score: float | None
    metric: str
    difference: float | None
    """To the base on the same rows."""
    distinguishable: bool
    better: bool
    """Whether the difference is one for the better."""
    jobs: Json
    created: str
    models: str
    course: Course | None = None


COLUMNS: list[Column[Row]] = [
    Column("name", "Experiment", lambda row: row.name),
    Column("state", "State", lambda row: row.phase),
    Column("progress", "Progress"),
    Column("jobs", "Jobs", lambda row: row.jobs.get("total", 0), number=True),
    Column("score", "Best score", lambda row: row.score, number=True),
    Column("difference", "Against base", lambda row: row.difference, number=True),
    Column("age", "Age", lambda row: _reverse(row.created), number=True),
]


async def show(visit: Visit) -> Response:
    rows = [
        row_of(obj, visit.say) for obj in await kinds.all_of(visit.api, kinds.EXPERIMENT, visit.namespace)
    ]
    rows.sort(key=lambda row: row.created, reverse=True)
    found = listing(
        rows,
        COLUMNS,
        Asked.of(visit.query),
        text=lambda row: f"{row.name} {row.best} {row.models} {row.why}",
        state=lambda row: row.phase,
        order=lambda row: states.attention(row.phase),
    )
    courses = await _courses(visit, [row for row in found.rows if row.phase not in states.ENDED])
    drafts, unread = await unfinished(visit.api, visit.namespace, visit.user)
    return await visit.page(
        "experiments.html", live=True, list=found, courses=courses, drafts=drafts, unread=unread
    )


async def _courses(visit: Visit, rows: list[Row]) -> dict[str, Course]:
    """How far the unfinished ones of a page are."""
    if not rows:
        return {}
    jobs = await kinds.some(visit.api, kinds.JOB, visit.namespace)
    experiments = {kinds.name_of(job): kinds.owner(job, kinds.EXPERIMENT) for job in jobs}
    mine: dict[str, list[Json]] = {}
    for obj in await kinds.some(visit.api, kinds.FINETUNE, visit.namespace):
        mine.setdefault(experiments.get(kinds.owner(obj, kinds.JOB), ""), []).append(obj)
    return {row.name: course(mine.get(row.name, []), row.jobs.get("total", 0)) for row in rows}


def row_of(obj: Json, say: Say) -> Row:
    """One experiment as the list shows it."""
    status, spec = kinds.status_of(obj), obj.get("spec") or {}
    best = status.get("best") or {}
    ranked: Json = next((r for r in status.get("ranking") or () if r["name"] == best.get("job")), {})
    against = ranked.get("againstBase") or {}
    difference = against.get("value")
    models = [*(spec.get("matrix") or {}).get("llms", ()), *(job["llm"] for job in spec.get("jobs") or ())]
    return Row(
        name=kinds.name_of(obj),
        phase=states.phase(obj),
        why=states.why(obj, say),
        best=best.get("job", ""),
        score=best.get("score"),
        metric=status.get("metric", ""),
        difference=difference,
        distinguishable=bool(against.get("distinguishable")),
        better=difference is not None and (difference > 0) == higher_is_better(status.get("metric", "")),
        jobs=status.get("jobs") or {},
        created=kinds.created(obj),
        models=" ".join(dict.fromkeys(models)),
    )


def higher_is_better(metric: str) -> bool:
    return metric not in {m.value for m in Metric if not m.higher_is_better}


def _reverse(stamp: str) -> Any:
    """Youngest first where a list is sorted by age: a stamp turned round."""
    return tuple(-ord(letter) for letter in stamp) or None


routes = [Page("/experiments", show)]
