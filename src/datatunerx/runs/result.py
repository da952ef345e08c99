"""The result: written last, whole or not at all. A valid result is the only sign that a run ended well."""

from typing import Any

from datatunerx.resources.enums import RunPhase
from datatunerx.resources.experiment import MetricResult
from datatunerx.resources.export import ExportOutcome
from datatunerx.resources.material import DataReport, MadeData
from datatunerx.resources.wire import LongText, ShortText, Uri, Wire
from datatunerx.runs.events import JobOutcome


class ModelFacts(Wire):
    """What an inspection found out about a base model."""

    architecture: str
    parameters: int
    context_length: int
    cache_width: int = 0
    bytes: int
    digest: str
    local_uri: Uri
    template: LongText | None = None
    template_source: str = ""
    warnings: list[str] = []


class DataFacts(Wire):
    """What an inspection found out about a dataset."""

    digest: str
    report: DataReport
    report_uri: Uri | None = None


class PluginFacts(Wire):
    """What an inspection found out about a plugin."""

    version: ShortText | None = None
    package: ShortText | None = None
    summary: LongText = ""
    parameter_schema: dict[str, Any] = {}


class ScoreOutcome(Wire):
    """One model scored by one measure."""

    subject: str
    """Name of the Finetune; empty for the untouched base."""
    measure: str
    """Key of the measure."""
    metrics: dict[str, MetricResult]
    predictions_uri: Uri


class RunResult(Wire):
    plan_id: str
    phase: RunPhase
    """Succeeded, Failed or Stopped. A tune run in which single jobs failed has Succeeded itself."""
    reason: str = ""
    message: str = ""
    jobs: dict[str, JobOutcome] = {}
    scores: list[ScoreOutcome] = []
    model: ModelFacts | None = None
    data: DataFacts | None = None
    plugin: PluginFacts | None = None
    made: MadeData | None = None
    export: ExportOutcome | None = None

    def score(self, subject: str, measure: str) -> ScoreOutcome | None:
        return next((s for s in self.scores if s.subject == subject and s.measure == measure), None)
