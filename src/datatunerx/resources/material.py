"""What an experiment is made of: base models, data, parameter groups, and the plugins that make data."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from datatunerx.resources.enums import DataFormat, PluginProvider, Split
from datatunerx.resources.training import ParameterOverrides
from datatunerx.resources.wire import LongText, Name, Resource, ShortText, Status, Uri, Wire

Tags = Annotated[list[ShortText], Field(max_length=64)]
UsedBy = Annotated[list[ShortText], Field(max_length=1000)]
"""Objects that need this one, as Kind/name."""


class SecretRef(Wire):
    name: Name


class Credentials(Wire):
    """How far files are read: with the values of a Secret of the same namespace, and from which endpoint."""

    secret_ref: SecretRef | None = None
    """For s3://: accessKeyId, secretAccessKey, perhaps sessionToken, region, endpoint. For others: token."""
    endpoint: Uri | None = None
    """URL of an S3-compatible store, or of a hub in place of the public one."""


class LLMSpec(Wire):
    source: Uri
    """Where the model is: hf://org/name@revision, modelscope://org/name@revision, s3://bucket/folder,
    file:///folder, pkg://module/file.gguf, or checkpoint://name for an LLMCheckpoint merged into its base."""
    credentials: Credentials | None = None
    template: LongText | None = None
    """A chat template (Jinja) in place of the tokenizer's own."""
    license: ShortText | None = None
    tags: Tags = []
    card: LongText | None = None
    """What a reader should know of the model, in Markdown."""


class LLMStatus(Status):
    run: ShortText | None = None
    """The Run that inspects it."""
    architecture: ShortText | None = None
    parameters: int | None = None
    """Number of weights."""
    context_length: int | None = None
    """Tokens the model can attend to."""
    cache_width: int | None = None
    """Numbers kept for each token of a conversation: layers x heads of keys and values x head width x 2."""
    bytes: int | None = None
    """Size of the weights on disk."""
    digest: ShortText | None = None
    local_uri: Uri | None = None
    """The local copy that trainings load."""
    template: LongText | None = None
    """The chat template found."""
    template_source: ShortText | None = None
    used_by: UsedBy = []


class LLM(Resource):
    """A base model."""

    kind_name: ClassVar[str] = "LLM"
    kind: Literal["LLM"] = "LLM"
    spec: LLMSpec
    status: LLMStatus = LLMStatus()


class Splits(Wire):
    train: Annotated[list[Uri], Field(max_length=1000)] = []
    """Files of the train split: paths, file://, upload://, pkg://, s3://, https://, hf://datasets/org/name/file,
    modelscope://datasets/org/name/file; patterns such as part-*.jsonl.gz. Without any, the rows are there to
    score by."""
    validate_: Annotated[list[Uri], Field(max_length=1000)] = Field(default=[], alias="validate")
    test: Annotated[list[Uri], Field(max_length=1000)] = []


class Subset(Wire):
    """Files that belong together, in one split at least."""

    list_key: ClassVar[tuple[str, ...]] = ("name",)

    name: ShortText = "default"
    splits: Splits


class Feature(Wire):
    list_key: ClassVar[tuple[str, ...]] = ("name",)

    name: Annotated[str, Field(max_length=64)]
    """The part of a row that the format knows: messages, instruction, output, prompt, completion, ..."""
    map_to: Annotated[str, Field(min_length=1, max_length=256)]
    """The column of the file that holds it."""


class AutoSplit(Wire):
    """Made from the train files where a split has no files of its own."""

    validate_: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.1, alias="validate")
    """Share of rows for validation."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of rows for the test."""
    seed: Annotated[int, Field(ge=0, le=4_294_967_295)] = 42
    group_by: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """A column (or a.b inside one): rows in which it is the same go to one split, as one customer's."""
    stratify_by: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """A column (or a.b inside one) of which each value gives the same share of its rows to each split."""


class DataPluginUse(Wire):
    ref: Name
    parameters: dict[str, Any] = {}


class DatasetSpec(Wire):
    languages: Tags = []
    tags: Tags = []
    license: ShortText | None = None
    task: ShortText | None = None
    subtasks: Tags = []
    subsets: Annotated[list[Subset], Field(min_length=1, max_length=64)]
    format: DataFormat = DataFormat.AUTO
    """How a row is written; auto recognises it."""
    features: Annotated[list[Feature], Field(max_length=64)] = []
    """Columns under other names than the format's own."""
    split: AutoSplit = AutoSplit()
    llm: Name | None = None
    """A base model whose tokenizer counts the tokens in the report; each training counts its own anyway."""
    plugin: DataPluginUse | None = None
    credentials: Credentials | None = None
    unpack: bool = False
    """Take archives (.zip, .tar, ...) for the files in them; without it they are refused."""


class Dropped(Wire):
    """Rows left out for one reason, with the first places where it happened."""

    list_key: ClassVar[tuple[str, ...]] = ("reason",)

    reason: ShortText
    count: int
    where: Annotated[list[ShortText], Field(max_length=20)] = []
    """file:line of the first of them."""


class Tokens(Wire):
    rows: int = 0
    """Rows that training gets: those kept, or more where long ones are split."""
    p50: int
    p95: int
    max: int
    total: int
    trained: int
    """Tokens that carry loss."""
    turns: int = 0
    """Assistant turns that carry loss."""
    turns_ended: int = 0
    """Those of them whose end-of-turn token carries loss, too; the others were cut off before it."""


