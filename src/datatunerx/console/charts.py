"""Charts: which runs trained some jobs, their curves side by side, and what they say in a sentence.

The curves come from the API by run, cut to the width of the picture; here they are put together.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from datatunerx.client import Api
from datatunerx.client.api import path_of
from datatunerx.client.errors import from_answer
from datatunerx.console import figures, kinds, states

Json = dict[str, Any]
Said = tuple[str, dict[str, Any]]
"""A text of the catalogue with its values."""

HUES = 8
BEST, SCORE = "evalLoss", "evalScore"
TITLES = {
    "loss": "Loss",
    "evalLoss": "Eval loss",
    "perplexity": "Perplexity on the validate split",
    SCORE: "Score of answers to validate rows",
    "learningRate": "Learning rate",
    "gradNorm": "Gradient norm",
    "tokensPerSecond": "Tokens per second",
}
"""Of the charts that are offered. A job may have measured more."""
AXES = {"step": "Step", "epoch": "Epoch", "tokens": "Tokens", "time": "Time"}
MIN_BINS, MAX_BINS = 200, 30_000
"""Of one line, and of all lines of a chart: a hundred of them need no two points for each pixel."""
NOISY = ("loss", "gradNorm", "tokensPerSecond")
"""What smoothing helps to read; it would only bend the others."""


@dataclass(frozen=True)
class Asked:
    """What a chart shows."""

    name: str
    x: str = "step"
    smooth: float = 0.0
    bins: int = 800
    low: str = ""
    high: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Asked":
        """Read a query; what makes no sense is the default."""
        name, x = query.get("name", "loss")[:64], query.get("x", "step")
        bins = query.get("bins", "")
        return cls(
            name,
            x if x in AXES else "step",
            min(0.99, max(0.0, _number(query.get("smooth")) or 0.0)) if name in NOISY else 0.0,
            min(4000, max(50, int(bins))) if bins.isascii() and bins.isdigit() and len(bins) < 6 else 800,
            *(text if _number(text := query.get(end, "")) is not None else "" for end in ("from", "to")),
        )


class Line(NamedTuple):
    """A job as charts draw it. `hue` is 1 to 8 for its life; beyond, `dash` tells lines apart."""

    job: str
    finetune: str
    label: str
    hue: int
    dash: int
    ended: bool
    runs: tuple[str, ...]
    """Those that trained it, the first one first."""


def hues(jobs: Sequence[Json]) -> dict[str, tuple[int, int]]:
    """(hue, dash) of each of the jobs of one experiment, by the order they were made in."""
    ordered = sorted(jobs, key=lambda job: (kinds.created(job), kinds.name_of(job)))
    return {kinds.name_of(job): (n % HUES + 1, n // HUES % 4) for n, job in enumerate(ordered)}


def lines(names: Sequence[str], jobs: Sequence[Json], runs: Sequence[Json]) -> list[Line]:
    """The lines of some jobs; `jobs` and `runs` are all those of the namespace."""
    by_name = {kinds.name_of(job): job for job in jobs}
    carriers: dict[str, list[str]] = {}
    for run in sorted(runs, key=lambda run: (kinds.created(run), kinds.name_of(run))):
        if run["spec"]["type"] == "tune":
            for served in run["spec"].get("serves") or ():
                carriers.setdefault(served, []).append(kinds.name_of(run))
    mates: dict[str, list[Json]] = {}
    for job in jobs:
        mates.setdefault(kinds.owner(job, kinds.EXPERIMENT), []).append(job)
    coloured = {experiment: hues(mine) for experiment, mine in mates.items() if experiment}
    found = []
    for job in (by_name[name] for name in names if name in by_name):
        name, experiment = kinds.name_of(job), kinds.owner(job, kinds.EXPERIMENT)
        tune = str(kinds.status_of(job).get("finetune") or name)
        told = (
            name.removeprefix(f"{experiment}-"),
            *coloured.get(experiment, hues([job]))[name],
            states.phase(job) in states.ENDED,
            tuple(carriers.get(f"{kinds.FINETUNE}/{tune}", ())),
        )
        found.append(Line(name, tune, *told))
    return found


async def chart(api: Api, namespace: str, drawn: Sequence[Line], asked: Asked) -> Json:
    """Everything to draw: curves with their lines, marks, where to follow, and what is said of them."""
    by_run: dict[str, dict[str, Json]] = {}
    for line in drawn:
        for run in line.runs:
            by_run.setdefault(run, {})[line.finetune] = {}
    query = {"x": asked.x, "y": asked.name, "smooth": str(asked.smooth)}
    if len(by_run) > 1:  # where all begin and end, so that they are cut alike
        ends = await _all(api, namespace, by_run, query)
        if _join(drawn, ends, by_run) and asked.x == "time":
            ends = await _all(api, namespace, by_run, query)
        spans = [end["x"] for told in ends.values() for end in told.get("ends", {}).values()]
        if spans:
            query |= {"from": str(min(s[0] for s in spans)), "to": str(max(s[1] for s in spans))}
    query |= {name: value for name, value in (("from", asked.low), ("to", asked.high)) if value}
    bins = min(asked.bins, max(MIN_BINS, MAX_BINS // max(1, len(drawn))))
    told = await _all(api, namespace, by_run, query | {"bins": str(bins)})
    return _drawn(drawn, told, asked)


async def _all(
    api: Api, namespace: str, by_run: Mapping[str, Mapping[str, Json]], query: Mapping[str, str]
) -> dict[str, Json]:
    found = await asyncio.gather(*(points(api, namespace, run, jobs, query) for run, jobs in by_run.items()))
    return dict(zip(by_run, found, strict=True))


async def points(
    api: Api, namespace: str, run: str, jobs: Mapping[str, Json], query: Mapping[str, str]
) -> Json:
    """What a run has told of some jobs. A run whose events are not here has told nothing."""
    where = path_of(kinds.PLURALS["Run"], namespace, run, "points")
    asked = {"jobs": orjson.dumps(jobs).decode(), **query}
    answer = await api.transport.request("GET", where, query=asked)
    if answer.status in (404, 501):
        return {}
    if answer.status >= 300:
        raise from_answer(answer.status, answer.body)
    found: Json = orjson.loads(answer.body)
    return found


def _join(drawn: Sequence[Line], ends: Mapping[str, Json], by_run: Mapping[str, dict[str, Json]]) -> bool:
    """Say of each run which of its steps another one did again, and when the job was begun at all.

    Whether any job was trained by more than one run.
    """
    several = False
    for line in drawn:
        found = [(run, ends[run].get("ends", {}).get(line.finetune)) for run in line.runs]
        spans = [(run, span) for run, span in found if span]
        zeros = [ends[run]["began"][line.finetune] for run, _ in spans]
        several = several or len(spans) > 1
        for n, (run, _) in enumerate(spans):
            how = by_run[run][line.finetune]
            how["zero"] = min(zeros)
            if n + 1 < len(spans):
                how["until"] = spans[n + 1][1]["step"][0]
    return several


class Part(NamedTuple):
    """What one of the runs of a job told: [step, x, value] of two points, and how far apart two may be."""

    first: Sequence[float]
    last: Sequence[float]
    reach: float
    """In steps; 0 where that is not known."""


def between(before: Part | None, after: Part, x: str) -> list[list[float]]:
    """The gap, [x, x], between what two runs told of a job.

    None where the second went on without a step left out; but along the time there is one: nobody trained.
    """
    if before is None:
        return []
    apart, reach = after.first[0] - before.last[0], max(before.reach, after.reach)
    return [[before.last[1], after.first[1]]] if x == "time" or (reach and apart > reach) else []


def _drawn(drawn: Sequence[Line], told: Mapping[str, Json], asked: Asked) -> Json:
    curves: list[Json] = []
    marks: list[Json] = []
    facts: dict[str, Json] = {}
    saved: dict[str, dict[int, float | None]] = {}
    grid = None
    for line in drawn:
        before: Part | None = None
        for run in line.runs:
            part = told[run]
            curve = part.get("curves", {}).get(line.finetune)
            if not curve:
                continue
            grid = part.get("grid", grid)
            found = part["facts"][line.finetune]
            here = Part(found["first"], found["last"], part["reach"][line.finetune])
            gaps = between(before, here, asked.x) + part["gaps"][line.finetune]
            whose = {"job": line.job, "finetune": line.finetune}
            curves.append({**whose, "gaps": gaps, "reach": here.reach, "last": here.last[0], **curve})
            for step, x, loss in part["checkpoints"][line.finetune]:
                marks.append({"job": line.job, "x": x, "step": step})
                saved.setdefault(line.job, {})[step] = loss
            if before:
                marks.append({"job": line.job, "x": here.first[1], "step": None})
            facts[line.job], before = _merged(facts.get(line.job), found), here
    labels = {line.job: line.label for line in drawn}
    best, end = _best(asked.name, facts)
    began = {line.finetune: told[run]["began"].get(line.finetune) for line in drawn for run in line.runs[:1]
             if "began" in told[run]}  # fmt: skip
    return {
        "lines": [line._asdict() for line in drawn],
        "curves": curves,
        "grid": grid,
        "smooth": asked.smooth,
        "marks": marks,
        "best": {"job": best, "x": facts[best][end][1], "y": facts[best][end][2]} if best else None,
        "live": {run: part["offset"] for run, part in told.items() if "offset" in part},
        "began": began,
        "behind": sum(part.get("behind", 0) for part in told.values()),
        "runs": [sum(not part.get("behind") for part in told.values()), len(told)],
        "open": any(not line.ended for line in drawn),
        "said": sentence(asked.name, facts, labels, saved),
    }


def _merged(before: Json | None, now: Json) -> Json:
    if before is None:
        return now
    low = min(before["lowest"], now["lowest"], key=lambda point: float(point[2]))
    high = max(before["highest"], now["highest"], key=lambda point: float(point[2]))
    return now | {"first": before["first"], "lowest": low, "highest": high}


def _best(name: str, facts: Mapping[str, Json]) -> tuple[str, str]:
    """The job with the best point, and which that is: where one is best and not just noise."""
    if name == SCORE and facts:
        return max(facts, key=lambda job: float(facts[job]["highest"][2])), "highest"
    if name not in (BEST, "perplexity") or not facts:
        return "", ""
    return min(facts, key=lambda job: float(facts[job]["lowest"][2])), "lowest"


# What is said below a chart


def sentence(
    name: str,
    facts: Mapping[str, Json],
    labels: Mapping[str, str],
    saved: Mapping[str, Mapping[int, float | None]],
) -> Said | None:
    """What a reader should see in the curves; None where there are none."""
    if not facts:
        return None
    number = figures.number
    if name in (BEST, "perplexity"):
        return _of_held_out(name, facts, labels, saved)
    if name == SCORE:
        high, _ = _best(name, facts)
        step, _, value = facts[high]["highest"]
        return "{job} is highest, {value} at step {step}.", {
            "job": labels[high], "value": number(value, 3), "step": step,
        }  # fmt: skip
    if len(facts) == 1:
        one = next(iter(facts.values()))
        if name == "learningRate":
            peak, end = one["highest"], one["last"]
            return "Highest at step {step}, {value}; now {now}.", {
                "step": number(peak[0]), "value": number(peak[2], 3), "now": number(end[2], 3),
            }  # fmt: skip
        return "From {first} to {last} over {n} steps.", {
            "first": number(one["first"][2], 3), "last": number(one["level"], 3), "n": number(one["last"][0]),
        }  # fmt: skip
    if name == "learningRate":
        peaks = [one["highest"][2] for one in facts.values()]
        return "Peaks from {low} to {high}.", {"low": number(min(peaks), 3), "high": number(max(peaks), 3)}
    low = min(facts, key=lambda job: float(facts[job]["level"]))
    return "{job} is lowest at its end, {value}.", {
        "job": labels[low],
        "value": number(facts[low]["level"], 3),
    }


def best_saved(saved: Mapping[int, float | None], step: int) -> int:
    """The checkpoint with the lowest eval loss, else the one nearest to a step; 0 where there is none."""
    measured = {at: loss for at, loss in saved.items() if loss is not None}
    if measured:
        return min(measured, key=lambda at: (measured[at] or 0.0, at))
    return min(saved, key=lambda at: abs(at - step), default=0)


def _of_held_out(
    name: str,
    facts: Mapping[str, Json],
    labels: Mapping[str, str],
    saved: Mapping[str, Mapping[int, float | None]],
) -> Said:
    best = min(facts, key=lambda job: float(facts[job]["lowest"][2]))
    step, _, value = facts[best]["lowest"]
    last = facts[best]["last"][0]
    risen = [job for job, each in facts.items() if each["lowest"][0] < each["last"][0]]
    near = best_saved(saved.get(best) or {}, step)
    values = {
        "value": figures.number(value, 3), "step": step, "checkpoint": near, "job": labels[best],
        "n": len(risen), "all": len(facts),
    }  # fmt: skip
    if len(facts) > 1:
        text = "{job} is lowest, {value} at step {step}. "
        more = "The curve rises again in {n} of {all} jobs." if risen else "None rises again."
        return text + more, values
    if step == last:
        return "Still falling: {value} at step {step} is the lowest so far.", values
    if near:
        return "It has risen since step {step} ({value}); checkpoint {checkpoint} is best.", values
    return "It has risen since step {step} ({value}).", values


def _number(text: str | None) -> float | None:
    try:
        found = float(text or "")
    except ValueError:
        return None
    return found if abs(found) < 1e15 else None
