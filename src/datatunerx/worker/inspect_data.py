"""What a dataset holds: read once before anybody trains on it."""

from datatunerx import data, storage
from datatunerx.data.gather import gather, remember
from datatunerx.resources.enums import RunPhase
from datatunerx.runs import DataFiles, InspectDataPlan, RunResult
from datatunerx.runs.files import REPORT
from datatunerx.worker.credentials import Secrets, credentials_for
from datatunerx.worker.failure import explain
from datatunerx.worker.journal import Journal
from datatunerx.worker.places import check_place
from datatunerx.worker.telling import telling


def inspect_data(plan: InspectDataPlan, journal: Journal, secrets: Secrets) -> RunResult:
    """Failed for data that cannot be used: that is a finding, which needs no traceback."""
    journal.activity(f"reading dataset {plan.data.name}")
    model = plan.model
    report = storage.local_path(journal.uri(REPORT))
    directory = storage.local_path(model.uri) if model else None
    tell = telling(journal, f"dataset {plan.data.name}")
    try:
        files = gathered(plan.data, journal, secrets)
        facts = journal.with_space(
            lambda: data.inspect(files, directory, model.template if model else None, report, tell)
        )
        if files is not plan.data:
            store = storage.local_path(journal.plan.fetched_uri)
            journal.with_space(lambda: remember(files, facts.digest, store))
    except (data.DataError, storage.PrivatePlace) as error:
        reason, message = explain(error)
    except MemoryError:
        reason, message = "OutOfMemory", f"reading {plan.data.name} took too much memory; split its files"
    else:
        return RunResult(plan_id=journal.plan.id, phase=RunPhase.SUCCEEDED, data=facts)
    return RunResult(plan_id=journal.plan.id, phase=RunPhase.FAILED, reason=reason, message=message)


def gathered(files: DataFiles, journal: Journal, secrets: Secrets) -> DataFiles:
    """The dataset with all its files on this machine."""
    fetched = storage.local_path(journal.plan.fetched_uri)
    uploads = storage.local_path(journal.plan.uploads_uri)
    who = credentials_for(files.access, secrets)
    places = check_place(journal.plan)
    return journal.with_space(lambda: gather(files, fetched, uploads, who, journal.activity, places))
