"""Home: every experiment, what needs somebody first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from datatunerx.console import kinds, sparklines, states
from datatunerx.console.listing import Asked, Column, listing
from datatunerx.console.progress import Course, course
from datatunerx.console.sparklines import Spark
from datatunerx.console.visit import Page, Visit
from datatunerx.console.wizard.draft import unfinished
from datatunerx.console.words import Say
from datatunerx.resources.enums import Metric

Json = dict[str, Any]
MAX_SETTLED = 10_000
_settled: dict[str, Spark | None] = {}
"""Of experiments that have ended, by uid: their jobs need not be read to draw them."""
_LOWER = frozenset(metric.value for metric in Metric if not metric.higher_is_better)


@dataclass(frozen=True)
class Row:
    """One experiment as the list shows it."""

    name: str
    uid: str
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
    Column("loss", "Loss"),
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
        Asked.of(visit.query, "view"),
        text=lambda row: f"{row.name} {row.best} {row.models} {row.why}",
        state=lambda row: row.phase,
        order=lambda row: states.attention(row.phase),
        name="experiments",
        hidden=visit.hidden("experiments"),
        target=lambda row: f"fe/{row.name}",
    )
    courses, sparks = await _trained(visit, found.rows)
    drafts, unread = await unfinished(visit.api, visit.namespace, visit.user)
    return await visit.page(
        "experiments.html", live=True, list=found, courses=courses, sparks=sparks, drafts=drafts,
        unread=unread,
    )  # fmt: skip


async def _trained(visit: Visit, rows: Sequence[Row]) -> tuple[dict[str, Course], dict[str, Spark]]:
    """How far the unfinished ones of a page are; and the loss of their best jobs, or of one that trains."""
    going = [row for row in rows if row.phase not in states.ENDED]
    for row in going:  # also one that had ended, and is tried again
        _settled.pop(row.uid, None)
    open_rows = [row for row in rows if row.uid not in _settled]
    sparks = {row.name: spark for row in rows if (spark := _settled.get(row.uid))}
    if not open_rows:
        return {}, sparks
    jobs = await kinds.some(visit.api, kinds.JOB, visit.namespace)
    owners = {kinds.name_of(job): kinds.owner(job, kinds.EXPERIMENT) for job in jobs}
    mine: dict[str, dict[str, Json]] = {row.name: {} for row in open_rows}
    for tune in await kinds.some(visit.api, kinds.FINETUNE, visit.namespace):
        job = kinds.owner(tune, kinds.JOB)
        mine.get(owners.get(job, ""), {})[job] = tune
    shown = {
        row.name: row.best if row.best in tunes else max(tunes, key=lambda job: _ahead(tunes[job]))
        for row in open_rows
        if (tunes := mine[row.name])
    }
    drawn = await sparklines.of(visit, {job: mine[name][job] for name, job in shown.items()}, jobs)
    for row in open_rows if visit.may("list", "finetunes") else ():
        job = shown.get(row.name, "")
        if row.phase in states.ENDED and (not job or job in drawn):
            _settled[row.uid] = drawn.get(job)
    while len(_settled) > MAX_SETTLED:
        del _settled[next(iter(_settled))]
    sparks |= {name: spark for name, job in shown.items() if (spark := drawn.get(job))}
    courses = {row.name: course(list(mine[row.name].values()), row.jobs.get("total", 0)) for row in going}
    return courses, sparks


def _ahead(tune: Json) -> tuple[bool, int]:
    """Highest for the one that is worth a look: of those that train, the furthest."""
    step = (kinds.status_of(tune).get("progress") or {}).get("step") or 0
    return states.phase(tune) in states.BUSY, step


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
        uid=str(obj["metadata"]["uid"]),
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
    return metric not in _LOWER


def _reverse(stamp: str) -> Any:
    """Youngest first where a list is sorted by age: a stamp turned round."""
    return tuple(-ord(letter) for letter in stamp) or None


routes = [Page("/experiments", show)]
