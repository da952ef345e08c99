"""Objects into plans. Pure: no disk, no clock, no API; the same objects give the same plan.

Plans are salted with the uid of what they are for: an object made again under its old name gets a run of
its own, and two namespaces never share a run's folder.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from datatunerx.resources.enums import (
    DataFormat,
    Method,
    Objective,
    PluginProvider,
    Precision,
    Quantization,
    RunType,
    Split,
)
from datatunerx.resources.experiment import FinetuneExperiment, FinetuneExperimentSpec
from datatunerx.resources.finetune import Finetune, Measure
from datatunerx.resources.material import LLM, Credentials, Dataset, Hyperparameter, PluginSpec
from datatunerx.resources.training import HyperparameterRef, TrainingParameters, resolve_parameters
from datatunerx.runs.plan import (
    Access,
    AdapterFiles,
    DataFiles,
    EarlyStop,
    InspectDataPlan,
    InspectModelPlan,
    InspectPluginPlan,
    MakeDataPlan,
    MeasurePlan,
    ModelFiles,
    PluginCall,
    RunPlan,
    ScorePlan,
    ScorerPlan,
    TuneJob,
    TunePlan,
    digest_of,
    identified,
)

MAX_NAME = 63
FUSED_METHODS = (Method.LORA,)
FUSED_OBJECTIVES = (Objective.SFT,)
MAX_JOBS_PER_RUN = 64


# Names


@dataclass(frozen=True)
class Combination:
    """One job of an experiment."""

    name: str
    llm: str
    dataset: str
    hyperparameter: HyperparameterRef


def short_name(name: str, limit: int = MAX_NAME) -> str:
    """The name, or as much of it as fits with a digest of the whole as its tail."""
    if len(name) <= limit:
        return name
    return f"{name[: limit - 9].rstrip('-.')}-{digest_of(name)[:8]}"


def combinations(experiment: FinetuneExperiment) -> list[Combination]:
    """The jobs of an experiment with their names: the listed ones, then the matrix; equal ones once.

    A matrix dimension with one value is left out of the names. Names that would meet get a digest.
    """
    prefix = experiment.metadata.name
    found = [
        Combination(f"{prefix}-{job.name}", job.llm, job.dataset, job.hyperparameter)
        for job in experiment.spec.jobs
    ] + _of_matrix(prefix, experiment.spec)
    taken: dict[str, int] = {}
    for combination in found:
        taken[combination.name] = taken.get(combination.name, 0) + 1
    named: dict[str, Combination] = {}
    for place, c in enumerate(found):
        name = c.name
        if taken[name] > 1 and place >= len(experiment.spec.jobs):
            name = f"{name}-{digest_of([c.llm, c.dataset, c.hyperparameter.ref])[:6]}"
        named[short_name(name)] = Combination(short_name(name), c.llm, c.dataset, c.hyperparameter)
    return list(named.values())


def _of_matrix(prefix: str, spec: FinetuneExperimentSpec) -> list[Combination]:
    if spec.matrix is None:
        return []
    axes = [
        list(dict.fromkeys(values))
        for values in (spec.matrix.llms, spec.matrix.datasets, spec.matrix.hyperparameters)
    ]
    found = []
    for llm in axes[0]:
        for dataset in axes[1]:
            for group in axes[2]:
                parts = [v for v, axis in zip((llm, dataset, group), axes, strict=True) if len(axis) > 1]
                name = "-".join([prefix, *(parts or [group])])
                found.append(Combination(name, llm, dataset, HyperparameterRef(ref=group)))
    return found


def base_names(experiment: FinetuneExperiment) -> dict[tuple[str, str], str]:
    """The name of the base's Scoring per (llm, dataset); never that of a job, whose Scoring is called so."""
    found = combinations(experiment)
    pairs = list(dict.fromkeys((c.llm, c.dataset) for c in found))
    several = (len({llm for llm, _ in pairs}) > 1, len({dataset for _, dataset in pairs}) > 1)
    taken = {c.name for c in found}
    names: dict[tuple[str, str], str] = {}
    for pair in pairs:
        parts = [part for part, shown in zip(pair, several, strict=True) if shown]
        name = short_name("-".join([experiment.metadata.name, "base", *parts]))
        if name in taken:
            name = short_name(f"{name}-{digest_of(['base', *pair])[:6]}")
        taken.add(name)
        names[pair] = name
    return names


def run_name(plan: RunPlan) -> str:
    return f"{plan.type.value}-{plan.id[:10]}"


# Parameters


