"""One training (Finetune), and one training with its score (FinetuneJob)."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from datatunerx.resources.enums import (
    BleuTokenizer,
    ChineseUnit,
    FinetunePhase,
    JobPhase,
    Metric,
    Split,
    StopMode,
    StoppingMeasure,
)
from datatunerx.resources.material import DataReport
from datatunerx.resources.training import HyperparameterRef
from datatunerx.resources.wire import LongText, Name, Resource, ShortText, Status, Uri, Wire

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$", max_length=32)]


class Resources(Wire):
    """What one worker of the training asks for."""

    accelerators: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs; 0 takes one if there is one, else the CPU."""
    memory: Quantity | None = None
    """Host memory, as 8Gi."""


class EnvVar(Wire):
    list_key: ClassVar[tuple[str, ...]] = ("name",)

    name: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    value: Annotated[str, Field(max_length=4096)] = ""


class EarlyStopping(Wire):
    """A training that gets no better ends, and its best checkpoint, not its last, is what it has made."""

    patience: Annotated[int, Field(ge=1, le=10000)] = 3
    """Evaluations in a row without a better value before a training ends; its best checkpoint is kept."""
    min_delta: Annotated[float, Field(ge=0, le=1_000_000)] = 0.0
    """By how much a value must be better than the best before it to count as better."""
    measure: StoppingMeasure = StoppingMeasure.LOSS
    """loss: on the validate split. score: what ranks, of the answers to its first rows, made on the way."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 32
    """score: how many rows of the validate split are answered at each evaluation."""


class FinetuneSpec(Wire):
    llm: Name
    """The LLM object to start from."""
    dataset: Name
    """The Dataset object to learn from."""
    hyperparameter: HyperparameterRef
    workers: Annotated[int, Field(le=1_000_000)] = 1
    """Processes that train together."""
    resources: Resources = Resources()
    node_selector: dict[str, Annotated[str, Field(max_length=256)]] | None = None
    """On a cluster: labels a node must have."""
    env: Annotated[list[EnvVar], Field(max_length=256)] = []
    """Environment of the worker, on a cluster."""
    resume_from: Name | None = None
    """An LLMCheckpoint whose adapter this training starts from."""
    samples: Annotated[list[LongText], Field(max_length=32)] = []
    """Prompts answered at step 0 and at each checkpoint."""
    sample_system_prompt: LongText | None = None
    """What stands before each of the samples as the system's turn."""
    early_stopping: EarlyStopping | None = None
    """Ends the training when it gets no better, and keeps its best checkpoint."""
    retry_limit: Annotated[int, Field(ge=0, le=100)] = 1
    """How often a training whose worker died is taken up again from its last whole checkpoint.

    One that shared its Run is taken up again at least once, alone: the death may not have been its own.
    """
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    """Higher goes first."""
    suspend: bool = False
    """True saves a checkpoint and lets go of the device; false takes up again from there."""
    stop: StopMode | None = None
    """Ends the training for good, with a last checkpoint (keep) or without (discard)."""


class Progress(Wire):
    step: int = 0
    steps: int = 0
    """Optimizer steps in all."""
    epoch: float = 0.0
    tokens: int = 0
    """Real tokens trained on so far."""
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    activity: ShortText | None = None
    """What the worker is doing: loading the base, tokenising, training, scoring."""


class CheckpointRef(Wire):
    list_key: ClassVar[tuple[str, ...]] = ("step",)

    step: int
    uri: Uri
    digest: ShortText
    """SHA-256 of the manifest."""
    bytes: int = 0
    eval_loss: float | None = None
    score: float | None = None
    """Of answers to validate rows, where early stopping looks at them."""


class Sample(Wire):
    step: int
    prompt: LongText
    answer: LongText


class FinetuneStatus(Status):
    phase: FinetunePhase = FinetunePhase.PENDING
    reason: ShortText | None = None
    """Why the phase is what it is, in one word."""
    message: LongText | None = None
    run: ShortText | None = None
    """The Run that carries this training."""
    attempt: int = 0
    """How often it was taken up again, for whatever reason."""
    retries: int = 0
    """How often it was taken up again because its worker died."""
    retried_for: ShortText | None = None
    """The last value seen of the annotation datatunerx.io/retry; after a failure another tries it again."""
    expected_start: ShortText | None = None
    """When it can start at the earliest, to the minute; absent where what runs before it does not tell."""
    alone: bool = False
    """Its worker died while it carried others too: from now on it has its Runs to itself."""
    progress: Progress = Progress()
    metrics: dict[str, float] = {}
    """The latest point: loss, evalLoss, evalScore, learningRate, gradNorm."""
    data: DataReport | None = None
    """What the tokeniser kept, dropped and truncated."""
    checkpoints: Annotated[list[CheckpointRef], Field(max_length=1000)] = []
    samples: Annotated[list[Sample], Field(max_length=256)] = []
    log_tail: LongText | None = None
    """Last lines of the log, when it failed."""
    started_at: ShortText | None = None
    finished_at: ShortText | None = None


class Finetune(Resource):
    """One training."""

    kind_name: ClassVar[str] = "Finetune"
    kind: Literal["Finetune"] = "Finetune"
    spec: FinetuneSpec
    status: FinetuneStatus = FinetuneStatus()


