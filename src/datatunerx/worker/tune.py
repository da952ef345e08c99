"""Many trainings over one base: load it, train all adapters in one loop, score all while it is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from datatunerx import storage
from datatunerx.data import ChatTemplate, DataError
from datatunerx.resources.enums import FinetunePhase, RunPhase
from datatunerx.runs import (
    Command,
    Event,
    EventType,
    JobOutcome,
    MeasurePlan,
    RunResult,
    ScoreOutcome,
    TuneJob,
    TunePlan,
    Verb,
)
from datatunerx.worker.background import check_model, in_background, load
from datatunerx.worker.commands import Commands
from datatunerx.worker.credentials import Secrets
from datatunerx.worker.failure import explain
from datatunerx.worker.journal import Journal
from datatunerx.worker.prepare import Preparation, Prepared, files_beside
from datatunerx.worker.record import write_record, write_rows
from datatunerx.worker.references import STOPPED, check_references
from datatunerx.worker.stopping import Interrupted, Stopping

if TYPE_CHECKING:  # torch is imported in the background, while the data is being tokenised
    from datatunerx.modeling.base import Base
    from datatunerx.training.lanes import Job
    from datatunerx.training.loop import Trained
    from datatunerx.worker.on_the_way import OnTheWay


@dataclass
class Tuning:
    """One tune run as far as it has come."""

    plan: TunePlan
    journal: Journal
    stopping: Stopping
    secrets: Secrets
    outcomes: dict[str, JobOutcome] = field(default_factory=dict)
    scores: list[ScoreOutcome] = field(default_factory=list)

    @property
    def model_dir(self) -> Path:
        return storage.local_path(self.plan.model.uri)

    @property
    def cache_dir(self) -> Path:
        return storage.local_path(self.journal.plan.cache_uri)


def tune(plan: TunePlan, journal: Journal, stopping: Stopping, secrets: Secrets) -> RunResult:
    """The run has Succeeded if its jobs could be looked after, also where single ones failed."""
    tuning = Tuning(plan, journal, stopping, secrets)
    try:
        _tune(tuning)
    except Interrupted:
        return _result(tuning, RunPhase.STOPPED, "Stopped", f"stopped while {journal.doing}")
    return _result(tuning, RunPhase.SUCCEEDED)


def _result(tuning: Tuning, phase: RunPhase, reason: str = "", message: str = "") -> RunResult:
    return RunResult(
        plan_id=tuning.journal.plan.id, phase=phase, reason=reason, message=message,
        jobs=tuning.outcomes, scores=tuning.scores,
    )  # fmt: skip


def _tune(tuning: Tuning) -> None:
    plan, journal = tuning.plan, tuning.journal
    check_model(plan.model, storage.local_path(journal.plan.models_uri))
    write_record(journal.plan)
    # 1. The base is loaded while the data is tokenised
    loading = in_background(lambda: load(tuning.model_dir, plan.jobs[0].parameters.precision))
    template = ChatTemplate.load(tuning.model_dir, plan.model.template)
    prepared = _scorable(tuning, _prepare(tuning, template))
    for name in {one.job.data for one in prepared}:
        write_rows(next(data for data in plan.data if data.name == name), journal.plan)
    journal.activity(f"loading the base {plan.model.name}")
    base = loading.result()
    # 2. One loop for all jobs; a wish to stop is looked at after each step
    with tuning.stopping.deferred():
        trained = _train(tuning, base, template, prepared)
    tuning.outcomes |= {name: one.outcome for name, one in trained.items()}
    if tuning.stopping.asked:
        raise Interrupted
    # 3. Score here: anybody else would load the base a second time
    _score(tuning, base, template, trained)


def _prepare(tuning: Tuning, template: ChatTemplate) -> list[Prepared]:
    """The jobs that can train; the others have failed, each for itself."""
    shared = Preparation(
        model=tuning.plan.model, data={data.name: data for data in tuning.plan.data},
        cache=tuning.cache_dir, journal=tuning.journal, template=template,
    )  # fmt: skip
    prepared = []
    for job in tuning.plan.jobs:
        try:
            prepared.append(shared.prepare(job))
        except (DataError, storage.StorageError) as error:
            _fail(tuning, job, error)
    return prepared


def _scorable(tuning: Tuning, prepared: list[Prepared]) -> list[Prepared]:
    """Those that something can be said of once they are trained; the others have failed."""
    data = {one.name: one for one in tuning.plan.data}
    fine: set[str] = set()
    left = []
    for one in prepared:
        measure, stop = one.job.measure, one.job.early_stop
        try:
            if measure and measure.data:
                for warning in check_references(measure, data[measure.data], tuning.journal):
                    tuning.journal.warn(warning, one.job.name)
            if stop and not len(one.validate):
                fix = "name files for it, give split.validate a share, or leave earlyStopping out"
                raise DataError("earlyStopping: the validate split has no rows", one.job.data, fix=fix)
            if stop and stop.score and stop.score.key() not in fine:
                check_references(stop.score, data[one.job.data], tuning.journal, STOPPED)
                fine.add(stop.score.key())
        except DataError as error:
            _fail(tuning, one.job, error)
        else:
            left.append(one)
    return left


def _fail(tuning: Tuning, job: TuneJob, error: Exception) -> None:
    reason, message = explain(error, tuning.journal.doing)
    print(f"{job.name} failed: {reason}: {message}", flush=True)
    outcome = JobOutcome(phase=FinetunePhase.FAILED, reason=reason, message=message)
    tuning.outcomes[job.name] = outcome
    tuning.journal.write(Event(type=EventType.JOB, job=job.name, outcome=outcome))


def _train(
    tuning: Tuning, base: "Base", template: ChatTemplate, prepared: Sequence[Prepared]
) -> dict[str, "Trained"]:
    if not prepared:
        return {}
    from tokenizers import Tokenizer

    from datatunerx.training.capacity import tick_capacity
    from datatunerx.training.loop import train
    from datatunerx.training.schedule import plan_course

    journal = tuning.journal
    on_the_way, prepared = _on_the_way(tuning, base, template, prepared)
    beside = files_beside(tuning.model_dir, template)
    jobs = [_job(one, beside) for one in prepared]
    for job in jobs:
        steps = plan_course(job.parameters, len(job.rows)).steps
        if warning := job.parameters.no_checkpoint_before_end(steps):
            journal.warn(warning, job.name)
    journal.activity("measuring how many tokens this device takes at once")
    capacity = tick_capacity(base, tuning.cache_dir)
    commands = Commands(journal)
    decoder = Tokenizer.from_file(str(tuning.model_dir / "tokenizer.json"))

    def poll() -> list[Command]:
        found = commands.new()
        if tuning.stopping.asked:
            found += [Command(verb=Verb.SUSPEND, job=job.name) for job in jobs]
        return found

    journal.activity(f"training {len(jobs)} adapters" if len(jobs) > 1 else "training 1 adapter")
    return train(
        base, jobs, on_event=journal.write, poll_commands=poll,
        leaving=lambda: tuning.stopping.asked, score=on_the_way, capacity=capacity,
        stop_ids=template.stop_ids, decode=decoder.decode, base_name=str(tuning.model_dir),
    )  # fmt: skip


def _on_the_way(
    tuning: Tuning, base: "Base", template: ChatTemplate, prepared: Sequence[Prepared]
) -> tuple["OnTheWay", list[Prepared]]:
    """Who scores at evaluations, and the jobs that can train; the others have failed."""
    from datatunerx.worker.on_the_way import OnTheWay

    way = OnTheWay(base, template, tuning.journal)
    data = {one.name: one for one in tuning.plan.data}
    left = []
    for one in prepared:
        stop = one.job.early_stop
        try:
            if stop and stop.score:
                way.add(one.job.name, stop.score, data[one.job.data])
        except DataError as error:
            _fail(tuning, one.job, error)
        else:
            left.append(one)
    return way, left


def _job(prepared: Prepared, beside: dict[str, bytes]) -> "Job":
    from datatunerx.training.lanes import Job, SamplePrompt

    job = prepared.job
    return Job(
        name=job.name, parameters=job.parameters, rows=prepared.rows, folder=prepared.folder,
        validate=prepared.validate, row_names=prepared.rows.row_numbers, extra_files=beside,
        samples=[SamplePrompt(text, ids) for text, ids in prepared.samples],
        start_from=storage.local_path(job.start_from_uri) if job.start_from_uri else None,
        early_stop=job.early_stop,
    )  # fmt: skip


def _score(tuning: Tuning, base: "Base", template: ChatTemplate, trained: dict[str, "Trained"]) -> None:
    """Everybody with one measure is scored together: the base, and each adapter that ended well."""
    from datatunerx.worker.measure import Subject, measure

    data = {one.name: one for one in tuning.plan.data}
    asked: dict[str, tuple[MeasurePlan, list[Subject]]] = {}
    for plan in tuning.plan.baselines:
        asked.setdefault(plan.key(), (plan, []))[1].append(Subject("", None))
    for job in tuning.plan.jobs:
        one = trained.get(job.name)
        if job.measure and one and one.adapter and one.outcome.phase is FinetunePhase.SUCCEEDED:
            kept = one.outcome.checkpoint
            folder = storage.local_path(kept.uri) if kept else None
            subject = Subject(job.name, one.adapter, folder)
            asked.setdefault(job.measure.key(), (job.measure, []))[1].append(subject)
    for plan, subjects in asked.values():
        files = data[plan.data] if plan.data else None
        tuning.scores += measure(base, template, subjects, plan, files, tuning.journal, tuning.secrets)