class Unresolved(Exception):
    """A parameter group cannot be worked out; `reason` is one word for a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def chain(name: str, groups: Mapping[str, Hyperparameter]) -> list[Hyperparameter]:
    """The group and those it extends, the most general first. Raises Unresolved."""
    found: list[Hyperparameter] = []
    wanted: str | None = name
    while wanted is not None:
        seen = [group.metadata.name for group in found]
        if wanted in seen:
            circle = " -> ".join([*seen[seen.index(wanted) :], wanted])
            raise Unresolved(
                "CircularExtends", f"extends goes in a circle: {circle}; break it in one of them"
            )
        group = groups.get(wanted)
        if group is None:
            by = f", which {seen[-1]} extends" if seen else ""
            raise Unresolved("HyperparameterNotFound", f"there is no Hyperparameter {wanted!r}{by}; apply it")
        found.append(group)
        wanted = group.spec.extends
    return found[::-1]


def parameters(ref: HyperparameterRef, groups: Mapping[str, Hyperparameter]) -> TrainingParameters:
    """Defaults, then the chain of groups, then the job's own overrides. Raises Unresolved."""
    layers = [group.spec.dump() for group in chain(ref.ref, groups)]
    for layer in layers:
        layer.pop("extends", None)
    overrides = ref.dump().get("overrides", {})
    return resolve_parameters([*layers, overrides])


def unsupported(wanted: TrainingParameters) -> str | None:
    """Why no engine here takes these parameters, with what works; None if one does."""
    if wanted.objective not in FUSED_OBJECTIVES:
        works = ", ".join(FUSED_OBJECTIVES)
        return f"objective {wanted.objective} cannot be trained yet; what works: {works}"
    if wanted.method not in FUSED_METHODS:
        return f"method {wanted.method} cannot be trained yet; what works: {', '.join(FUSED_METHODS)}"
    if wanted.quantization is not Quantization.NONE:
        return f"quantization {wanted.quantization} cannot be trained yet; what works: none"
    return None


def needs_gpu(wanted: TrainingParameters) -> str | None:
    """What of the parameters no CPU does; None if a CPU does all of it."""
    if wanted.method is Method.QLORA:
        return "method qlora"
    if wanted.quantization is not Quantization.NONE:
        return f"quantization {wanted.quantization}"
    return None


def resolved_precision(wanted: Precision, auto: Precision) -> Precision:
    return auto if wanted is Precision.AUTO else wanted


# Files


def relative_paths(dataset: Dataset) -> list[str]:
    """The data files that are named by a relative path, which means nothing to a server."""
    found = []
    for subset in dataset.spec.subsets:
        for uri in [*subset.splits.train, *subset.splits.validate_, *subset.splits.test]:
            if not urlsplit(uri).scheme and not uri.startswith("/"):
                found.append(uri)
    return found


def foreign_uploads(dataset: Dataset) -> list[str]:
    """Uploads of another namespace than the dataset's own, which it must not read."""
    own = f"upload://{dataset.metadata.namespace}/"
    splits = [subset.splits for subset in dataset.spec.subsets]
    uris = [uri for files in splits for uri in (*files.train, *files.validate_, *files.test)]
    return [uri for uri in uris if uri.lower().startswith("upload:") and not uri.startswith(own)]


def data_files(dataset: Dataset) -> DataFiles:
    """What is read: all subsets' files, split by split, or what its plugin has made of them; with the digest
    of the last inspection."""
    files = given_files(dataset)
    if dataset.spec.plugin is None:
        return files
    made = dataset.status.made.splits if dataset.status.made else {}
    return files.model_copy(update={"splits": made, "access": None, "unpack": False})


def given_files(dataset: Dataset) -> DataFiles:
    """The files that its spec names."""
    splits: dict[Split, list[str]] = {}
    for subset in dataset.spec.subsets:
        files = subset.splits
        for split, uris in (
            (Split.TRAIN, files.train), (Split.VALIDATE, files.validate_), (Split.TEST, files.test)
        ):  # fmt: skip
            if uris:
                splits.setdefault(split, []).extend(uris)
    return DataFiles(
        name=dataset.metadata.name,
        splits=splits,
        format=dataset.spec.format,
        features={feature.name: feature.map_to for feature in dataset.spec.features},
        auto_split=dataset.spec.split,
        unpack=dataset.spec.unpack,
        access=access(dataset.spec.credentials),
        digest=dataset.status.digest or "",
        rows=_rows_found(dataset),
    )


def _rows_found(dataset: Dataset) -> dict[Split, int]:
    report = dataset.status.report
    return {Split(name): count for name, count in report.splits.items()} if report else {}


def access(credentials: Credentials | None) -> Access | None:
    """What a plan says of credentials: never a value."""
    if credentials is None:
        return None
    secret = credentials.secret_ref.name if credentials.secret_ref else None
    return Access(secret=secret, endpoint=credentials.endpoint)


