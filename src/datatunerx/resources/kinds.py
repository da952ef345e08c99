"""The twelve kinds of datatunerx.io, and what the API needs to know of each: plural, short name, columns."""

from dataclasses import dataclass

from datatunerx.resources.enums import Split
from datatunerx.resources.experiment import FinetuneExperiment
from datatunerx.resources.finetune import OPTIONS_OF, SCORED_ON_THE_WAY, Finetune, FinetuneJob
from datatunerx.resources.material import LLM, DataPlugin, Dataset, Hyperparameter
from datatunerx.resources.outcome import InferenceService, LLMCheckpoint, Run, Scoring, ScoringPlugin
from datatunerx.resources.wire import Resource

CATEGORY = "dtx"


@dataclass(frozen=True)
class Column:
    """A printer column; `wide` ones show with -o wide only."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True)
class Rule:
    """A CEL rule on `spec`; `oldSelf` makes it a rule of change."""

    rule: str
    message: str


def immutable(field_name: str) -> Rule:
    """Rule of `spec`: the field stays as it was made."""
    same = f"self.{field_name} == oldSelf.{field_name}"
    return Rule(
        f"has(self.{field_name}) == has(oldSelf.{field_name}) && (!has(self.{field_name}) || {same})",
        f"{field_name} is immutable; make a new object instead",
    )


def immutable_once(used: str, what: str, *fields: str) -> tuple[Rule, ...]:
    """Rules of the whole object: once `used` holds of it, nothing would act on a change of these fields."""
    return tuple(
        Rule(
            f"!(has(oldSelf.status) && {used}) || (has(self.spec.{name}) == has(oldSelf.spec.{name}) "
            f"&& (!has(self.spec.{name}) || self.spec.{name} == oldSelf.spec.{name}))",
            f"{name} is immutable {what}; make a new object instead",
        )
        for name in fields
    )


_BEGUN = (
    "(has(oldSelf.status.run) || (has(oldSelf.status.attempt) && oldSelf.status.attempt > 0)) "
    "&& !(has(oldSelf.status.phase) && oldSelf.status.phase == 'Failed')"
)
"""Of a Finetune. One that failed may be tried again with other settings."""


def measured_with(part: str) -> tuple[Rule, ...]:
    """Rules of the Measure at `self.<part>`: an option is one that its metric has, of a metric asked for."""
    given, asked = f"self.{part}.metricOptions", f"self.{part}.metrics"
    absent = f"!has(self.{part}) || !has({given})"
    rules = [
        Rule(
            f"{absent} || {given}.all(m, m in {asked})",
            "metricOptions names a metric that is not among metrics; add it there, or leave its options out",
        )
    ]
    for option, metrics in OPTIONS_OF.items():
        names = ", ".join(f"'{metric.value}'" for metric in metrics)
        rules.append(
            Rule(
                f"{absent} || {given}.all(m, !has({given}[m].{option}) || m in [{names}])",
                f"metricOptions: {option} is an option of {names.replace(chr(39), '')} only",
            )
        )
    by = f"self.{part}.rankBy"
    of_plugin = f"p, {by} == p.ref || {by}.startsWith(p.ref + '/')"
    rules.append(
        Rule(
            f"!has(self.{part}) || !has({by}) || {by} in {asked}"
            f" || (has(self.{part}.plugins) && self.{part}.plugins.exists({of_plugin}))",
            "rankBy names what is not measured; write one of metrics, or a plugin's ref or ref/name",
        )
    )
    judged = f"self.{part}.metrics.exists(m, m == 'judge')"
    rules.append(
        Rule(
            f"!has(self.{part}) || has(self.{part}.judge) == {judged}",
            "the metric judge and the field judge need each other; give both, or neither",
        )
    )
    rules.append(
        Rule(
            f"!has(self.{part}) || !has(self.{part}.judge) || !has(self.{part}.judge.prompt) "
            f"|| self.{part}.judge.prompt.contains('{{answer}}')",
            "judge.prompt must have {answer} in it: that is what is judged",
        )
    )
    return tuple(rules)


def stopped_by_score(stopping: str) -> Rule:
    """Rule: what early stopping looks at is measured on the way, from answers alone."""
    names = ", ".join(f"'{metric.value}'" for metric in SCORED_ON_THE_WAY)
    ranks = "(has(self.scoring.rankBy) ? self.scoring.rankBy : self.scoring.metrics[0])"
    by_score = f"has({stopping}) && has({stopping}.measure) && {stopping}.measure == 'score'"
    return Rule(
        f"!({by_score}) || !has(self.scoring) || {ranks} in [{names}]",
        "earlyStopping.measure is score, and what ranks is not measured on the way; rank by one of "
        f"{names.replace(chr(39), '')}, or set it to loss",
    )


@dataclass(frozen=True)
class Kind:
    model: type[Resource]
    plural: str
    short: str
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...] = ()
    object_rules: tuple[Rule, ...] = ()
    """On the whole object: rules of change that depend on the status."""
    selectable: tuple[str, ...] = ()
    scalable: bool = False
    """`kubectl scale` sets spec.replicas; status.replicas says how many there are."""

    @property
    def name(self) -> str:
        return self.model.kind_name


READY = Column("Ready", '.status.conditions[?(@.type=="Ready")].status')
REASON = Column("Reason", '.status.conditions[?(@.type=="Ready")].reason')
PHASE = Column("Phase", ".status.phase")
AGE = Column("Age", ".metadata.creationTimestamp", "date")

KINDS: tuple[Kind, ...] = (
    Kind(
        LLM, "llms", "llm",
        (
            READY, REASON,
            Column("Architecture", ".status.architecture"),
            Column("Parameters", ".status.parameters", "integer"),
            Column("Context", ".status.contextLength", "integer", wide=True),
            Column("Source", ".spec.source", wide=True),
            AGE,
        ),
        (immutable("source"),),
        selectable=("spec.source",),
    ),
    Kind(
        Dataset, "datasets", "ds",
        (
            READY, REASON,
            Column("Rows", ".status.report.kept", "integer"),
            Column("Dropped", ".status.report.dropped", "integer"),
            Column("Format", ".status.report.format"),
            Column("Digest", ".status.digest", wide=True),
            AGE,
        ),
        (
            Rule(
                "self.subsets.all(s, "
                + " || ".join(f"(has(s.splits.{n}) && size(s.splits.{n}) > 0)" for n in list(Split))
                + ")",
                "a subset names no file; name some in splits.train, or in splits.test alone to score by them",
            ),
        ),
    ),
    Kind(
        Hyperparameter, "hyperparameters", "hp",
        (
            READY,
            Column("Method", ".spec.method"),
            Column("Rank", ".spec.lora.rank", "integer"),
            Column("LR", ".spec.learningRate", "number"),
            Column("Extends", ".spec.extends", wide=True),
            AGE,
        ),
        selectable=("spec.extends",),
    ),
    Kind(DataPlugin, "dataplugins", "dp", (READY, REASON, Column("Version", ".status.version"), AGE)),
    Kind(ScoringPlugin, "scoringplugins", "sp", (READY, REASON, Column("Version", ".status.version"), AGE)),
    Kind(
        Scoring, "scorings", "sc",
        (
            PHASE,
            Column("Model", ".spec.model.name"),
            Column("Metric", ".status.metric"),
            Column("Score", ".status.score", "number"),
            Column("Low", ".status.low", "number", wide=True),
            Column("High", ".status.high", "number", wide=True),
            AGE,
        ),
        rules=(
            *measured_with("measure"),
            Rule("has(self.model) != has(self.service)", "give model or service, one of them"),
            Rule(
                "has(self.dataset) || (has(self.measure) && (has(self.measure.dataset)"
                " || (has(self.measure.questions) && size(self.measure.questions) > 0)))",
                "give a dataset, or measure.questions",
            ),
        ),
        object_rules=immutable_once(
            "has(oldSelf.status.phase) && oldSelf.status.phase in ['Running', 'Succeeded']",
            "once it is being scored", "model", "service", "dataset", "measure",
        ),
        selectable=("spec.dataset",),
    ),
    Kind(
        Finetune, "finetunes", "ft",
        (
            PHASE,
            Column("Step", ".status.progress.step", "integer"),
            Column("Steps", ".status.progress.steps", "integer"),
            Column("Loss", ".status.metrics.loss", "number"),
            Column("Reason", ".status.reason"),
            Column("Run", ".status.run", wide=True),
            Column("Dataset", ".spec.dataset", wide=True),
            Column("LLM", ".spec.llm", wide=True),
            AGE,
        ),
        (
            immutable("dataset"),
            Rule("self.workers >= 1 && self.workers <= 64", "workers must be between 1 and 64"),
        ),
        immutable_once(
            _BEGUN, "once the training has begun", "llm", "hyperparameter", "resumeFrom", "earlyStopping"
        ),
        ("spec.llm", "spec.dataset"),
    ),
    Kind(
        FinetuneJob, "finetunejobs", "fj",
        (
            PHASE,
            Column("Score", ".status.score", "number"),
            Column("Checkpoint", ".status.checkpoint"),
            Column("Reason", ".status.reason"),
            Column("Message", ".status.message", wide=True),
            AGE,
        ),
        (*measured_with("scoring"), stopped_by_score("self.finetune.earlyStopping")),
        immutable_once("has(oldSelf.status.finetune)", "once its Finetune is made", "finetune"),
    ),
    Kind(
        FinetuneExperiment, "finetuneexperiments", "fe",
        (
            PHASE,
            Column("Jobs", ".status.jobs.summary"),
            Column("Best", ".status.best.job"),
            Column("Score", ".status.best.score", "number"),
            Column("Base", ".status.best.baseScore", "number"),
            Column("Reason", ".status.reason"),
            Column("Metric", ".status.metric", wide=True),
            Column("Why", ".status.best.why", wide=True),
            Column("Message", ".status.message", wide=True),
            AGE,
        ),
        (
            Rule("has(self.matrix) || has(self.jobs)", "give jobs, a matrix, or both"),
            immutable("matrix"),
            immutable("jobs"),
            *measured_with("scoring"),
            stopped_by_score("self.earlyStopping"),
        ),
        immutable_once(
            "has(oldSelf.status.jobs) && has(oldSelf.status.jobs.total) && oldSelf.status.jobs.total > 0",
            "once its jobs are made", "scoring", "earlyStopping",
        ),
    ),
    Kind(
        LLMCheckpoint, "llmcheckpoints", "ckpt",
        (
            READY,
            Column("Score", ".status.score", "number"),
            Column("Base", ".spec.llm"),
            Column("Job", ".spec.finetune"),
            Column("Size", ".status.size"),
            Column("Step", ".spec.step", "integer", wide=True),
            Column("Metric", ".status.metric", wide=True),
            Column("Parent", ".spec.parent", wide=True),
            AGE,
        ),
        (
            *(immutable(name) for name in ("finetune", "llm", "dataset", "uri", "step", "manifestDigest")),
            Rule(
                # one that was asked for earlier stays as the record
                "!has(self.exports) || self.exports.all(e, !has(e.type) || e.type == 'auto'"
                " || (e.to == 'hf' && e.type in ['f32', 'f16', 'bf16']) || e.to in ['gguf', 'ollama']"
                " || (has(oldSelf.exports) && oldSelf.exports.exists(o, o.name == e.name)))",
                "exports: an hf folder is stored as auto, f32, f16 or bf16, an adapter as auto; other types "
                "are of gguf and ollama",
            ),
        ),
        selectable=("spec.finetune",),
    ),
    Kind(
        InferenceService, "inferenceservices", "isvc",
        (
            PHASE,
            Column("URL", ".status.url"),
            Column("Models", ".status.modelsReady", "integer"),
            Column("Engine", ".spec.engine", wide=True),
            Column("Replicas", ".spec.replicas", "integer", wide=True),
            AGE,
        ),
        (Rule("self.replicas >= 0 && self.replicas <= 64", "replicas must be between 0 and 64"),),
        selectable=("spec.engine",),
        scalable=True,
    ),
    Kind(
        Run, "runs", "run",
        (
            PHASE,
            Column("Type", ".spec.type"),
            Column("Reason", ".status.reason"),
            Column("Heartbeat", ".status.lastHeartbeat", "date", wide=True),
            Column("Log", ".status.logUri", wide=True),
            AGE,
        ),
        (immutable("type"), immutable("planId"), immutable("planUri")),
        selectable=("spec.type",),
    ),
)  # fmt: skip

BY_NAME = {kind.name: kind for kind in KINDS}
BY_MODEL: dict[type[Resource], Kind] = {kind.model: kind for kind in KINDS}
