"""How an experiment stands, from its objects: one line per job. Pure; drawing it is `screen.py`'s."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from datatunerx.cli.text import duration, number, visible
from datatunerx.resources.enums import JobPhase
from datatunerx.resources.experiment import FinetuneExperiment
from datatunerx.resources.finetune import Finetune, FinetuneJob
from datatunerx.resources.material import Dataset
from datatunerx.resources.wire import Condition, Resource
from datatunerx.runs.events import STOPPED_EARLY

SHOWN_PLACES = 3
"""Of rows that were left out for one reason."""


@dataclass
class Scene:
    """The objects of one experiment, as last seen."""

    name: str
    experiment: FinetuneExperiment | None = None
    jobs: dict[str, FinetuneJob] = field(default_factory=dict)
    finetunes: dict[str, Finetune] = field(default_factory=dict)
    materials: dict[str, Resource] = field(default_factory=dict)
    """All LLMs, Datasets and Hyperparameters of the namespace, by Kind/name."""
    whole: bool = False
    """Every kind has been listed once, so what is not here does not exist."""

    @property
    def ended(self) -> bool:
        return self.experiment is not None and self.experiment.status.phase.terminal

    @property
    def suspended(self) -> bool:
        return self.experiment is not None and self.experiment.spec.suspend


@dataclass(frozen=True)
class JobLine:
    job: str
    phase: str
    step: int = 0
    steps: int = 0
    loss: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    doing: str = ""
    """What it does or waits for."""

    def plain(self) -> str:
        """As one line of a log."""
        parts = [f"{self.job}  {self.phase}"]
        if self.steps:
            parts.append(f"step {self.step}/{self.steps}")
        if self.loss is not None:
            parts.append(f"loss {number(self.loss)}")
        if self.phase == JobPhase.FINETUNING and self.tokens_per_second:
            parts.append(f"{self.tokens_per_second:.0f} tokens/s")
        if self.phase == JobPhase.FINETUNING and self.eta_seconds is not None:
            parts.append(f"ETA {duration(self.eta_seconds)}")
        if self.doing:
            parts.append(self.doing)
        return "  ".join(parts)


def short_job(job: str, experiment: str) -> str:
    """The job's name without the experiment's, however often that stands before it."""
    short = job
    while short.startswith(f"{experiment}-"):
        short = short.removeprefix(f"{experiment}-")
    return short


def job_lines(scene: Scene) -> list[JobLine]:
    """One line per job, in the order of creation."""
    ordered = sorted(
        scene.jobs.values(), key=lambda j: (j.metadata.creation_timestamp or "", j.metadata.name)
    )
    return [_line(scene, job) for job in ordered]


def _line(scene: Scene, job: FinetuneJob) -> JobLine:
    name = job.metadata.name
    finetune = scene.finetunes.get(job.status.finetune or name)
    progress = finetune.status.progress if finetune else None
    return JobLine(
        job=short_job(name, scene.name),
        phase=job.status.phase.value,
        step=progress.step if progress else 0,
        steps=progress.steps if progress else 0,
        loss=finetune.status.metrics.get("loss") if finetune else None,
        tokens_per_second=progress.tokens_per_second if progress else None,
        eta_seconds=progress.eta_seconds if progress else None,
        doing=_doing(job, finetune),
    )


def _doing(job: FinetuneJob, finetune: Finetune | None) -> str:
    phase = job.status.phase
    if phase == JobPhase.SUCCEEDED and job.status.score is not None:
        early = ", stopped early" if job.status.is_true(STOPPED_EARLY) else ""
        return f"{job.status.metric or 'score'} {number(job.status.score)}{early}"
    if phase in (JobPhase.FAILED, JobPhase.STOPPED):
        return ": ".join(part for part in (job.status.reason, job.status.message) if part)
    if finetune is None or phase not in (JobPhase.PENDING, JobPhase.FINETUNING):
        return ""
    if finetune.status.progress.activity:
        on_the_way = finetune.status.metrics.get("evalScore")
        training = "" if on_the_way is None else f"score {number(on_the_way)} on validate rows"
        activity = finetune.status.progress.activity
        return training if activity == "training" else activity
    ready = finetune.status.condition("Ready")
    return finetune.status.message or finetune.status.reason or (ready.message if ready else "") or ""


def blocked(scene: Scene) -> list[str]:
    """What its models, data and parameter groups are not ready for, as far as they say so."""
    told: list[str] = []
    for title in sorted(named_materials(scene.experiment)) if scene.experiment and scene.whole else ():
        body = scene.materials.get(title)
        ready = _ready(body)
        if body is None:
            told.append(f"{title}: does not exist; apply it, and the experiment goes on")
        elif ready is not None and ready.status == "False":
            told.append(f"{title}: {ready.reason}: {ready.message}")
    return told


def noticed(scene: Scene) -> list[str]:
    """What its data lacks, said before hours go into it: rows that are left out, no row to score on."""
    told: list[str] = []
    scoring = scene.experiment.spec.scoring if scene.experiment else None
    for title in sorted(named_materials(scene.experiment)) if scene.experiment else ():
        body = scene.materials.get(title)
        report = body.status.report if isinstance(body, Dataset) else None
        if report is None or scoring is None:
            continue
        if report.dropped:
            reasons = [
                f"{r.count:,} {r.reason} ({', '.join(r.where[:SHOWN_PLACES])})" for r in report.reasons
            ]
            why = visible("; ".join(reasons))
            told.append(f"{title}: {report.dropped:,} of {report.read:,} rows are left out: {why}")
        here, split = scoring.dataset in (None, title.partition("/")[2]), scoring.split.value
        if here and not scoring.questions and not report.splits.get(split):
            fix = f"name files for it, or give split.{split} a larger share"
            told.append(f"{title}: no row is in the {split} split, so nothing can be scored; {fix}")
    return told


def stuck(scene: Scene) -> bool:
    """Nothing of it works or will, before somebody mends what `blocked` tells."""
    open_phases = {job.status.phase for job in scene.jobs.values() if not job.status.phase.terminal}
    return open_phases == {JobPhase.PENDING} and bool(blocked(scene))


def _ready(body: Resource | None) -> Condition | None:
    status = getattr(body, "status", None)
    found = status.condition("Ready") if status is not None else None
    return found if isinstance(found, Condition) else None


def named_materials(experiment: FinetuneExperiment) -> set[str]:
    """The objects an experiment is made of, as Kind/name."""
    spec = experiment.spec
    names = {f"LLM/{job.llm}" for job in spec.jobs} | {f"Dataset/{job.dataset}" for job in spec.jobs}
    names |= {f"Hyperparameter/{job.hyperparameter.ref}" for job in spec.jobs}
    if spec.matrix is not None:
        names |= {f"LLM/{name}" for name in spec.matrix.llms}
        names |= {f"Dataset/{name}" for name in spec.matrix.datasets}
        names |= {f"Hyperparameter/{name}" for name in spec.matrix.hyperparameters}
    return names


def changed(before: Mapping[str, str], lines: Iterable[JobLine]) -> list[JobLine]:
    """Those whose phase is another than in `before`, which maps job to phase."""
    return [line for line in lines if before.get(line.job) != line.phase]
