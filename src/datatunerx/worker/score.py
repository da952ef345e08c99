"""One model, or a service by its URL, scored by one measure in a run of its own."""

from datatunerx import storage
from datatunerx.data import ChatTemplate
from datatunerx.resources.enums import RunPhase
from datatunerx.runs import RunResult, ScorePlan
from datatunerx.worker.background import check_model, load
from datatunerx.worker.credentials import Secrets
from datatunerx.worker.journal import Journal

ADAPTER = "adapter"
"""Subject of the score, if it is not the untouched base."""


def score_model(plan: ScorePlan, journal: Journal, secrets: Secrets) -> RunResult:
    """Raises `UnreadableAdapter`; a measure that fails is a score without a value."""
    from datatunerx.worker.marks import Folders
    from datatunerx.worker.measure import Subject, measure, measure_stored

    model_dir = storage.local_path(plan.model.uri) if plan.model else None
    adapter_dir = storage.local_path(plan.adapter_uri) if plan.adapter_uri else None
    subject = Subject("" if adapter_dir is None else ADAPTER, None, adapter_dir)
    if plan.predictions_uri is not None:
        folders = Folders(model_dir, adapter_dir)
        stored = measure_stored(subject, plan.measure, plan.predictions_uri, folders, journal, secrets)
        if stored is not None:
            return RunResult(plan_id=journal.plan.id, phase=RunPhase.SUCCEEDED, scores=[stored])
    if plan.service is not None:
        from datatunerx.worker.service import measure_service

        found = measure_service(plan.service, plan.measure, plan.data, journal, secrets)
        return RunResult(plan_id=journal.plan.id, phase=RunPhase.SUCCEEDED, scores=[found])
    from datatunerx.modeling.peft_format import load_adapter

    assert plan.model is not None and model_dir is not None, "a plan to score has a model or a service"
    check_model(plan.model, storage.local_path(journal.plan.models_uri))
    template = ChatTemplate.load(model_dir, plan.model.template)
    journal.activity(f"loading the base {plan.model.name}")
    base = load(model_dir, plan.precision)
    if adapter_dir is not None:
        subject = Subject(ADAPTER, load_adapter(adapter_dir, base), adapter_dir)
    scores = measure(base, template, [subject], plan.measure, plan.data, journal, secrets)
    return RunResult(plan_id=journal.plan.id, phase=RunPhase.SUCCEEDED, scores=scores)
