"""The plan: everything a worker needs, resolved. The worker reads it and looks nothing up.

A plan's id is the digest of its content, so compiling the same objects again gives the same plan,
the same folder and the same Run.
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from datatunerx.resources.enums import (
    DataFormat,
    Engine,
    ExportFormat,
    ExportType,
    Metric,
    Precision,
    RunType,
    Split,
)
from datatunerx.resources.finetune import Endpoint, GenerationSettings, Judge, MetricOptions, Question
from datatunerx.resources.material import AutoSplit, PluginLimits
from datatunerx.resources.training import TrainingParameters
from datatunerx.resources.wire import LongText, Name, Uri, Wire

PLAN_VERSION: Literal[1] = 1


class ModelFiles(Wire):
    """A base model that was inspected."""

    name: Name
    uri: Uri
    """Folder with config, safetensors and tokenizer."""
    digest: str
    template: LongText | None = None
    """The chat template to use; None is the tokenizer's own."""


class Access(Wire):
    """How far files are read. The values of the Secret are never in a plan: a worker gets them at start."""

    secret: Name | None = None
    endpoint: Uri | None = None


class DataFiles(Wire):
    """A dataset: which files make which split, and how a row is written."""

    name: Name
    splits: dict[Split, list[Uri]]
    format: DataFormat = DataFormat.AUTO
    features: dict[str, str] = {}
    """Our name of a part of a row -> the file's column."""
    auto_split: AutoSplit = AutoSplit()
    digest: str = ""
    """What the files were when they were inspected; the worker refuses others."""
    copies: dict[Uri, Uri] = {}
    """Where the bytes of a file lie, if not at its own URI."""
    rows: dict[Split, int] = {}
    """About how many rows each split has, as they were inspected: to say how long reading them takes."""
    unpack: bool = False
    """Whether archives are taken for the files in them."""
    access: Access | None = None


class PluginCall(Wire):
    """Which plugin is loaded, and within which limits."""

    name: Name
    """Of the DataPlugin or ScoringPlugin."""
    group: str
    """The group of entry points in which it is looked for."""
    entry_point: str = ""
    """The name that a package offers, or module:function."""
    command: list[str] = []
    """In place of it a program with its arguments."""
    limits: PluginLimits = PluginLimits()


class ScorerPlan(Wire):
    """A ScoringPlugin as it is called."""

    plugin: PluginCall
    version: str | None = None
    """As it was inspected: another one may find other scores."""
    parameters: dict[str, Any] = {}
    """The plugin's own, with those of this use over them; the schema has been checked."""


class MeasurePlan(Wire):
    """How answers are made and scored; the same for every model it is used on."""

    data: Name | None = None
    """One of the plan's datasets; None asks the questions alone."""
    split: Split = Split.TEST
    questions: list[Question] = []
    metrics: list[Metric]
    metric_options: dict[Metric, MetricOptions] = {}
    judge: Judge | None = None
    plugins: list[ScorerPlan] = []
    generation: GenerationSettings = GenerationSettings()
    limit: int | None = None

    def key(self) -> str:
        """Names the measure: two models scored under one key can be compared."""
        return digest_of(self.dump())[:16]


class EarlyStop(Wire):
    """When a training ends before its last step."""

    patience: int
    """Evaluations in a row without a better value."""
    min_delta: float = 0.0
    score: MeasurePlan | None = None
    """How answers to validate rows are made and scored, by its one metric; None looks at the loss."""


class TuneJob(Wire):
    """One Finetune of a run."""

    name: Name
    namespace: str
    uid: str
    attempt: int = 0
    parameters: TrainingParameters
    data: Name
    """One of the plan's datasets."""
    output_uri: Uri
    """Folder of this Finetune's checkpoints, the same for every attempt: what is whole there is resumed."""
    start_from_uri: Uri | None = None
    """An adapter to start from when there is nothing to resume."""
    samples: list[LongText] = []
    sample_system_prompt: LongText | None = None
    measure: MeasurePlan | None = None
    early_stop: EarlyStop | None = None


class TunePlan(Wire):
    model: ModelFiles
    data: Annotated[list[DataFiles], Field(min_length=1)]
    jobs: Annotated[list[TuneJob], Field(min_length=1)]
    baselines: list[MeasurePlan] = []
    """How the untouched base is scored in this run."""


class AdapterFiles(Wire):
    """A checkpoint's adapter and the base it was made for."""

    model: ModelFiles
    uri: Uri
    digest: str = ""
    """SHA-256 of its manifest. Other bytes are not taken."""


class InspectModelPlan(Wire):
    source: Uri
    merge: AdapterFiles | None = None
    """The model is this adapter added into its base; `source` only names it."""
    access: Access | None = None
    template: LongText | None = None


class InspectDataPlan(Wire):
    data: DataFiles
    model: ModelFiles | None = None
    """Whose tokenizer counts the tokens, if any."""


class InspectPluginPlan(Wire):
    plugin: PluginCall


class MakeDataPlan(Wire):
    """A data plugin makes rows of a dataset's files."""

    data: DataFiles
    plugin: PluginCall
    version: str | None = None
    """The plugin's version as it was inspected: another one makes other data."""
    parameters: dict[str, Any] = {}