def model_files(llm: LLM) -> ModelFiles:
    """An LLM that was inspected and found ready."""
    assert llm.status.local_uri and llm.status.digest, f"{llm.metadata.name} was not inspected"
    return ModelFiles(
        name=llm.metadata.name,
        uri=llm.status.local_uri,
        digest=llm.status.digest,
        template=llm.spec.template,
    )


def measure_plan(
    measure: Measure, own_dataset: str | None, scorers: Sequence[ScorerPlan] = ()
) -> MeasurePlan:
    """How models are scored; on the training's own dataset unless the measure names another."""
    return MeasurePlan(
        data=measure.dataset or own_dataset,
        split=measure.split,
        questions=measure.questions,
        metrics=measure.metrics,
        metric_options=measure.metric_options,
        judge=measure.judge,
        plugins=list(scorers),
        generation=measure.generation,
        limit=measure.limit,
    )


# Plans


def inspect_model(llm: LLM, root_uri: str, salt: str = "", merge: AdapterFiles | None = None) -> RunPlan:
    part = InspectModelPlan(
        source=llm.spec.source, merge=merge, access=access(llm.spec.credentials), template=llm.spec.template
    )
    return identified(RunType.INSPECT, root_uri, {"inspect_model": part}, f"{llm.metadata.uid}{salt}")


def inspect_data(dataset: Dataset, model: ModelFiles | None, root_uri: str, salt: str = "") -> RunPlan:
    # The inspection is what finds them.
    files = data_files(dataset).model_copy(update={"digest": "", "rows": {}})
    part = InspectDataPlan(data=files, model=model)
    return identified(RunType.INSPECT, root_uri, {"inspect_data": part}, f"{dataset.metadata.uid}{salt}")


def plugin_call(name: str, spec: PluginSpec, group: str) -> PluginCall:
    is_program = spec.provider is PluginProvider.COMMAND
    return PluginCall(
        name=name,
        group=group,
        entry_point="" if is_program else spec.entry_point or "",
        command=spec.command if is_program else [],
        limits=spec.limits,
    )


def inspect_plugin(plugin: PluginCall, uid: str, root_uri: str, salt: str = "") -> RunPlan:
    part = InspectPluginPlan(plugin=plugin)
    return identified(RunType.INSPECT, root_uri, {"inspect_plugin": part}, f"{uid}{salt}")


def make_data(
    dataset: Dataset, plugin: PluginCall, version: str | None, parameters: Mapping[str, Any], root_uri: str,
    salt: str = "",
) -> RunPlan:  # fmt: skip
    """A run in which a plugin makes the dataset's rows; `parameters` are the plugin's and the dataset's."""
    others = {"digest": "", "rows": {}, "format": DataFormat.AUTO, "features": {}}
    files = given_files(dataset).model_copy(update=others)
    part = MakeDataPlan(data=files, plugin=plugin, version=version, parameters=dict(parameters))
    return identified(RunType.MAKE, root_uri, {"make_data": part}, f"{dataset.metadata.uid}{salt}")


def score(uid: str, part: ScorePlan, root_uri: str) -> RunPlan:
    """A run that scores one model; `uid` is the Scoring's."""
    return identified(RunType.SCORE, root_uri, {"score": part}, uid)


@dataclass(frozen=True)
class Training:
    """One Finetune with everything it refers to, resolved."""

    finetune: Finetune
    model: ModelFiles
    num_parameters: int
    data: tuple[DataFiles, ...]
    """Its own dataset first, then those it is measured on."""
    parameters: TrainingParameters
    measure: MeasurePlan | None = None
    baseline: MeasurePlan | None = None
    """Set on the one training of its experiment and data that brings the base's score along."""
    start_from_uri: str | None = None
    early_stop: EarlyStop | None = None

    @property
    def name(self) -> str:
        return self.finetune.metadata.name


def num_steps(training: Training, dataset: Dataset) -> int | None:
    """Optimizer steps the training will take, as far as the inspection tells; None if it does not."""
    wanted = training.parameters
    if wanted.max_steps:
        return wanted.max_steps
    rows = dataset.status.report.splits.get(Split.TRAIN) if dataset.status.report else None
    if not rows:
        return None
    return math.ceil(wanted.epochs * math.ceil(rows / (wanted.batch_size * wanted.gradient_accumulation)))


def output_uri(root_uri: str, finetune_uid: str) -> str:
    """Folder of a Finetune's checkpoints, the same for every attempt."""
    return f"{root_uri}/artifacts/{finetune_uid}"


