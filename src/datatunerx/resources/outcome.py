"""What comes of an experiment: runs, checkpoints, scores, services."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from datatunerx.resources.enums import Engine, RunPhase, RunType, ScoringPhase, ServicePhase
from datatunerx.resources.experiment import Difference, MetricResult
from datatunerx.resources.export import Exports, ExportStatuses, Origin, Rerun
from datatunerx.resources.finetune import Endpoint, Measure, Resources
from datatunerx.resources.material import PluginSpec, PluginStatus
from datatunerx.resources.wire import LongText, Name, Resource, ShortText, Status, Uri, Wire


class ModelRef(Wire):
    """A base model, or a checkpoint of one."""

    list_key: ClassVar[tuple[str, ...]] = ("kind", "name")

    kind: Literal["LLM", "LLMCheckpoint"] = "LLMCheckpoint"
    name: Name


class ScoringSpec(Wire):
    model: ModelRef | None = None
    """What is scored; or name a service."""
    service: Endpoint | None = None
    """A model that is asked by its URL, in place of one of ours."""
    dataset: Name | None = None
    """Whose split is asked; without one, only measure.questions are."""
    measure: Measure = Measure()
    compare_with: Annotated[list[Name], Field(max_length=64)] = []
    """Other Scorings, with which this one is compared row by row; may be added later."""
    run: Name | None = None
    """A Run that has measured this model already; without it the model gets a Run of its own."""


class ScoringStatus(Status):
    phase: ScoringPhase = ScoringPhase.PENDING
    reason: ShortText | None = None
    message: LongText | None = None
    retried_for: ShortText | None = None
    """The last value seen of the annotation datatunerx.io/retry; after a failure another tries it again."""
    run: ShortText | None = None
    metric: ShortText | None = None
    """The metric that ranks."""
    score: float | None = None
    low: float | None = None
    high: float | None = None
    metrics: dict[str, MetricResult] = {}
    comparisons: Annotated[list[Difference], Field(max_length=64)] = []
    predictions_uri: Uri | None = None


class Scoring(Resource):
    """One evaluation of one model."""

    kind_name: ClassVar[str] = "Scoring"
    kind: Literal["Scoring"] = "Scoring"
    spec: ScoringSpec
    status: ScoringStatus = ScoringStatus()


class ScoringPlugin(Resource):
    """An extension that scores answers."""

    kind_name: ClassVar[str] = "ScoringPlugin"
    kind: Literal["ScoringPlugin"] = "ScoringPlugin"
    spec: PluginSpec
    status: PluginStatus = PluginStatus()


class LLMCheckpointSpec(Wire):
    """Snapshots and digests of what made it, written once; and what is wanted of it."""

    finetune: Name
    llm: Name
    dataset: Name
    base_digest: ShortText = ""
    base_uri: Uri | None = None
    data_digest: ShortText = ""
    parameters_json: LongText = ""
    """The resolved parameters, as JSON."""
    uri: Uri
    """Folder of the adapter in PEFT's format."""
    step: int
    bytes: int = 0
    manifest_digest: ShortText = ""
    pinned: bool = False
    """Never removed by its training's retention, and kept on disk when this object or its Finetune goes."""
    parent: Name | None = None
    """The checkpoint whose merged copy is its base, or that its training began from."""
    origin: Origin | None = None
    exports: Exports = []
    rerun: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Another number has it trained again from its record, to see whether the same bytes come of it."""


class LLMCheckpointStatus(Status):
    metric: ShortText | None = None
    score: float | None = None
    size: ShortText | None = None
    """Of its files, for people."""
    exports: ExportStatuses = []
    rerun: Rerun | None = None
    used_by: Annotated[list[ShortText], Field(max_length=1000)] = []


class LLMCheckpoint(Resource):
    """A fine-tuned model."""

    kind_name: ClassVar[str] = "LLMCheckpoint"
    kind: Literal["LLMCheckpoint"] = "LLMCheckpoint"
    spec: LLMCheckpointSpec
    status: LLMCheckpointStatus = LLMCheckpointStatus()


class InferenceServiceSpec(Wire):
    models: Annotated[list[ModelRef], Field(min_length=1, max_length=64)]
    """Those that share a base share one process."""
    engine: Engine = Engine.TRANSFORMERS
    replicas: Annotated[int, Field(le=1_000_000)] = 1
    """Whether the models are served: each base by one process, however many are asked for; 0 unloads them.
    `kubectl scale` sets it."""
    idle_seconds: Annotated[float, Field(ge=0)] = 600.0
    """Unloaded after so long without a request, and loaded again by the next one; 0 is never."""
    priority: int = 0
    """Against trainings and other services that wait for its device."""
    resources: Resources = Resources()


class ServedModelStatus(Wire):
    """How one model of a service stands."""

    list_key: ClassVar[tuple[str, ...]] = ("kind", "name")

    kind: Literal["LLM", "LLMCheckpoint"]
    name: Name
    ready: bool = False
    reason: ShortText | None = None
    message: LongText | None = None
    """What it waits for, or what is wrong with it."""
    run: ShortText | None = None
    """The Run that serves it, or is to."""
    base_digest: ShortText = ""
    adapter_digest: ShortText = ""


class InferenceServiceStatus(Status):
    phase: ServicePhase = ServicePhase.PENDING
    reason: ShortText | None = None
    message: LongText | None = None
    url: Uri | None = None
    """Path of its OpenAI-shaped endpoint on the API server; the same whatever process serves it."""
    models: Annotated[list[ServedModelStatus], Field(max_length=64)] = []
    models_ready: int = 0
    replicas: int = 0
    """1 while all that can be served is; `kubectl scale` reads it."""
    loaded_generation: int = 0
    """Generation of the spec that was last loaded: another one is loaded without being asked for."""


class InferenceService(Resource):
    """Models being served."""

    kind_name: ClassVar[str] = "InferenceService"
    kind: Literal["InferenceService"] = "InferenceService"
    spec: InferenceServiceSpec
    status: InferenceServiceStatus = InferenceServiceStatus()


class RunSpec(Wire):
    type: RunType
    plan_id: ShortText
    plan_uri: Uri
    serves: Annotated[list[ShortText], Field(max_length=1000)] = []
    """The objects it works for, as Kind/name."""
    attempts: dict[str, int] = {}
    """Of a tune run: which attempt of each Finetune it is, by the Finetune's name. Of a serve run: how often
    its service has loaded this base, by InferenceService/name/digest."""
    accelerators: Annotated[int, Field(ge=0, le=64)] = 0
    priority: int = 0
    memory_bytes: Annotated[int, Field(ge=0)] = 0
    """About what it takes of its device; 0 is all of it. Serve runs that fit beside each other share one."""
    secrets: Annotated[list[Name], Field(max_length=64)] = []
    """Secrets whose values its worker is given when it starts."""
    stop: bool = False
    """True ends the run: signal, grace, kill."""


class RunStatus(Status):
    phase: RunPhase = RunPhase.PENDING
    reason: ShortText | None = None
    message: LongText | None = None
    exit_code: int | None = None
    """Of the worker process; negative is the signal that ended it."""
    position: int | None = None
    """Place in the queue while it waits, 1 is next."""
    devices: Annotated[list[ShortText], Field(max_length=64)] = []
    """What it runs on: numbers of GPUs, or cpu. Empty for what only reads, and needs none."""
    last_heartbeat: ShortText | None = None
    log_uri: Uri | None = None
    previous_log_uri: Uri | None = None
    """Of the attempt before this one, for `kubectl logs --previous`."""
    started_at: ShortText | None = None
    finished_at: ShortText | None = None


class Run(Resource):
    """What one worker executes."""

    kind_name: ClassVar[str] = "Run"
    kind: Literal["Run"] = "Run"
    spec: RunSpec
    status: RunStatus = RunStatus()
