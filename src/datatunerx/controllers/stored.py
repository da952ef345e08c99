"""Answers that are stored already: a new metric is measured on them without asking the model again."""

from collections.abc import Iterator

from pydantic import ValidationError

from datatunerx import storage
from datatunerx.controllers.context import World
from datatunerx.controllers.folder import read_plan
from datatunerx.resources.enums import ScoringPhase
from datatunerx.resources.outcome import Run, Scoring
from datatunerx.runs.compile import measure_plan
from datatunerx.runs.plan import MeasurePlan, RunPlan, ScorePlan


def stored_predictions(world: World, scoring: Scoring, wanted: ScorePlan) -> str | None:
    """What this very model has answered to these very questions for another Scoring; None if it has not."""
    for other, run in _measured(world, scoring):
        uri = other.status.predictions_uri
        asked = measure_plan(other.spec.measure, other.spec.dataset)
        if uri is None or not _asks_alike(asked, wanted.measure) or not storage.exists(uri):
            continue
        try:
            made = read_plan(run.spec.plan_uri)
        except (storage.StorageError, ValidationError):
            continue  # whoever cannot be understood is not relied on
        if _answered_by(made, wanted):
            return uri
    return None


def _measured(world: World, scoring: Scoring) -> Iterator[tuple[Scoring, Run]]:
    """The model's other Scorings that have succeeded, each with its Run."""
    namespace = scoring.metadata.namespace
    for other in world.all(Scoring, namespace):
        same = (other.spec.model, other.spec.service) == (scoring.spec.model, scoring.spec.service)
        alike = same and other.metadata.uid != scoring.metadata.uid
        run = world.get(Run, namespace, other.status.run) if alike and other.status.run else None
        if run and other.status.phase is ScoringPhase.SUCCEEDED and not run.metadata.deletion_timestamp:
            yield other, run


def _asks_alike(one: MeasurePlan, other: MeasurePlan) -> bool:
    """Whether they differ in their metrics, and how those are measured, at most."""
    how = ("metrics", "metric_options", "judge", "plugins")
    same = {name: getattr(other, name) for name in how}
    return one.model_copy(update=same) == other


def _answered_by(made: RunPlan, wanted: ScorePlan) -> bool:
    """Whether that run had the same model, adapter and files: names are not enough, they may be reused."""
    if made.score:
        then = made.score
        return (then.model, then.service, then.adapter_uri, then.data, then.precision) == (
            wanted.model, wanted.service, wanted.adapter_uri, wanted.data, wanted.precision
        )  # fmt: skip
    if wanted.data is None:
        return False
    if made.tune is None or made.tune.model != wanted.model or wanted.data not in made.tune.data:
        return False
    if wanted.adapter_uri is None:
        return True
    above = storage.local_path(wanted.adapter_uri).parents
    return any(storage.local_path(job.output_uri) in above for job in made.tune.jobs)
