"""Forms drawn from the models behind the CRDs: what is a field there is one here, with type, range and help.

Nothing is said of a field but its place, and when it cannot matter; a new field of a model appears by
itself, in the last group. Pure.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel

from datatunerx.console.words import CHINESE
from datatunerx.resources.experiment import FinetuneExperimentSpec
from datatunerx.resources.training import TrainingParameters
from datatunerx.runs.grid import Setting, put

Json = dict[str, Any]
Typed = Mapping[str, Sequence[str]]
"""What was typed or ticked, by key."""
Say = Any
"""Visit.say: a text of the catalogue in the visitor's language."""

BASIC = ("learningRate", "epochs", "batchSize", "cutoffLength", "lora.rank")
"""What a beginner sees first."""
OTHERS = "Other"
GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Length and batch", ("objective", "maxSteps", "gradientAccumulation")),
    ("Adapter", ("lora.",)),
    ("Learning rate", ("scheduler", "warmupRatio")),
    ("Optimizer", ("optimizer", "beta1", "beta2", "epsilon", "weightDecay", "maxGradNorm")),
    ("Rows", ("tooLong", "truncateSide", "untrainable")),
    ("Numbers and memory", ("precision", "quantization", "seed")),
    ("Checkpoints and evaluation", ("saveEvery", "keepCheckpoints", "evalEvery", "logEvery")),
    ("Scores", ("scoring.", "baseline")),
    ("Early stopping", ("earlyStopping.",)),
    ("Sample prompts", ("samples", "sampleSystemPrompt")),
    ("Device and queue", ("resources.", "retryLimit", "priority")),
    (OTHERS, ("",)),
)
ELSEWHERE = ("method", "jobs", "matrix", "suspend")
"""Fields that other steps and actions set."""


class Rule(NamedTuple):
    """Fields that begin with `prefix` matter only while `key` has one of `values`."""

    prefix: str
    key: str
    values: tuple[str, ...]


ONLY_WITH = (
    Rule("lora.", "method", ("lora", "qlora", "dora")),
    Rule("quantization", "method", ("qlora",)),
    Rule("beta1", "optimizer", ("adamw",)),
    Rule("beta2", "optimizer", ("adamw",)),
    Rule("epsilon", "optimizer", ("adamw",)),
    Rule("truncateSide", "tooLong", ("truncate",)),
)
NEEDS_GPU = {"quantization": ("int8", "int4"), "method": ("qlora",)}
"""Values that need hardware which is not everywhere."""


class Always(NamedTuple):
    """What people look for among the fields and cannot set: it is as it is. English, as in the catalogue."""

    group: str
    title: str
    text: str


ALWAYS = (
    Always(
        "Length and batch",
        "Packing",
        "Always on: the rows of a step lie end to end without padding, and no row sees another.",
    ),
    Always(
        "Device and queue",
        "Devices of one training",
        "One. Several devices train several jobs at once; splitting one model over several GPUs "
        "(DeepSpeed, FSDP) is not in this version.",
    ),
)

PRESETS: dict[str, dict[str, dict[str, str]]] = {
    "lora": {
        "Balanced": {},
        "A quick try": {"epochs": "1", "lora.rank": "4"},
        "Thorough: four jobs": {"lora.rank": "8, 16", "learningRate": "1e-4, 5e-4"},
    },
    "qlora": {
        "Balanced": {"quantization": "int4", "lora.rank": "16", "lora.alpha": "32"},
        "A quick try": {"quantization": "int4", "epochs": "1"},
    },
    "dora": {"Balanced": {}},
    "full": {
        "Balanced": {"learningRate": "2e-5", "batchSize": "4", "epochs": "2", "warmupRatio": "0.1"},
        "A quick try": {"learningRate": "2e-5", "batchSize": "4", "epochs": "1"},
    },
}
"""By method; each says only what is not a default."""