class GenerationSettings(Wire):
    """How answers are made; the same for every model that is compared."""

    max_new_tokens: Annotated[int, Field(ge=1, le=131072)] = 128
    """Longest answer, in tokens."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    """0 always takes the likeliest token."""
    seed: Annotated[int, Field(ge=0, le=4_294_967_295)] = 0
    """Of the draws, where the temperature is not 0."""


class Question(Wire):
    question: LongText
    answer: LongText | None = None
    """The reference; without it the answer is shown and not scored."""


class MetricOptions(Wire):
    """How one metric is measured; each option belongs to the metrics that OPTIONS_OF names."""

    field: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """accuracy, precision, recall, f1: the field of JSON answers that is the label."""
    tokenizer: BleuTokenizer | None = None
    """bleu: how text becomes words; without it by the references' language."""
    chinese: ChineseUnit | None = None
    """rouge-1, rouge-2, rouge-l: what is counted in Chinese text; characters unless words are asked for."""


OPTIONS_OF: dict[str, tuple[Metric, ...]] = {
    "field": (Metric.ACCURACY, Metric.PRECISION, Metric.RECALL, Metric.F1),
    "tokenizer": (Metric.BLEU,),
    "chinese": (Metric.ROUGE_1, Metric.ROUGE_2, Metric.ROUGE_L),
}
"""Option -> the metrics that have it."""


SCORED_ON_THE_WAY = tuple(m for m in Metric if m not in (Metric.PERPLEXITY, Metric.JUDGE))
"""Metrics that a model's answers alone give; of each, more is better."""


class SecretKeyRef(Wire):
    """One value of a Secret of the same namespace."""

    name: Name
    key: Annotated[str, Field(min_length=1, max_length=253)] = "token"


class Endpoint(Wire):
    """A model behind an OpenAI-shaped URL. Nobody is called whose URL is not written here."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$", max_length=2048)]
    """Up to the version, as https://host/v1; chat/completions is asked there."""
    model: ShortText
    secret_ref: SecretKeyRef | None = None
    """The key, sent as a bearer token; over http:// to this machine only."""
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """For one answer."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """How often a question that got no answer is asked again."""
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    """Questions that are under way at the same time."""
    body: dict[str, Any] = {}
    """Further fields of each request."""


class Judge(Endpoint):
    """A model that says how good each answer is: the metric `judge` is the mean of what it says."""

    prompt: LongText | None = None
    """What it is asked, with {question}, {reference} and {answer} in it. Its verdict is the last [[number]]
    it writes, or a JSON object with a field score. Without a prompt it gives a mark from low to high."""
    low: float = 1.0
    """Worst mark."""
    high: float = 10.0
    """Best mark. One outside is no verdict, and what is no verdict is missing."""


class ScoringPluginUse(Wire):
    """A ScoringPlugin with the parameters of this use, over its own."""

    list_key: ClassVar[tuple[str, ...]] = ("ref",)

    ref: Name
    parameters: dict[str, Any] = {}


class Measure(Wire):
    """By what all models of an experiment are scored."""

    split: Split = Split.TEST
    """Split of the training's own dataset, unless `dataset` names another."""
    dataset: Name | None = None
    """Another Dataset to score on, the same for every job."""
    questions: Annotated[list[Question], Field(max_length=1000)] = []
    """Own questions, asked besides the split's."""
    metrics: Annotated[list[Metric], Field(min_length=1, max_length=16)] = [Metric.EXACT_MATCH]
    """The first one ranks; the others are shown."""
    metric_options: Annotated[dict[Metric, MetricOptions], Field(max_length=16)] = {}
    """By metric: f1: {field: category}, bleu: {tokenizer: zh}."""
    judge: Judge | None = None
    """Who gives the marks of the metric judge."""
    plugins: Annotated[list[ScoringPluginUse], Field(max_length=16)] = []
    """ScoringPlugins, asked besides the metrics; what they find is called ref, or ref/name."""
    rank_by: ShortText | None = None
    """What ranks in place of the first metric: another metric, or a plugin's ref or ref/name."""
    generation: GenerationSettings = GenerationSettings()
    limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """At most this many rows of the split, the first ones."""

    @property
    def ranks(self) -> str:
        """Name of the metric that ranks."""
        return self.rank_by or self.metrics[0].value


class FinetuneJobSpec(Wire):
    finetune: FinetuneSpec
    scoring: Measure = Measure()
    serve: bool = False
    """Serve the checkpoint when the job has succeeded."""
    suspend: bool = False
    stop: StopMode | None = None


class FinetuneJobStatus(Status):
    phase: JobPhase = JobPhase.PENDING
    reason: ShortText | None = None
    message: LongText | None = None
    finetune: ShortText | None = None
    checkpoint: ShortText | None = None
    """The LLMCheckpoint it made."""
    scoring: ShortText | None = None
    """The Scoring that measured it."""
    retried_for: ShortText | None = None
    """The last value seen of the annotation datatunerx.io/retry; after a failure another tries it again."""
    metric: ShortText | None = None
    score: float | None = None
    """Absent as long as there is none; never 0 in place of it."""


class FinetuneJob(Resource):
    """One training, then its score."""

    kind_name: ClassVar[str] = "FinetuneJob"
    kind: Literal["FinetuneJob"] = "FinetuneJob"
    spec: FinetuneJobSpec
    status: FinetuneJobStatus = FinetuneJobStatus()
