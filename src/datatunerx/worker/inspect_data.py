"""What a dataset holds: read once before anybody trains on it."""

import os

from datatunerx import data, storage
from datatunerx.resources.enums import RunPhase
from datatunerx.runs import InspectDataPlan, RunResult
from datatunerx.worker.failure import explain
from datatunerx.worker.journal import Journal

REPORT = "report.json"


YIELDING = 10
"""How much this process gives way: the server must answer while files are read."""


def inspect_data(plan: InspectDataPlan, journal: Journal) -> RunResult:
    """Failed for data that cannot be used: that is a finding, which needs no traceback."""
    os.nice(YIELDING)
    journal.activity(f"reading dataset {plan.data.name}")
    model = plan.model
    report = storage.local_path(journal.uri(REPORT))
    directory = storage.local_path(model.uri) if model else None
    try:
        facts = journal.with_space(
            lambda: data.inspect(plan.data, directory, model.template if model else None, report)
        )
    except data.DataError as error:
        reason, message = explain(error)
    except MemoryError:
        reason, message = "OutOfMemory", f"reading {plan.data.name} took too much memory; split its files"
    else:
        return RunResult(plan_id=journal.plan.id, phase=RunPhase.SUCCEEDED, data=facts)
    return RunResult(plan_id=journal.plan.id, phase=RunPhase.FAILED, reason=reason, message=message)
