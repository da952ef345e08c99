"""Models compared by what their runs stored: the same rows or nothing."""

from collections.abc import Sequence

from pydantic import ValidationError

from datatunerx import storage
from datatunerx.controllers.context import World
from datatunerx.controllers.verdict import Measured
from datatunerx.resources.enums import ScoringPhase
from datatunerx.resources.experiment import Difference, Ranked
from datatunerx.resources.outcome import Scoring
from datatunerx.runs.draws import MAX_BYTES, Draws, difference, draws_uri

UNFINISHED = (ScoringPhase.PENDING, ScoringPhase.RUNNING)


def read_draws(scoring: Scoring | None) -> Draws | None:
    """What its run stored for comparisons; None if it has not, or cannot be read any more."""
    if scoring is None or not scoring.status.predictions_uri:
        return None
    try:
        uri = draws_uri(scoring.status.predictions_uri)
        return Draws.model_validate_json(storage.read_bytes(uri, MAX_BYTES))
    except (storage.StorageError, ValidationError):
        return None


def compare_scorings(world: World, scoring: Scoring) -> list[Difference]:
    """With every Scoring that it names and that has ended, by the metric that ranks it."""
    metric = scoring.status.metric or scoring.spec.measure.ranks
    mine, found = read_draws(scoring), []
    for name in scoring.spec.compare_with:
        other = world.get(Scoring, scoring.metadata.namespace, name)
        if other is None:
            missing = f"there is no Scoring {name!r}"
            found.append(Difference(to=name, metric=metric, why_missing=missing, said="not compared"))
        elif other.status.phase not in UNFINISHED:
            found.append(difference(mine, read_draws(other), metric, scoring.metadata.name, name))
    return found


def with_differences(
    world: World, namespace: str, ranking: Sequence[Ranked], metric: Measured
) -> tuple[list[Ranked], dict[str, Difference]]:
    """The ranking, each row against its base and the next one; and the best job against every other job."""
    stored = {}
    for row in ranking:
        if row.scoring and (draws := read_draws(world.get(Scoring, namespace, row.scoring))):
            kept = {name: one for name, one in draws.metrics.items() if name == metric.value}
            stored[row.scoring] = Draws(metrics=kept)  # of a thousand jobs the others would take much room

    def against(row: Ranked, other: Ranked | None) -> Difference | None:
        if other is None or row.rank is None or other.rank is None:
            return None
        pair = (stored.get(row.scoring or ""), stored.get(other.scoring or ""))
        return difference(*pair, metric.value, row.name, other.name)

    rows = []
    for place, row in enumerate(ranking):
        bases = (other for other in ranking if other.base and not row.base)
        base = next((b for b in bases if (b.llm, b.dataset) == (row.llm, row.dataset)), None)
        following = ranking[place + 1] if place + 1 < len(ranking) else None
        update = {"against_base": against(row, base), "against_next": against(row, following)}
        rows.append(row.model_copy(update=update))
    jobs = [row for row in rows if not row.base]
    pairs = [(other.name, against(jobs[0], other)) for other in jobs[1:]] if jobs else []
    return rows, {name: found for name, found in pairs if found}