class ScorePlan(Wire):
    model: ModelFiles | None = None
    service: Endpoint | None = None
    """Asked in place of a model. The key is never in a plan: a worker gets it at its start."""
    adapter_uri: Uri | None = None
    """None scores the untouched base."""
    data: DataFiles | None = None
    measure: MeasurePlan
    precision: Precision = Precision.AUTO
    """What the base is loaded in: an adapter is scored in the precision it was trained in."""
    predictions_uri: Uri | None = None
    """Answers that this very model has given to these very questions already: only the metrics are missing.
    A shortcut to the same result, so it is not part of the plan's id."""


class ServedModel(Wire):
    """One name that clients can ask for: the base, or one adapter over it."""

    name: Name
    adapter_uri: Uri | None = None
    """Folder of the adapter; None is the untouched base."""
    adapter_digest: str = ""
    """SHA-256 of the adapter's manifest. Other bytes are not served."""
    base_digest: str = ""
    """Digest of the base that the adapter was made for; another base's is not served."""
    template: LongText | None = None
    """Jinja text or the name of a built-in template; None is the one beside the adapter, or the base's."""


class ServedModels(Wire):
    """`<run folder>/models.json`, if it is there, says what is served in place of the plan's own list.

    It is replaced as a whole and looked at again when it changes, so models come and go without a restart.
    """

    models: Annotated[list[ServedModel], Field(max_length=1000)]


class ServePlan(Wire):
    """Base and adapters behind one endpoint on loopback. The run goes on until it is idle or told to stop."""

    model: ModelFiles
    precision: Precision = Precision.AUTO
    engine: Engine = Engine.TRANSFORMERS
    models: Annotated[list[ServedModel], Field(max_length=1000)] = []
    """What is served at first. Not part of the plan's id: see `ServedModels`."""
    max_rows: Annotated[int, Field(ge=1, le=1024)] = 64
    """Answers that are generated at the same time; further ones wait."""
    max_tokens: Annotated[int, Field(ge=256)] = 32_768
    """Tokens that the cache of keys and values has room for."""
    max_waiting: Annotated[int, Field(ge=0)] = 1024
    """Requests that may wait for a row; further ones are told to come back later."""
    idle_seconds: Annotated[float, Field(gt=0)] | None = 600.0
    """After so long without a request the run ends well; None goes on for ever."""


class CardFact(Wire):
    """One line of a model card's table."""

    name: str
    value: str


class ExportPlan(Wire):
    """A checkpoint in another form, checked, at another place."""

    checkpoint: Name
    adapter: AdapterFiles
    to: ExportFormat
    type: ExportType
    target_uri: Uri
    """A folder that is not there yet, or oci://registry/repository:tag."""
    layout: bool = False
    """Whether the folder becomes an OCI image layout."""
    work_uri: Uri
    """Folder in which the export is made, beside its target so that it can be renamed."""
    plain_http: bool = False
    access: Access | None = None
    data: DataFiles | None = None
    """Whose test questions are asked to check it."""
    base_source: str = ""
    license: str = ""
    facts: list[CardFact] = []
    """What the model card tells: lineage, data, scores."""
    parameters: dict[str, Any] = {}


class RunPlan(Wire):
    """`<run folder>/plan.json`. Exactly the part that `type` needs is there."""

    version: Literal[1] = PLAN_VERSION
    id: str = ""
    type: RunType
    models_uri: Uri
    """The model store: converted and downloaded base models, by digest."""
    cache_uri: Uri
    """Tokenised data and measured device facts, shared by all runs."""
    fetched_uri: Uri
    """Copies of far and of packed data files, shared by all runs."""
    uploads_uri: Uri
    """What was uploaded: `upload://namespace/id/file` lies below it."""
    private_uri: Uri | None = None
    """Folder whose files no file:// source may be, but for the uploads: the server's keys lie there."""
    allowed_uris: list[Uri] | None = None
    """Folders that file:// sources must lie in, over links too; None is the whole machine, which is its
    owner's to give. Not part of the id, as private_uri is not."""
    output_uri: Uri
    """Folder of this plan: events, result, log, commands, predictions."""
    tune: TunePlan | None = None
    inspect_model: InspectModelPlan | None = None
    inspect_data: InspectDataPlan | None = None
    inspect_plugin: InspectPluginPlan | None = None
    make_data: MakeDataPlan | None = None
    score: ScorePlan | None = None
    serve: ServePlan | None = None
    export: ExportPlan | None = None

    @model_validator(mode="after")
    def _one_part(self) -> Self:
        parts = {name for name in type(self).model_fields if isinstance(getattr(self, name), Wire)}
        if len(parts) != 1:
            raise ValueError(f"a plan has exactly one part that says what to do, not {sorted(parts)}")
        return self


def identified(type: RunType, root_uri: str, content: dict[str, Wire], salt: str = "") -> RunPlan:
    """The plan with its id and folders under `root_uri`; `salt` tells two attempts apart."""
    plan_id = digest_of({"type": type, "salt": salt, **{k: v.dump() for k, v in content.items()}})[:20]
    return RunPlan(
        id=plan_id,
        type=type,
        models_uri=f"{root_uri}/models",
        cache_uri=f"{root_uri}/cache",
        fetched_uri=f"{root_uri}/fetched",
        uploads_uri=f"{root_uri}/uploads",
        output_uri=f"{root_uri}/runs/{plan_id}",
        **content,  # type: ignore[arg-type]
    )


def digest_of(document: Any) -> str:
    """SHA-256 of the document as canonical JSON, in hex."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
