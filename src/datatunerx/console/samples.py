"""Sample answers of trainings: prompts by checkpoints from step 0, each held against the base's. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from datatunerx.console import kinds
from datatunerx.console.comparing.marks import Piece, pieces

Json = dict[str, Any]
BASE_STEP = 0
"""Before the first step of training a model answers as its base does."""


class Row(NamedTuple):
    """What one training answered; `answers` has the steps of the grid in their order, None for none."""

    job: str
    answers: list[list[Piece] | None]


class Grid(NamedTuple):
    """One prompt: the base's answers and what became of them."""

    prompt: str
    bases: list[tuple[str, str]]
    """(model, answer) of each base."""
    steps: list[int]
    rows: list[Row]


def of_job(name: str, seen: Json) -> list[Grid]:
    """Every prompt of one training, with every checkpoint."""
    return grids({name: seen}, {name: ""}, last=False)


def grids(told: Mapping[str, Json], bases: Mapping[str, str], *, last: bool) -> list[Grid]:
    """The prompts of some jobs. `told` is each job's Finetune status, `bases` the model it began from.

    With `last` only each job's last answer is shown, in one column whose step is -1.
    """
    answers = {
        (job, sample["prompt"], sample["step"]): str(sample["answer"])
        for job, seen in told.items()
        for sample in seen.get("samples") or ()
    }
    found = []
    for prompt in dict.fromkeys(prompt for _, prompt, _ in answers):
        mine = {(job, step): text for (job, asked, step), text in answers.items() if asked == prompt}
        steps = sorted({step for _, step in mine if step != BASE_STEP})
        began = {job: mine.get((job, BASE_STEP), "") for job in told}
        rows = [
            Row(job, _cells(job, began[job], mine, _last(job, mine) if last else steps))
            for job in told
            if any(owner == job for owner, _ in mine)
        ]
        texts = dict.fromkeys((bases[job], began[job]) for job in told if began[job])
        found.append(Grid(prompt, list(texts), [-1] if last and steps else steps, rows))
    return found


def by_step(seen: Json) -> tuple[list[int], dict[str, dict[int, str]]]:
    """The steps at which prompts were answered, and each prompt's answers by step."""
    prompts: dict[str, dict[int, str]] = {}
    for each in seen.get("samples") or ():
        prompts.setdefault(each["prompt"], {})[each["step"]] = each["answer"]
    return sorted({step for answers in prompts.values() for step in answers}), prompts


def _last(job: str, mine: Mapping[tuple[str, int], str]) -> list[int]:
    return [max((step for owner, step in mine if owner == job and step != BASE_STEP), default=-1)]


def _cells(
    job: str, base: str, mine: Mapping[tuple[str, int], str], steps: Sequence[int]
) -> list[list[Piece] | None]:
    texts = [mine.get((job, step)) for step in steps]
    return [None if text is None else pieces(base, text) if base else [Piece("same", text)] for text in texts]


def told_by(jobs: Sequence[Json], tunes: Mapping[str, Json]) -> tuple[dict[str, Json], dict[str, str]]:
    """Statuses and bases for `grids`, in the order of the jobs."""
    names = [kinds.name_of(job) for job in jobs]
    told = {name: kinds.status_of(tunes[name]) for name in names if name in tunes}
    return told, {kinds.name_of(job): str(job["spec"]["finetune"]["llm"]) for job in jobs}
