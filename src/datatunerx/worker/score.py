"""One model scored by one measure, in a run of its own."""

from datatunerx import storage
from datatunerx.data import ChatTemplate
from datatunerx.resources.enums import RunPhase
from datatunerx.runs import RunResult, ScorePlan
from datatunerx.worker.background import check_model, load
from datatunerx.worker.journal import Journal

ADAPTER = "adapter"
"""Subject of the score, if it is not the untouched base."""


def score_model(plan: ScorePlan, journal: Journal) -> RunResult:
    """Raises `UnreadableAdapter`; a measure that fails is a score without a value."""
    from datatunerx.modeling.peft_format import load_adapter
    from datatunerx.worker.measure import Subject, measure, measure_stored

    subject = Subject("" if plan.adapter_uri is None else ADAPTER, None)
    if plan.predictions_uri is not None:
        found = measure_stored(subject, plan.measure, plan.predictions_uri, journal)
        if found is not None:
            return RunResult(plan_id=journal.plan.id, phase=RunPhase.SUCCEEDED, scores=[found])
    check_model(plan.model, storage.local_path(journal.plan.models_uri))
    model_dir = storage.local_path(plan.model.uri)
    template = ChatTemplate.load(model_dir, plan.model.template)
    journal.activity(f"loading the base {plan.model.name}")
    base = load(model_dir, plan.precision)
    if plan.adapter_uri is not None:
        subject = Subject(ADAPTER, load_adapter(storage.local_path(plan.adapter_uri), base))
    scores = measure(base, template, [subject], plan.measure, plan.data, journal)
    return RunResult(plan_id=journal.plan.id, phase=RunPhase.SUCCEEDED, scores=scores)
