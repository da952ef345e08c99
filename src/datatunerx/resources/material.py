"""What an experiment is made of: base models, data, parameter groups, and the plugins that make data."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from datatunerx.resources.enums import DataFormat, PluginProvider
from datatunerx.resources.training import ParameterOverrides
from datatunerx.resources.wire import LongText, Name, Resource, ShortText, Status, Uri, Wire

Tags = Annotated[list[ShortText], Field(max_length=64)]
UsedBy = Annotated[list[ShortText], Field(max_length=1000)]
"""Objects that need this one, as Kind/name."""


class LLMSpec(Wire):
    source: Uri
    """Where the model is: hf://org/name@revision, file:///folder, or pkg://module/file.gguf."""
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
    train: Annotated[list[Uri], Field(min_length=1, max_length=1000)]
    """Files of the train split."""
    validate_: Annotated[list[Uri], Field(max_length=1000)] = Field(default=[], alias="validate")
    test: Annotated[list[Uri], Field(max_length=1000)] = []


class Subset(Wire):
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


class DataPluginUse(Wire):
    ref: Name
    parameters: dict[str, Any] = {}


class SecretRef(Wire):
    name: Name


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
    secret_ref: SecretRef | None = None


class Dropped(Wire):
    """Rows left out for one reason, with the first places where it happened."""

    list_key: ClassVar[tuple[str, ...]] = ("reason",)

    reason: ShortText
    count: int
    where: Annotated[list[ShortText], Field(max_length=20)] = []
    """file:line of the first of them."""


class Tokens(Wire):
    p50: int
    p95: int
    max: int
    total: int
    trained: int
    """Tokens that carry loss."""


class DataReport(Wire):
    """What was found in the data: every row read is kept, or dropped for a stated reason."""

    format: ShortText = ""
    read: int = 0
    kept: int = 0
    dropped: int = 0
    truncated: int = 0
    reasons: Annotated[list[Dropped], Field(max_length=64)] = []
    splits: dict[str, int] = {}
    """Rows kept per split."""
    tokens: Tokens | None = None


class DatasetStatus(Status):
    run: ShortText | None = None
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


class PluginSpec(Wire):
    provider: PluginProvider = PluginProvider.ENTRY_POINT
    """How the plugin is called."""
    entry_point: ShortText | None = None
    """module:function, for provider entry-point."""
    command: Annotated[list[ShortText], Field(max_length=64)] = []
    """The program and its arguments, for provider command."""
    version: ShortText | None = None
    parameters: dict[str, Any] = {}
    """Given to every call."""
    parameter_schema: dict[str, Any] = {}
    """JSON Schema of the parameters a call may give."""


class PluginStatus(Status):
    version: ShortText | None = None
    """The version found."""


class DataPlugin(Resource):
    """An extension that makes data."""

    kind_name: ClassVar[str] = "DataPlugin"
    kind: Literal["DataPlugin"] = "DataPlugin"
    spec: PluginSpec
    status: PluginStatus = PluginStatus()
