"""Looks at the test rows before hours of training: can they give the scores that are asked for?"""

from datatunerx import storage
from datatunerx.data import DataError, questions
from datatunerx.data.gather import recall
from datatunerx.resources.enums import Metric
from datatunerx.runs import DataFiles, MeasurePlan
from datatunerx.runs.answers import unfit
from datatunerx.worker.journal import Journal

RANKED = "nothing was trained: no job could have been ranked"
STOPPED = "set earlyStopping.measure to loss"


def check_references(measure: MeasurePlan, data: DataFiles, journal: Journal, fix: str = RANKED) -> list[str]:
    """One line per metric that will be missing, naming the first row that is to blame.

    Raises DataError if no metric is left: nothing that is trained could be ranked then. Rows that cannot be
    read are told of when they are asked.
    """
    try:
        files = recall(data, storage.local_path(journal.plan.fetched_uri))
        rows = questions(files, measure.split, measure.limit)
    except (DataError, storage.StorageError):
        return []
    own = [(f"scoring.questions[{n}].answer", asked.answer) for n, asked in enumerate(measure.questions)]
    left = list(measure.metrics)
    told: dict[Metric, tuple[str, str]] = {}
    for where, reference in [*((row.row, row.reference) for row in rows), *own]:
        found = unfit(reference, left, measure.metric_options) if reference is not None else {}
        told |= {metric: (where, why) for metric, why in found.items()}
        left = [metric for metric in left if metric not in found]
    if told and not left and not measure.plugins:
        where, why = next(iter(told.values()))
        raise DataError(why, where, fix=fix)
    return [f"{where}: {why}; {metric} will be missing" for metric, (where, why) in told.items()]
