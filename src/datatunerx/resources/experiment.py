"""FinetuneExperiment: many jobs, one verdict."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from datatunerx.resources.enums import ExperimentPhase, JobPhase
from datatunerx.resources.finetune import EarlyStopping, Measure, Resources
from datatunerx.resources.training import HyperparameterRef
from datatunerx.resources.wire import LongText, Name, Resource, ShortText, Status, Wire

Names = Annotated[list[Name], Field(min_length=1, max_length=64)]


class JobTemplate(Wire):
    """One combination, named."""

    list_key: ClassVar[tuple[str, ...]] = ("name",)

    name: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """The job will be called <experiment>-<name>."""
    llm: Name
    dataset: Name
    hyperparameter: HyperparameterRef


class Matrix(Wire):
    """Every base model with every dataset with every parameter group."""

    llms: Names
    datasets: Names
    hyperparameters: Names


class FinetuneExperimentSpec(Wire):
    jobs: Annotated[list[JobTemplate], Field(max_length=1000)] = []
    matrix: Matrix | None = None
    scoring: Measure = Measure()
    baseline: bool = True
    """Score the untouched base models too."""
    samples: Annotated[list[LongText], Field(max_length=32)] = []
    """Prompts every job answers at step 0 and at each checkpoint."""
    sample_system_prompt: LongText | None = None
    """What stands before each of the samples as the system's turn."""
    resources: Resources = Resources()
    """What each training asks for."""
    retry_limit: Annotated[int, Field(ge=0, le=100)] = 1
    """How often a training whose worker died is taken up again."""
    suspend: bool = False
    """True keeps everything and stops what is unfinished; false resumes it from its last whole checkpoint."""
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    """Higher goes first."""
    early_stopping: EarlyStopping | None = None
    """Ends each training that gets no better, and keeps its best checkpoint."""


class MetricResult(Wire):
    value: float | None = None
    """Absent when it could not be measured; `whyMissing` then says why."""
    low: float | None = None
    """Lower end of the 95 % interval."""
    high: float | None = None
    n: int = 0
    """Rows it was measured on."""
    higher_is_better: bool = True
    why_missing: ShortText | None = None


class Difference(Wire):
    """One model's score minus another's: the paired bootstrap over the same rows."""

    list_key: ClassVar[tuple[str, ...]] = ("to",)

    to: ShortText
    """The other model, or its Scoring."""
    metric: ShortText = ""
    value: float | None = None
    """Absent when the two cannot be compared; `whyMissing` then says why."""
    low: float | None = None
    """Lower end of the 95 % interval."""
    high: float | None = None
    n: int = 0
    distinguishable: bool = False
    """Whether the interval leaves out zero."""
    said: ShortText = ""
    """The same in words."""
    why_missing: ShortText | None = None


class Ranked(Wire):
    """One row of the ranking: a job, or a base model."""

    rank: int | None = None
    """1 is best; a row without a score, or with one from other data than most, has none."""
    name: ShortText
    """The job, or the LLM of a base row."""
    base: bool = False
    """True for an untouched base model."""
    llm: ShortText = ""
    dataset: ShortText = ""
    measured_on: ShortText = ""
    """The dataset of the score: `dataset` itself unless scoring.dataset names another."""
    hyperparameter: ShortText = ""
    checkpoint: ShortText | None = None
    scoring: ShortText | None = None
    score: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    metrics: dict[str, MetricResult] = {}
    against_base: Difference | None = None
    """Against the untouched base on the same data."""
    against_next: Difference | None = None
    """Against the next in the ranking."""


class Best(Wire):
    job: ShortText
    checkpoint: ShortText | None = None
    score: float
    base_score: float | None = None
    why: LongText
    """One or two sentences that name the figures."""


class JobFailure(Wire):
    list_key: ClassVar[tuple[str, ...]] = ("job",)

    job: ShortText
    phase: JobPhase
    reason: ShortText = ""
    message: LongText = ""
    log_tail: LongText | None = None


class JobsSummary(Wire):
    summary: ShortText = "0/0"
    """Ended jobs of all jobs."""
    total: int = 0
    pending: int = 0
    running: int = 0
    suspended: int = 0
    succeeded: int = 0
    failed: int = 0
    stopped: int = 0


class FinetuneExperimentStatus(Status):
    phase: ExperimentPhase = ExperimentPhase.PENDING
    reason: ShortText | None = None
    message: LongText | None = None
    metric: ShortText | None = None
    """The metric that ranks."""
    jobs: JobsSummary = JobsSummary()
    ranking: Annotated[list[Ranked], Field(max_length=2000)] = []
    best: Best | None = None
    failures: Annotated[list[JobFailure], Field(max_length=1000)] = []
    started_at: ShortText | None = None
    finished_at: ShortText | None = None


class FinetuneExperiment(Resource):
    """Many jobs, one verdict."""

    kind_name: ClassVar[str] = "FinetuneExperiment"
    kind: Literal["FinetuneExperiment"] = "FinetuneExperiment"
    spec: FinetuneExperimentSpec
    status: FinetuneExperimentStatus = FinetuneExperimentStatus()
