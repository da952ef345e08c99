"""What a training is told: one model is the Hyperparameter's YAML, its CRD and the trainer's input.

A group may leave anything out (`ParameterOverrides`): what is left out comes from the group it extends,
and in the end from the defaults of `TrainingParameters`. The CRD therefore states a default in words only;
a default stored at write would hide what the group meant to inherit.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, get_args

from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from datatunerx.resources.enums import (
    Method,
    Objective,
    Optimizer,
    Precision,
    Quantization,
    Scheduler,
    TooLong,
    TruncateSide,
    Untrainable,
)
from datatunerx.resources.wire import Name, Wire

ALL_LINEAR = "all-linear"


class Lora(Wire):
    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    """Rank of the update."""
    alpha: Annotated[float, Field(gt=0, le=4096)] = 16.0
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs that are zeroed in a training step."""
    targets: Annotated[list[Annotated[str, Field(max_length=128)]], Field(min_length=1, max_length=64)] = [
        ALL_LINEAR
    ]
    """Names of the linear layers that get an adapter (q_proj, v_proj, ...), or all-linear."""


class TrainingParameters(Wire):
    """Everything a training needs to know besides its model and data, each field with its default."""

    objective: Objective = Objective.SFT
    """What is learned: SFT trains on the assistant's turns."""
    method: Method = Method.LORA
    """Which weights are trained."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 2e-4
    """Peak learning rate."""
    scheduler: Scheduler = Scheduler.COSINE
    """How the learning rate falls after the warm-up."""
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.03
    """Share of the steps in which the learning rate rises from zero."""
    epochs: Annotated[float, Field(gt=0, le=10000)] = 3.0
    """Passes over the train split; not used when maxSteps is given."""
    max_steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Optimizer steps; wins over epochs."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 8
    """Rows per micro-batch of this job."""
    gradient_accumulation: Annotated[int, Field(ge=1, le=65536)] = 1
    """Micro-batches per optimizer step."""
    cutoff_length: Annotated[int, Field(ge=8, le=4_194_304)] = 1024
    """Longest row, in tokens."""
    too_long: TooLong = TooLong.TRUNCATE
    """What becomes of rows longer than cutoffLength; always counted. Split makes several rows of one."""
    truncate_side: TruncateSide = TruncateSide.RIGHT
    """Which end is cut off when tooLong is truncate: right loses the last answer's end, left the start."""
    untrainable: Untrainable = Untrainable.DROP
    """What becomes of rows without one trained token; always counted."""
    optimizer: Optimizer = Optimizer.ADAMW
    """What turns gradients into changes of the weights."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of AdamW's first moment; for SGD the momentum is 0."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of AdamW's second moment."""
    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-8
    """Added to the root of AdamW's second moment."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    """How strongly weights are pulled towards zero at each step."""
    max_grad_norm: Annotated[float, Field(ge=0, le=1_000_000)] = 1.0
    """The job's gradient is scaled down to this norm; 0 leaves it as it is."""
    lora: Lora = Lora()
    quantization: Quantization = Quantization.NONE
    """How the frozen base is held in memory (qlora)."""
    precision: Precision = Precision.AUTO
    """Number format of the frozen base: auto is float32 on a CPU, bfloat16 on a GPU that has it."""
    seed: Annotated[int, Field(ge=0, le=4_294_967_295)] = 42
    """Seeds the adapter's first weights, dropout and the order of rows."""
    save_every: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    """Steps between checkpoints; 0 saves ten times in the course of the job, and always at its end."""
    keep_checkpoints: Annotated[int, Field(ge=1, le=10000)] = 3
    """Checkpoints kept besides the best and those that an LLMCheckpoint pins."""
    eval_every: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    """Steps between losses on the validate split; 0 measures them at each checkpoint."""
    log_every: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Steps between metric points."""

    def no_checkpoint_before_end(self, steps: int) -> str | None:
        """What to tell a user whose settings write nothing before the last of so many steps."""
        if steps < 2 or not self.save_every or self.save_every < steps:
            return None
        return (
            f"saveEvery is {self.save_every} and the training takes about {steps} steps: nothing is saved "
            f"before its end, and a crash loses all of it; set saveEvery below {steps}, or 0 for ten of them"
        )

    def no_evaluation_before_end(self, steps: int) -> str | None:
        """What to tell a user who wants to stop early in so many steps, and measures only the last one."""
        name, every = ("evalEvery", self.eval_every) if self.eval_every else ("saveEvery", self.save_every)
        if steps < 2 or not every or every < steps:
            return None
        return (
            f"earlyStopping: {name} is {every} and the training takes about {steps} steps, so nothing is "
            f"measured before its end; set evalEvery below {steps}, or leave earlyStopping out"
        )


def _optional(model: type[Wire], name: str) -> type[Wire]:
    """The same fields, each of which may be left out; their help says what then holds."""
    fields: dict[str, Any] = {}
    for field_name, info in model.model_fields.items():
        annotation: Any = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, Wire):
            annotation = _optional(annotation, f"{annotation.__name__}Overrides")
        inner = [a for a in get_args(annotation) if a is not type(None)]
        if type(None) in get_args(annotation) and len(inner) == 1:
            annotation = inner[0]
        if info.metadata:
            annotation = Annotated[(annotation, *info.metadata)]
        fields[field_name] = (annotation | None, Field(default=None, description=_help(info)))
    made: type[Wire] = create_model(name, __base__=Wire, __doc__=model.__doc__, **fields)
    return made


def _help(info: FieldInfo) -> str | None:
    default = info.default
    if default is None or isinstance(default, Wire):
        return info.description
    shown = ", ".join(default) if isinstance(default, list) else str(default)
    return " ".join(part for part in (info.description, f"Default: {shown}.") if part)


ParameterOverrides = _optional(TrainingParameters, "ParameterOverrides")
"""Any part of `TrainingParameters`."""


class HyperparameterRef(Wire):
    ref: Name
    """The Hyperparameter object."""
    overrides: ParameterOverrides | None = None  # type: ignore[valid-type]
    """What this job sets differently."""


def merge(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Later layers win, field by field, down through nested groups; lists are replaced whole."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = merged.get(key)
            if isinstance(value, Mapping) and isinstance(below, Mapping):
                merged[key] = merge([below, value])
            else:
                merged[key] = value
    return merged


def resolve_parameters(layers: Iterable[Mapping[str, Any]]) -> TrainingParameters:
    """Whole parameters from layers of wire-named mappings, the most general first."""
    return TrainingParameters.model_validate(merge(layers))
