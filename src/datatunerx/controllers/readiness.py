"""Whether a training has all it needs, and if not, what it waits for. Reads the world, changes nothing."""

from dataclasses import dataclass

from pydantic import ValidationError

from datatunerx import storage
from datatunerx.controllers.context import World
from datatunerx.controllers.plugins import call_of, parameters_problem
from datatunerx.resources.enums import Split
from datatunerx.resources.experiment import FinetuneExperiment
from datatunerx.resources.finetune import Finetune, FinetuneJob, Measure, ScoringPluginUse
from datatunerx.resources.material import LLM, Dataset, Hyperparameter
from datatunerx.resources.outcome import LLMCheckpoint, ScoringPlugin
from datatunerx.resources.wire import Resource
from datatunerx.runs.answers import unfit
from datatunerx.runs.compile import (
    Training,
    Unresolved,
    combinations,
    data_files,
    disk_bytes,
    measure_plan,
    model_files,
    needs_gpu,
    num_steps,
    parameters,
    unsupported,
)
from datatunerx.runs.plan import EarlyStop, MeasurePlan, ScorerPlan
from datatunerx.runs.stopping import early_stop


@dataclass(frozen=True)
class Waiting:
    """What stands in the way."""

    reason: str
    message: str
    final: bool = False
    """Waiting will not help."""
    under_way: bool = False
    """Somebody is at work on it: waiting alone will help."""


def ready_model(world: World, namespace: str, name: str) -> LLM | Waiting:
    """The LLM, inspected as its spec now is."""
    llm = world.get(LLM, namespace, name)
    if llm is None:
        return Waiting("LLMNotFound", f"there is no LLM {name!r} in namespace {namespace}; apply it")
    return _not_ready(llm, llm.status.observed_generation, llm.status.is_true("Ready")) or llm


def ready_dataset(world: World, namespace: str, name: str) -> Dataset | Waiting:
    """The Dataset, inspected as its spec now is."""
    found = world.get(Dataset, namespace, name)
    if found is None:
        return Waiting("DatasetNotFound", f"there is no Dataset {name!r} in namespace {namespace}; apply it")
    return _not_ready(found, found.status.observed_generation, found.status.is_true("Ready")) or found


def _not_ready(obj: LLM | Dataset, observed: int | None, ready: bool) -> Waiting | None:
    # Also one that is being deleted: it stays for its users, who could not end without it.
    if ready and observed == obj.metadata.generation:
        return None
    said = obj.status.condition("Ready")
    why = f"{said.reason}: {said.message}" if said and said.status != "True" else "it is being inspected"
    return Waiting(
        f"{obj.kind}NotReady",
        f"{obj.kind} {obj.metadata.name} is not ready: {why}",
        under_way=said is None or said.status == "Unknown" or observed != obj.metadata.generation,
    )


def resolve(world: World, finetune: Finetune, *, gpus: int, root_uri: str) -> Training | Waiting:
    """Everything the training needs, or what it waits for; `gpus` is how many there are."""
    namespace, spec = finetune.metadata.namespace, finetune.spec
    groups = {g.metadata.name: g for g in world.all(Hyperparameter, namespace)}
    try:
        wanted = parameters(spec.hyperparameter, groups)
    except Unresolved as error:
        return Waiting(error.reason, error.message)
    except ValidationError as error:
        return Waiting("HyperparameterInvalid", str(error))
    if why := unsupported(wanted):
        return Waiting("MethodNotSupported", why, final=True)
    if not gpus and (what := needs_gpu(wanted)):
        return Waiting("NoGpu", f"{what} needs a GPU, and this machine has none; use method lora", final=True)
    if spec.workers > 1:
        return Waiting("WorkersNotSupported", "workers: only 1 works here yet", final=True)
    if (asked := spec.resources.accelerators) > gpus:
        message = (
            f"asks for {asked} GPUs and this machine has {gpus}; set resources.accelerators to {gpus} or less"
        )
        return Waiting("NotEnoughDevices", message)
    llm = ready_model(world, namespace, spec.llm)
    if isinstance(llm, Waiting):
        return llm
    dataset = ready_dataset(world, namespace, spec.dataset)
    if isinstance(dataset, Waiting):
        return dataset
    if why_not := _nothing_to_train_on(dataset):
        return why_not
    model, files = model_files(llm), [data_files(dataset)]
    measured = _measures(world, finetune)
    if isinstance(measured, Waiting):
        return measured
    measure, baseline = measured
    if measure and measure.data and measure.data != spec.dataset:
        other = ready_dataset(world, namespace, measure.data)
        if isinstance(other, Waiting):
            return other
        files.append(data_files(other))
    start = _start(world, finetune, model.digest)
    if isinstance(start, Waiting):
        return start
    stop = _early_stop(world, finetune)
    if isinstance(stop, Waiting):
        return stop
    training = Training(
        finetune=finetune,
        model=model,
        num_parameters=llm.status.parameters or 0,
        data=tuple(files),
        parameters=wanted,
        measure=measure,
        baseline=baseline,
        start_from_uri=start,
        early_stop=stop,
    )
    if stop and (vain := _never_measured(training, dataset)):
        return vain
    return _too_little_disk(training, dataset, storage.free_bytes(root_uri)) or training


def _nothing_to_train_on(dataset: Dataset) -> Waiting | None:
    if any(subset.splits.train for subset in dataset.spec.subsets):
        return None
    message = (
        f"Dataset {dataset.metadata.name} has no files in splits.train: its rows are there to score by "
        "(scoring.dataset); name another one to train on"
    )
    return Waiting("NoTrainSplit", message, final=True)


