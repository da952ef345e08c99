"""What a dataset holds: read once before anybody trains on it."""

from datatunerx import data, storage
from datatunerx.resources.enums import RunPhase
from datatunerx.runs import InspectDataPlan, RunResult
from datatunerx.worker.journal import Journal

REPORT = "report.json"


def inspect_data(plan: InspectDataPlan, journal: Journal) -> RunResult:
    """Raises `DataError` for data that cannot be used."""
    journal.activity(f"reading dataset {plan.data.name}")
    model = plan.model
    report = storage.local_path(journal.uri(REPORT))
    directory = storage.local_path(model.uri) if model else None
    facts = journal.with_space(
        lambda: data.inspect(plan.data, directory, model.template if model else None, report)
    )
    return RunResult(plan_id=journal.plan.id, phase=RunPhase.SUCCEEDED, data=facts)