def tune(trainings: Sequence[Training], root_uri: str) -> RunPlan:
    """One run for trainings that share a base; their order does not matter."""
    ordered = sorted(trainings, key=lambda training: training.name)
    model = ordered[0].model
    data: dict[str, DataFiles] = {}
    baselines: dict[str, MeasurePlan] = {}
    for training in ordered:
        data |= {files.name: files for files in training.data}
        if training.baseline:
            baselines[training.baseline.key()] = training.baseline
    jobs = [
        TuneJob(
            name=t.name,
            namespace=t.finetune.metadata.namespace,
            uid=t.finetune.metadata.uid,
            attempt=t.finetune.status.attempt,
            parameters=t.parameters,
            data=t.data[0].name,
            output_uri=output_uri(root_uri, t.finetune.metadata.uid),
            start_from_uri=t.start_from_uri,
            samples=t.finetune.spec.samples,
            sample_system_prompt=t.finetune.spec.sample_system_prompt,
            measure=t.measure,
            early_stop=t.early_stop,
        )
        for t in ordered
    ]
    part = TunePlan(model=model, data=list(data.values()), jobs=jobs, baselines=list(baselines.values()))
    return identified(RunType.TUNE, root_uri, {"tune": part})


# Grouping

BYTES_OF = {Precision.FLOAT32: 4, Precision.BFLOAT16: 2, Precision.FLOAT16: 2}
ADAPTER_BYTES = 16
"""Per adapter weight: itself, its gradient and two moments, 4 bytes each."""
CHECKPOINT_BYTES = 12
"""Per adapter weight in a checkpoint: itself and two moments."""
TOKEN_BYTES = 8
"""Per token in the cache: its id and its label."""
WORKING_BYTES = 1 << 30
"""One tick's activations and the program itself; a tick does not grow with the number of jobs."""


def adapter_weights(num_parameters: int, rank: int) -> float:
    """About how many weights an adapter on all linear layers has.

    Per rank this is the sum of the layers' edges: close to 30 times the root of the model's size for
    models from 135M (26) to 7B (30).
    """
    return 32.0 * rank * math.sqrt(max(num_parameters, 1))


def disk_bytes(training: Training, num_tokens: int) -> int:
    """About what a training writes: its checkpoints with the best and the one being written, and tokens."""
    wanted = training.parameters
    each = CHECKPOINT_BYTES * adapter_weights(training.num_parameters, wanted.lora.rank)
    return int((wanted.keep_checkpoints + 2) * each) + TOKEN_BYTES * num_tokens


def base_bytes(num_parameters: int, precision: Precision) -> int:
    return num_parameters * BYTES_OF[precision]


def adapter_bytes(training: Training) -> float:
    """Memory of one more adapter beside the base."""
    return ADAPTER_BYTES * adapter_weights(training.num_parameters, training.parameters.lora.rank)


def memory_bytes(pack: Sequence[Training], auto: Precision) -> int:
    """About what a run of these trainings takes of a device: the base once, every adapter, one tick."""
    first = pack[0]
    base = base_bytes(first.num_parameters, resolved_precision(first.parameters.precision, auto))
    return base + WORKING_BYTES + int(sum(adapter_bytes(training) for training in pack))


def groups(
    trainings: Iterable[Training], *, auto: Precision, memory_bytes: int, devices: int
) -> list[list[Training]]:
    """Trainings that can share a run, one list per run, the most urgent first.

    Those of one base, precision and number of GPUs are spread over the free devices, and over more runs
    than that only where their adapters would not fit beside the base in `memory_bytes`. One whose worker
    died beside others has a run of its own: whoever killed it cannot take its neighbours along again.
    """
    shared: dict[tuple[str, str | None, Precision, int, str], list[Training]] = {}
    for training in sorted(trainings, key=lambda training: urgency(training.finetune)):
        precision = resolved_precision(training.parameters.precision, auto)
        slots = max(1, training.finetune.spec.resources.accelerators)  # 0 takes one, too
        apart = training.finetune.metadata.uid if training.finetune.status.alone else ""
        key = (training.model.digest, training.model.template, precision, slots, apart)
        shared.setdefault(key, []).append(training)
    found: list[list[Training]] = []
    for (_, _, precision, _, _), members in shared.items():
        room = memory_bytes - base_bytes(members[0].num_parameters, precision) - WORKING_BYTES
        share = math.ceil(len(members) / max(1, devices))
        pack: list[Training] = []
        used = 0.0
        for member in members:
            need = adapter_bytes(member)
            if pack and (len(pack) >= min(share, MAX_JOBS_PER_RUN) or used + need > room):
                found.append(pack)
                pack, used = [], 0.0
            pack.append(member)
            used += need
        found.append(pack)
    return sorted(found, key=lambda pack: urgency(pack[0].finetune))


def urgency(finetune: Finetune) -> tuple[int, str, str]:
    """Less goes first: by priority, then by age."""
    metadata = finetune.metadata
    return (-finetune.spec.priority, metadata.creation_timestamp or "", metadata.name)