def _early_stop(world: World, finetune: Finetune) -> EarlyStop | Waiting | None:
    wanted, name = finetune.spec.early_stopping, _owner(finetune, "FinetuneJob")
    if wanted is None:
        return None
    job = world.get(FinetuneJob, finetune.metadata.namespace, name) if name else None
    try:
        return early_stop(wanted, job.spec.scoring if job else None, finetune.spec.dataset)
    except Unresolved as error:
        return Waiting(error.reason, error.message, final=True)


def _never_measured(training: Training, dataset: Dataset) -> Waiting | None:
    """Why early stopping could never act: refused before hours of training."""
    report = dataset.status.report
    if report and not report.splits.get(Split.VALIDATE):
        message = (
            f"earlyStopping needs rows to measure on, and Dataset {dataset.metadata.name} has none in its "
            "validate split; name files for it, give split.validate a share, or leave earlyStopping out"
        )
        return Waiting("NoValidateSplit", message, final=True)
    why = training.parameters.no_evaluation_before_end(num_steps(training, dataset) or 0)
    return Waiting("NoEvaluation", why, final=True) if why else None


def _too_little_disk(training: Training, dataset: Dataset, free: int) -> Waiting | None:
    """Refused before it starts; one that has begun has what it wrote, and waits for space as it writes."""
    report = dataset.status.report
    need = disk_bytes(training, report.tokens.total if report and report.tokens else 0)
    if need <= free or training.finetune.status.checkpoints:
        return None
    message = (
        f"its checkpoints and tokens take about {need / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free; "
        "free some, or lower keepCheckpoints or lora.rank"
    )
    return Waiting("NotEnoughDisk", message)


def _owner(obj: Resource, kind: str) -> str | None:
    return next((o.name for o in obj.metadata.owner_references if o.kind == kind), None)


def _measures(world: World, finetune: Finetune) -> tuple[MeasurePlan | None, MeasurePlan | None] | Waiting:
    """How the training is scored, and how the base is if this is the training that brings it along."""
    namespace = finetune.metadata.namespace
    job_name = _owner(finetune, "FinetuneJob")
    if job_name is None:
        return None, None
    job = world.get(FinetuneJob, namespace, job_name)
    if job is None:
        return Waiting("JobNotSeen", f"FinetuneJob {job_name} has not been seen yet")
    measure = resolve_measure(world, namespace, job.spec.scoring, finetune.spec.dataset)
    if isinstance(measure, Waiting):
        return measure
    experiment_name = _owner(job, "FinetuneExperiment")
    if experiment_name is None:
        return measure, None
    experiment = world.get(FinetuneExperiment, namespace, experiment_name)
    if experiment is None:
        return Waiting("ExperimentNotSeen", f"FinetuneExperiment {experiment_name} has not been seen yet")
    brings = experiment.spec.baseline and finetune.metadata.name == base_carrier(
        experiment, finetune.spec.llm, finetune.spec.dataset
    )
    return measure, measure if brings else None


def resolve_measure(
    world: World, namespace: str, measure: Measure, own_dataset: str | None
) -> MeasurePlan | Waiting:
    """The measure as a worker is told it, or what it waits for."""
    if problem := unfit_question(measure):
        return Waiting("ReferenceNotUsable", problem, final=True)
    scorers = []
    for use in measure.plugins:
        found = _scorer(world, namespace, use)
        if isinstance(found, Waiting):
            return found
        scorers.append(found)
    return measure_plan(measure, own_dataset, scorers)


def unfit_question(measure: Measure) -> str | None:
    """The first own question whose answer leaves what ranks without a value for every model."""
    ranks = [metric for metric in measure.metrics if metric.value == measure.ranks]
    for place, asked in enumerate(measure.questions):
        found = unfit(asked.answer, ranks, measure.metric_options) if asked.answer else {}
        for why in found.values():
            return f"scoring.questions[{place}].answer: {why}; correct it, or rank by another metric"
    return None


def _scorer(world: World, namespace: str, use: ScoringPluginUse) -> ScorerPlan | Waiting:
    plugin = world.get(ScoringPlugin, namespace, use.ref)
    if plugin is None:
        message = f"there is no ScoringPlugin {use.ref!r} in namespace {namespace}; apply it"
        return Waiting("ScoringPluginNotFound", message)
    if not plugin.status.is_true("Ready") or plugin.status.observed_generation != plugin.metadata.generation:
        said = plugin.status.condition("Ready")
        why = f"{said.reason}: {said.message}" if said and said.status == "False" else "it is being loaded"
        under_way = said is None or said.status != "False"
        message = f"ScoringPlugin {use.ref} is not ready: {why}"
        return Waiting("ScoringPluginNotReady", message, under_way=under_way)
    given = plugin.spec.parameters | use.parameters
    if problem := parameters_problem(plugin, given, whole=True):
        message = f"measure.plugins {use.ref}: {problem}"
        return Waiting("PluginParametersInvalid", message)
    return ScorerPlan(plugin=call_of(plugin), version=plugin.status.version, parameters=given)


def base_carrier(experiment: FinetuneExperiment, llm: str, dataset: str) -> str | None:
    """The one job whose run also scores the untouched base: the first by name on this base and data."""
    names = [c.name for c in combinations(experiment) if (c.llm, c.dataset) == (llm, dataset)]
    return min(names, default=None)


def _start(world: World, finetune: Finetune, digest: str) -> str | Waiting | None:
    name = finetune.spec.resume_from
    if name is None:
        return None
    checkpoint = world.get(LLMCheckpoint, finetune.metadata.namespace, name)
    if checkpoint is None:
        return Waiting("CheckpointNotFound", f"resumeFrom: there is no LLMCheckpoint {name!r}")
    if checkpoint.spec.base_digest and checkpoint.spec.base_digest != digest:
        return Waiting("CheckpointOfOtherBase", f"resumeFrom: {name} was trained on another base model")
    return checkpoint.spec.uri
