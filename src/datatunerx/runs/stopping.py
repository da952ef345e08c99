"""Early stopping as a user writes it into what a worker is told. Pure."""

from datatunerx.resources.enums import Split, StoppingMeasure
from datatunerx.resources.finetune import SCORED_ON_THE_WAY, EarlyStopping, Measure
from datatunerx.runs.compile import Unresolved
from datatunerx.runs.plan import EarlyStop, MeasurePlan


def early_stop(wanted: EarlyStopping, scoring: Measure | None, dataset: str) -> EarlyStop:
    """`scoring` is the job's, None for a training without a job. Raises Unresolved.

    By score the answers are made as those of the final score are, to the first validate rows of the
    training's own dataset.
    """
    measure = None
    if wanted.measure is StoppingMeasure.SCORE:
        metric = next((m for m in SCORED_ON_THE_WAY if scoring and m.value == scoring.ranks), None)
        if scoring is None or metric is None:
            what = f"{scoring.ranks} is not measured on the way" if scoring else "only a FinetuneJob has one"
            message = f"earlyStopping.measure is score, and {what}; set it to loss"
            raise Unresolved("EarlyStoppingInvalid", message)
        options = scoring.metric_options
        measure = MeasurePlan(
            data=dataset, split=Split.VALIDATE, metrics=[metric], limit=wanted.limit,
            metric_options={metric: options[metric]} if metric in options else {},
            generation=scoring.generation,
        )  # fmt: skip
    return EarlyStop(patience=wanted.patience, min_delta=wanted.min_delta, score=measure)
