"""A service scored by its URL: the same rows and metrics, its answers in place of a model's of ours."""

from datatunerx import scoring
from datatunerx.data import DataError
from datatunerx.resources.enums import Metric
from datatunerx.resources.finetune import Endpoint
from datatunerx.runs import DataFiles, MeasurePlan, ScoreOutcome
from datatunerx.scoring.endpoint import Reply, ask
from datatunerx.worker.credentials import Secrets
from datatunerx.worker.failure import explain
from datatunerx.worker.journal import Journal
from datatunerx.worker.marks import Folders, progress
from datatunerx.worker.measure import Asked, Subject, keep_and_score, rows_of, unmeasured

NOBODY = Subject("", None)


def measure_service(
    service: Endpoint, plan: MeasurePlan, data: DataFiles | None, journal: Journal, secrets: Secrets
) -> ScoreOutcome:
    """A row that got no answer leaves all without a score: nobody can tell whether it would be right."""
    try:
        return _measure(service, plan, data, journal, secrets)
    except (DataError, scoring.ScoringError) as error:
        reason, message = explain(error, journal.doing)
        journal.warn(f"{service.model} could not be scored: {message}")
        return unmeasured(NOBODY, plan, f"{reason}: {message}", journal)


def _measure(
    service: Endpoint, plan: MeasurePlan, data: DataFiles | None, journal: Journal, secrets: Secrets
) -> ScoreOutcome:
    rows = [Asked(asked, [], right, tools) for asked, right, tools in rows_of(plan, data, journal)]
    if any(row.tools for row in rows):
        raise scoring.ScoringError("rows with tools cannot be asked of a service yet; leave them out")
    key = None
    if ref := service.secret_ref:
        key = secrets.get(ref.name, {}).get(ref.key)
        if not key:
            raise scoring.ScoringError(f"Secret {ref.name} has no value {ref.key!r} for the service's key")
    how = plan.generation
    body = {"max_tokens": how.max_new_tokens, "temperature": how.temperature, "seed": how.seed}
    journal.activity(f"asking {service.model} at {service.url} {len(rows)} questions")
    replies = ask(service, [row.messages for row in rows], body, key, progress(journal, "asked", len(rows)))
    _all_answered(replies)
    predictions = [
        scoring.Prediction(n, row.question, row.reference or "", reply.text or "", finish=reply.finish)
        for n, (row, reply) in enumerate(zip(rows, replies, strict=True))
    ]
    scored = [p for p, row in zip(predictions, rows, strict=True) if row.reference is not None]
    shown = [p for p, row in zip(predictions, rows, strict=True) if row.reference is None]
    if Metric.PERPLEXITY in plan.metrics:
        journal.warn("perplexity has no value: a service does not tell how likely a reference is")
    return keep_and_score(NOBODY, plan, scored, shown, Folders(), journal, secrets)


def _all_answered(replies: list[Reply]) -> None:
    silent = [(n, reply) for n, reply in enumerate(replies) if reply.text is None]
    if silent:
        row, first = silent[0]
        raise scoring.ScoringError(
            f"{len(silent)} of {len(replies)} questions got no answer; row {row}: {first.why}"
        )