class Bin(Wire):
    up_to: int
    """Longest row in it, in tokens; half of this is in the bin before."""
    rows: int


class Language(Wire):
    list_key: ClassVar[tuple[str, ...]] = ("name",)

    name: Annotated[str, Field(max_length=16)]
    """ISO 639-1, or und for what cannot be told."""
    rows: int


class Overlap(Wire):
    """Rows that say the same as others."""

    duplicates: int = 0
    """Rows that repeat an earlier one exactly, in whichever split."""
    held_out: int = 0
    """Rows of the validate and test splits, where there is a train split."""
    leaked: int = 0
    """Held-out rows that are in the train split, too, exactly."""
    near: int = 0
    """Held-out rows that are nearly the same as one of the train split."""
    compared: int = 0
    """Held-out rows that near ones were looked for of; the first ones where there are very many."""
    where: Annotated[list[ShortText], Field(max_length=20)] = []
    """The first near ones: held-out file:line ~ train file:line."""


class DataReport(Wire):
    """What was found in the data: every row read is kept, or dropped for a stated reason."""

    format: ShortText = ""
    read: int = 0
    kept: int = 0
    dropped: int = 0
    truncated: int = 0
    split: int = 0
    """Rows that were split into several, being too long."""
    cut_tokens: int = 0
    """Tokens that truncated and split rows lost."""
    reasons: Annotated[list[Dropped], Field(max_length=64)] = []
    splits: dict[str, int] = {}
    """Rows kept per split."""
    tokens: Tokens | None = None
    histogram: Annotated[list[Bin], Field(max_length=64)] = []
    """Rows by length in tokens."""
    languages: Annotated[list[Language], Field(max_length=64)] = []
    """Rows per language in a sample of at most 1000 rows."""
    overlap: Overlap | None = None
    warnings: Annotated[list[ShortText], Field(max_length=16)] = []
    """What keeps nobody from training, and should be known before."""


class MadeData(Wire):
    """What a data plugin has made: a version of the dataset, which then is inspected like any other."""

    run: ShortText
    """The Run that made it and holds its files."""
    digest: ShortText
    """SHA-256 over the content of its files."""
    rows: int
    splits: dict[Split, Annotated[list[Uri], Field(max_length=16)]]
    left_out: Annotated[list[Dropped], Field(max_length=64)] = []
    """What became no row, by the plugin's own reasons, with the first places."""


class DatasetStatus(Status):
    run: ShortText | None = None
    made: MadeData | None = None
    """Of a Dataset with a plugin: what the plugin made of its files."""
    digest: ShortText | None = None
    """SHA-256 over the content of all files."""
    report: DataReport | None = None
    report_uri: Uri | None = None
    used_by: UsedBy = []


class Dataset(Resource):
    """Named data."""

    kind_name: ClassVar[str] = "Dataset"
    kind: Literal["Dataset"] = "Dataset"
    spec: DatasetSpec
    status: DatasetStatus = DatasetStatus()


class HyperparameterSpec(ParameterOverrides):  # type: ignore[valid-type,misc]
    extends: Name | None = None
    """Another group, which says what this one leaves out."""


class HyperparameterStatus(Status):
    used_by: UsedBy = []


class Hyperparameter(Resource):
    """A parameter group."""

    kind_name: ClassVar[str] = "Hyperparameter"
    kind: Literal["Hyperparameter"] = "Hyperparameter"
    spec: HyperparameterSpec = HyperparameterSpec()
    status: HyperparameterStatus = HyperparameterStatus()


class PluginLimits(Wire):
    """What one call may take; beyond it the call is ended and fails."""

    timeout_seconds: Annotated[float, Field(gt=0, le=604_800)] = 3600
    memory_bytes: Annotated[int, Field(ge=64 << 20, le=1 << 46)] = 2 << 30
    """Memory of its process, where the system can limit it (Linux)."""


class PluginSpec(Wire):
    provider: PluginProvider = PluginProvider.ENTRY_POINT
    """How the plugin is called."""
    entry_point: ShortText | None = None
    """For provider entry-point: the name that an installed package offers, or module:function."""
    command: Annotated[list[ShortText], Field(max_length=64)] = []
    """The program and its arguments, for provider command."""
    version: ShortText | None = None
    parameters: dict[str, Any] = {}
    """Given to every call."""
    parameter_schema: dict[str, Any] = {}
    """JSON Schema of the parameters, beside the plugin's own."""
    limits: PluginLimits = PluginLimits()


class PluginStatus(Status):
    run: ShortText | None = None
    """The Run that loaded it to see what it is."""
    version: ShortText | None = None
    """The version found."""
    package: ShortText | None = None
    """The package it comes from."""
    summary: LongText | None = None
    parameter_schema: dict[str, Any] | None = None
    """JSON Schema of its parameters, as the plugin itself has it."""
    used_by: UsedBy = []


class DataPlugin(Resource):
    """An extension that makes data."""

    kind_name: ClassVar[str] = "DataPlugin"
    kind: Literal["DataPlugin"] = "DataPlugin"
    spec: PluginSpec
    status: PluginStatus = PluginStatus()