@dataclass(frozen=True)
class Field:
    """One field of a model."""

    key: str
    """Its YAML path: lora.rank."""
    form: str
    """whole, number, choice, choices, words, text or yes."""
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    open_low: bool = False
    """Whether the range leaves out its end."""
    open_high: bool = False
    choices: tuple[str, ...] = ()
    pattern: str = ""
    several: bool = False
    """Whether several values make several jobs."""

    @property
    def shown_default(self) -> str:
        """As it is typed."""
        if self.default is None:
            return ""
        if isinstance(self.default, list):
            return "+".join(map(str, self.default)) if self.form == "words" else ", ".join(self.default)
        if isinstance(self.default, bool):
            return "true" if self.default else "false"
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    @property
    def group(self) -> str:
        if self.key in BASIC:
            return ""
        return next(title for title, prefixes in GROUPS if self.key.startswith(prefixes))

    def label(self, language: str) -> str:
        return str(_of(language, self.key, "label") or spoken(self.key))

    def said(self, language: str) -> str:
        """The line of help."""
        return str(_of(language, self.key, "help") or self.help)


@cache
def chinese() -> Mapping[str, Mapping[str, str]]:
    """Label and help of each field, by its YAML path."""
    text = files(__package__).joinpath("words", "fields", "zh.yaml").read_text(encoding="utf-8")
    found: Mapping[str, Mapping[str, str]] = yaml.safe_load(text)
    return found


def _of(language: str, key: str, part: str) -> str:
    return chinese().get(key, {}).get(part, "") if language == CHINESE else ""


def spoken(key: str) -> str:
    """lora.rank -> LoRA rank; learningRate -> Learning rate."""
    *before, last = key.split(".")
    words = re.sub(r"(?<=[a-z])([A-Z])", lambda found: f" {found[1].lower()}", last)
    return f"LoRA {words}" if before == ["lora"] else words[0].upper() + words[1:]


@cache
def parameters() -> tuple[Field, ...]:
    """Of one training; each may have several values."""
    return tuple(_fields(TrainingParameters, several=True))


@cache
def settings() -> tuple[Field, ...]:
    """Of the experiment as a whole."""
    return tuple(_fields(FinetuneExperimentSpec, several=False))


@cache
def by_key() -> Mapping[str, Field]:
    return {field.key: field for field in (*parameters(), *settings())}


def _fields(model: type[BaseModel], *, several: bool) -> Iterator[Field]:
    schema = model.model_json_schema(by_alias=True)
    found = _walk(schema, schema.get("$defs", {}), "", several)
    yield from (field for field in found if not field.key.startswith(ELSEWHERE))


def _walk(schema: Json, defs: Json, before: str, several: bool, off: bool = False) -> Iterator[Field]:
    """`off`: all of it is of a part that is left out unless one of its fields is given."""
    for name, raw in schema["properties"].items():
        prop, nullable = _resolved(raw, defs)
        key = before + name
        if "properties" in prop:
            # fields that only make sense together are more than a form of fields can ask
            if not (nullable and prop.get("required")):
                yield from _walk(prop, defs, f"{key}.", several, off or nullable)
        elif form := _form(prop, defs):
            items, _ = _resolved(prop.get("items", {}), defs)
            default = None if off and form != "choice" else raw.get("default")
            yield Field(
                key, form, default, str(raw.get("description", "")).replace("\n", " "),
                low=prop.get("minimum", prop.get("exclusiveMinimum")),
                high=prop.get("maximum", prop.get("exclusiveMaximum")),
                open_low="exclusiveMinimum" in prop, open_high="exclusiveMaximum" in prop,
                choices=tuple(prop.get("enum") or items.get("enum") or ()), pattern=prop.get("pattern", ""),
                several=several,
            )  # fmt: skip


def _resolved(prop: Json, defs: Json) -> tuple[Json, bool]:
    """A property without references, and whether it may be null."""
    found, nullable = prop, False
    if "anyOf" in found:
        nullable = any(each.get("type") == "null" for each in found["anyOf"])
        found = next(each for each in found["anyOf"] if each.get("type") != "null")
    if "$ref" in found:
        found = defs[found["$ref"].rpartition("/")[2]]
    return found, nullable


def _form(prop: Json, defs: Json) -> str:
    """How it is asked for; empty for what a form cannot ask."""
    if prop.get("type") == "array":
        items, _ = _resolved(prop["items"], defs)
        return "choices" if "enum" in items else "words" if items.get("type") == "string" else ""
    if "enum" in prop:
        return "choice"
    return {"integer": "whole", "number": "number", "boolean": "yes", "string": "text"}.get(
        str(prop.get("type")), ""
    )


# What was typed


