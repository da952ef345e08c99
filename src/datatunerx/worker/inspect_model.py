"""What a base model is: found, made loadable once, and described."""

from pathlib import Path

from datatunerx import storage
from datatunerx.data import ChatTemplate, TemplateError
from datatunerx.resources.enums import RunPhase
from datatunerx.runs import InspectModelPlan, ModelFacts, RunResult
from datatunerx.runs.plan import AdapterFiles
from datatunerx.worker.credentials import Secrets, credentials_for
from datatunerx.worker.journal import Journal
from datatunerx.worker.places import check_place


def inspect_model(plan: InspectModelPlan, journal: Journal, secrets: Secrets) -> RunResult:
    """Raises `UnusableModel` for what is no model, `TemplateError` for a template that cannot be used."""
    from datatunerx.modeling.convert import prepare_model

    journal.activity(f"preparing the model {plan.source}")
    store = storage.local_path(journal.plan.models_uri)
    who = credentials_for(plan.access, secrets)
    places = check_place(journal.plan)
    if plan.merge is None:
        report = journal.with_space(lambda: prepare_model(plan.source, store, who, journal.activity, places))
    else:
        folder = _merged(plan.merge, store, journal)
        report = journal.with_space(lambda: prepare_model(str(folder), store))
    template, source, warnings = _template(report.path, plan.template)
    warnings = report.warnings + warnings
    for warning in warnings:
        journal.warn(warning)
    facts = ModelFacts(
        architecture=report.architecture, parameters=report.parameters, bytes=report.bytes,
        context_length=report.context_length, cache_width=report.cache_width, digest=report.digest,
        local_uri=report.path.as_uri(), template=template, template_source=source, warnings=warnings,
    )  # fmt: skip
    return RunResult(plan_id=journal.plan.id, phase=RunPhase.SUCCEEDED, model=facts)


def _merged(adapter: AdapterFiles, store: Path, journal: Journal) -> Path:
    from datatunerx.modeling.convert import merged
    from datatunerx.worker.export import check_adapter

    check_adapter(adapter, store)
    base, folder = storage.local_path(adapter.model.uri), storage.local_path(adapter.uri)
    stops = ChatTemplate.load(folder).stop_ids
    mark = f"{adapter.model.digest} {adapter.digest}"
    return journal.with_space(lambda: merged(base, folder, stops, mark, store, journal.activity))


def _template(model_dir: Path, given: str | None) -> tuple[str | None, str, list[str]]:
    """The template to train with, where it comes from, and what to warn of."""
    try:
        own = ChatTemplate.load(model_dir)
    except TemplateError as error:
        if given is None:
            return None, "", [f"this model cannot be trained or scored as it is: {error}"]
        own = None
    if given is None:
        return (own.text, own.source, []) if own else (None, "", [])
    chosen = ChatTemplate.load(model_dir, given)
    if own is not None and own.text != chosen.text:
        message = (
            f"the chat template is {chosen.source}, not the model's own ({own.source}): "
            "the model was made with the latter, and answers may suffer"
        )
        return chosen.text, chosen.source, [message]
    return chosen.text, chosen.source, []