def chosen(field: Field, typed: Typed) -> list[str]:
    """The single values, as typed; none where the default holds."""
    texts = [text.strip() for text in typed.get(field.key, ()) if text.strip()]
    if field.form == "choices" or (field.form == "choice" and field.several):
        return texts
    if field.form == "words" and not field.several:
        return [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    if field.several:
        return [part.strip() for text in texts for part in re.split(r"[,，;\s]+", text) if part.strip()]
    return texts[:1]


def matters(field: Field, typed: Typed, method: str) -> bool:
    """Whether its value can make a difference to these jobs."""
    for rule in ONLY_WITH:
        if field.key.startswith(rule.prefix):
            other = by_key().get(rule.key)
            values = [method] if other is None else chosen(other, typed) or [other.shown_default]
            if not set(values) & set(rule.values):
                return False
    return True


def value_of(field: Field, text: str) -> Any:
    """The value in YAML. Raises ValueError."""
    match field.form:
        case "whole":
            number = float(text)
            if not number.is_integer():
                raise ValueError
            return int(number)
        case "number":
            return float(text)
        case "yes":
            return text == "true"
        case "words":
            return text.split("+") if field.several else text
    return text


def fault(field: Field, text: str, say: Say) -> str:
    """What is wrong with one value; empty if nothing is."""
    if field.form in ("choice", "choices"):
        wrong = text not in field.choices
        return say("{value} is none of: {known}", value=text, known=", ".join(field.choices)) if wrong else ""
    try:
        value = value_of(field, text)
    except (ValueError, OverflowError):
        whole = field.form == "whole"
        return str(
            say("{value} is not a whole number", value=text)
            if whole
            else say("{value} is not a number", value=text)
        )
    if field.form in ("whole", "number") and not _within(field, value):
        return str(say("{value} is outside: {range}", value=text, range=span(field, say)))
    if field.pattern and not re.search(field.pattern, text):
        return str(say("{value} is not written as this field wants it", value=text))
    return ""


def _within(field: Field, value: float) -> bool:
    above = field.low is None or (value > field.low if field.open_low else value >= field.low)
    below = field.high is None or (value < field.high if field.open_high else value <= field.high)
    return above and below


def span(field: Field, say: Say) -> str:
    """Its range in words: from 1 to 1,024; more than 0, at most 10."""
    if field.low is None and field.high is None:
        return ""
    if not (field.open_low or field.open_high) and field.low is not None and field.high is not None:
        return str(say("{low} to {high}", low=_plain(field.low), high=_plain(field.high)))
    low = "more than {n}" if field.open_low else "at least {n}"
    high = "less than {n}" if field.open_high else "at most {n}"
    parts = []
    if field.low is not None:
        parts.append(say(low, n=_plain(field.low)))
    if field.high is not None:
        parts.append(say(high, n=_plain(field.high)))
    return ", ".join(parts)


def _plain(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:g}"


def faults(typed: Typed, method: str, say: Say) -> dict[str, str]:
    """What is wrong, by key, with the fields that matter."""
    found: dict[str, str] = {}
    for field in by_key().values():
        if not matters(field, typed, method):
            continue
        values = chosen(field, typed)
        wrong = next((text for value in values if (text := fault(field, value, say))), "")
        if not wrong and field.several and len(set(values)) < len(values):
            wrong = say("the same value stands twice")
        if wrong:
            found[field.key] = wrong
    return found


def several(typed: Typed, method: str) -> list[Setting]:
    """The parameters that were set and matter. Call it where `faults` finds none."""
    made = []
    for field in parameters():
        texts = chosen(field, typed) if matters(field, typed, method) else []
        values = tuple(value_of(field, text) for text in texts)
        if values and list(values) != [field.default]:
            made.append(Setting(field.key, values, tuple(texts)))
    return made


def spec_of(typed: Typed) -> Json:
    """The experiment's settings that differ from their defaults, nested as in YAML."""
    spec: Json = {}
    for field in settings():
        texts = chosen(field, typed)
        is_list = field.form in ("choices", "words")
        value: Any = [value_of(field, t) for t in texts] if is_list else None
        if not is_list and texts:
            value = value_of(field, texts[0])
        if value not in (None, [], field.default):
            put(spec, field.key, value)
    return spec
