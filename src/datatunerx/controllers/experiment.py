"""FinetuneExperiment: one job per combination, the base scored beside them, one verdict."""

from datatunerx.client.errors import Conflict
from datatunerx.client.informer import Key
from datatunerx.controllers.comparing import with_differences
from datatunerx.controllers.context import Context
from datatunerx.controllers.held_up import held_up, in_words, named
from datatunerx.controllers.objects import (
    CHILDREN,
    NameTaken,
    acknowledge,
    delete,
    draft,
    ensure,
    hold,
    is_gone,
    leave_after,
    metadata_of,
    pass_suspend,
    suspended_by,
    tell,
    write_name_taken,
    write_status,
)
from datatunerx.controllers.readiness import base_carrier
from datatunerx.controllers.verdict import measured, rank, recommend
from datatunerx.resources.enums import ExperimentPhase, JobPhase, ScoringPhase
from datatunerx.resources.experiment import FinetuneExperiment, JobFailure, JobsSummary, Ranked
from datatunerx.resources.finetune import Finetune, FinetuneJob, FinetuneJobSpec, FinetuneSpec
from datatunerx.resources.outcome import ModelRef, Scoring, ScoringSpec
from datatunerx.resources.wire import now
from datatunerx.runs.compile import Combination, base_names, combinations
from datatunerx.runs.events import STOPPED_EARLY

Jobs = dict[str, FinetuneJob | None]
"""By name; None is a job that was there and was deleted."""


class ExperimentReconciler:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, key: Key) -> float | None:
        context = self._context
        experiment = context.world.get(FinetuneExperiment, *key)
        if experiment is None:
            return None
        if experiment.metadata.deletion_timestamp:
            world, uid = context.world, experiment.metadata.uid
            return await leave_after(
                context, experiment, [*world.owned(FinetuneJob, uid), *world.owned(Scoring, uid)]
            )
        if experiment.status.phase.terminal:
            if not await self._reopen(experiment):
                await acknowledge(context, experiment)
            return None
        if not await hold(context, experiment, CHILDREN):
            return None
        combos = combinations(experiment)
        try:
            jobs = await self._jobs(experiment, combos)
        except NameTaken as error:
            await write_name_taken(context, experiment, error)
            raise
        for job in jobs.values():
            if job and not job.status.phase.terminal and not job.metadata.deletion_timestamp:
                await pass_suspend(context, experiment, experiment.spec.suspend, job)
        bases = await self._bases(experiment, combos, jobs)
        wanted = draft(experiment)
        self._sum_up(wanted, combos, jobs, bases)
        if wanted.status.phase.terminal:
            for scoring in bases.values():
                if scoring and _pending(scoring):
                    await delete(context, scoring)  # no job succeeded: there is nothing to compare it with
        await self._write(experiment, wanted)
        return None

    async def _reopen(self, experiment: FinetuneExperiment) -> bool:
        """An ended experiment goes on if a user had one of its jobs, or its base's Scoring, tried again."""
        context, uid = self._context, experiment.metadata.uid
        seen: list[FinetuneJob | Scoring] = [
            *(job for job in context.world.owned(FinetuneJob, uid) if not job.status.phase.terminal),
            *(scoring for scoring in context.world.owned(Scoring, uid) if _pending(scoring)),
        ]
        for child in seen:
            # What we see may be older than the experiment's end; what the API says is not.
            if await is_gone(context, type(child), child.metadata.namespace, child.metadata.name):
                continue
            live = await context.api.get(type(child), child.metadata.name, child.metadata.namespace)
            open_ = _pending(live) if isinstance(live, Scoring) else not live.status.phase.terminal
            if open_ and live.status.retried_for and not live.metadata.deletion_timestamp:
                wanted = draft(experiment)
                status = wanted.status
                status.phase, status.reason, status.message = ExperimentPhase.RUNNING, None, "tried again"
                status.best = status.finished_at = None
                status.set_condition("Complete", False, "Retried", f"{live.kind} {live.metadata.name}")
                await self._write(experiment, wanted)
                return True
        return False

    async def _jobs(self, experiment: FinetuneExperiment, combos: list[Combination]) -> Jobs:
        """All jobs, made unless they were there once: a job that somebody deleted is not run again."""
        context, namespace = self._context, experiment.metadata.namespace
        made_before = experiment.status.jobs.total > 0
        jobs: Jobs = {}
        for combo in combos:
            found = context.world.get(FinetuneJob, namespace, combo.name)
            if found is None and made_before:
                if not await is_gone(context, FinetuneJob, namespace, combo.name):
                    raise Conflict(409, "Conflict", f"FinetuneJob {combo.name} has not been seen yet")
                jobs[combo.name] = None
            else:
                jobs[combo.name] = await ensure(context, experiment, job_of(experiment, combo))
        return jobs

    async def _bases(
        self, experiment: FinetuneExperiment, combos: list[Combination], jobs: Jobs
    ) -> dict[tuple[str, str], Scoring | None]:
        """The base's Scoring per (llm, dataset), once the run that brings it along is known.

        Only where a job has something to be compared with; None is a Scoring that is still to come.
        """
        if not experiment.spec.baseline:
            return {}
        found: dict[tuple[str, str], Scoring | None] = {}
        namespace = experiment.metadata.namespace
        for (llm, dataset), name in base_names(experiment).items():
            present = self._context.world.get(Scoring, namespace, name)
            if present and any(o.uid == experiment.metadata.uid for o in present.metadata.owner_references):
                found[llm, dataset] = present
                continue
            mates = [job for c in combos if (c.llm, c.dataset) == (llm, dataset) and (job := jobs[c.name])]
            if not any(job.status.phase in (JobPhase.SCORING, JobPhase.SUCCEEDED) for job in mates):
                continue
            found[llm, dataset] = None
            carrier = base_carrier(experiment, llm, dataset) or ""
            training = self._context.world.get(Finetune, namespace, carrier)
            if training is None or training.status.phase.terminal or jobs[carrier] is None:
                spec = ScoringSpec(
                    model=ModelRef(kind="LLM", name=llm),
                    dataset=experiment.spec.scoring.dataset or dataset,
                    measure=experiment.spec.scoring,
                    run=_brought_by(training),
                )
                scoring = Scoring(metadata=metadata_of(name, [experiment]), spec=spec)
                found[llm, dataset] = await ensure(self._context, experiment, scoring)
        return found

    def _sum_up(
        self,
        wanted: FinetuneExperiment,
        combos: list[Combination],
        jobs: Jobs,
        bases: dict[tuple[str, str], Scoring | None],
    ) -> None:
        status = wanted.status
        status.metric = wanted.spec.scoring.ranks
        status.started_at = status.started_at or now()
        status.jobs = summarize(jobs)
        status.failures = [f for c in combos if (f := self._failure(wanted, c.name, jobs[c.name]))]
        rows = [self._row(c, job) for c in combos if (job := jobs[c.name]) and _succeeded(job)]
        rows += [_base_row(llm, dataset, scoring) for (llm, dataset), scoring in bases.items() if scoring]
        status.ranking = rank(rows, measured(status.metric, rows))
        ended = status.jobs.succeeded + status.jobs.failed + status.jobs.stopped
        if early := [name for name, job in jobs.items() if job and job.status.is_true(STOPPED_EARLY)]:
            message = f"{len(early)} of {status.jobs.total} jobs stopped early: {named(early)}"
            status.set_condition(STOPPED_EARLY, True, "JobsStoppedEarly", message)
        if ended < status.jobs.total:
            self._say_how_far(wanted, ended, jobs)
        elif status.jobs.succeeded and (open_ := [s for s in bases.values() if _pending(s)]):
            status.phase, status.reason = ExperimentPhase.RUNNING, "ScoringBase"
            status.message = "all jobs have ended; the untouched base is being scored"
            waits = [s.status.message for s in open_ if s and s.status.phase is ScoringPhase.PENDING]
            status.message += "".join(f"; {why}" for why in dict.fromkeys(waits) if why)
            status.set_condition("Ready", False, "ScoringBase", status.message)
        else:
            self._conclude(wanted)

    def _say_how_far(self, wanted: FinetuneExperiment, ended: int, jobs: Jobs) -> None:
        """Of one that has not ended; what holds its jobs up is its own condition, too."""
        status = wanted.status
        count = status.jobs
        if wanted.spec.suspend and ended + count.suspended == count.total:
            status.phase = ExperimentPhase.SUSPENDED
        else:  # Pending as long as none of its jobs has begun
            begun = count.pending < count.total
            status.phase = ExperimentPhase.RUNNING if begun else ExperimentPhase.PENDING
        status.message = f"{ended} of {count.total} jobs have ended"
        found = held_up(job for job in jobs.values() if job)
        if found:
            status.message += f"; cannot begin: {in_words(found)}"
        # one word for all of it only if nothing else of it goes on
        stands = count.pending == count.total - ended == sum(map(len, found.values()))
        status.reason = next(iter(found))[0] if stands else None
        status.set_condition("Ready", False, status.reason or status.phase.value, status.message)

    def _conclude(self, wanted: FinetuneExperiment) -> None:
        status = wanted.status
        jobs = status.jobs
        if jobs.succeeded:
            status.phase, status.reason = ExperimentPhase.SUCCEEDED, None
        elif jobs.failed:
            status.phase, status.reason = ExperimentPhase.FAILED, "NoJobSucceeded"
        else:
            status.phase, status.reason = ExperimentPhase.STOPPED, "Stopped"
        metric = measured(wanted.spec.scoring.ranks, status.ranking)
        status.ranking, against = with_differences(
            self._context.world, wanted.metadata.namespace, status.ranking, metric
        )
        status.best = recommend(status.ranking, metric, against)
        lost = [
            f"{count} {word}" for count, word in ((jobs.failed, "failed"), (jobs.stopped, "stopped")) if count
        ]
        status.message = f"{jobs.succeeded} of {jobs.total} jobs succeeded"
        status.message += f", {', '.join(lost)}" if lost else ""
        if jobs.succeeded and status.best is None:
            status.message += "; none of them has a score, so none is recommended"
        status.finished_at = now()
        ready = status.phase is ExperimentPhase.SUCCEEDED
        status.set_condition("Ready", ready, status.reason or status.phase.value, status.message)
        status.set_condition("Complete", True, status.phase.value, status.message)

    def _row(self, combo: Combination, job: FinetuneJob) -> Ranked:
        row = Ranked(
            name=combo.name,
            llm=combo.llm,
            dataset=combo.dataset,
            measured_on=job.spec.scoring.dataset or combo.dataset,
            hyperparameter=combo.hyperparameter.ref,
            checkpoint=job.status.checkpoint,
            scoring=job.status.scoring,
        )
        name = job.status.scoring
        scoring = self._context.world.get(Scoring, job.metadata.namespace, name) if name else None
        if scoring is None:
            return row.model_copy(update={"score": job.status.score})
        return _scored(row, scoring)

    def _failure(self, wanted: FinetuneExperiment, name: str, job: FinetuneJob | None) -> JobFailure | None:
        if job is None:
            message = "the job was deleted before the experiment ended"
            return JobFailure(job=name, phase=JobPhase.STOPPED, reason="JobDeleted", message=message)
        if job.status.phase not in (JobPhase.FAILED, JobPhase.STOPPED):
            return None
        training = self._context.world.get(Finetune, wanted.metadata.namespace, name)
        return JobFailure(
            job=name,
            phase=job.status.phase,
            reason=job.status.reason or "",
            message=job.status.message or "",
            log_tail=training.status.log_tail if training else None,
        )

    async def _write(self, experiment: FinetuneExperiment, wanted: FinetuneExperiment) -> None:
        await write_status(self._context, experiment, wanted)
        status = wanted.status
        if status.phase is experiment.status.phase:
            return
        said = status.best.why if status.best else status.message or status.phase.value
        bad = status.phase is ExperimentPhase.FAILED
        await tell(self._context, experiment, status.phase.value, said, warning=bad)


def job_of(experiment: FinetuneExperiment, combo: Combination) -> FinetuneJob:
    """The job of one combination, as it is made."""
    spec = experiment.spec
    finetune = FinetuneSpec(
        llm=combo.llm,
        dataset=combo.dataset,
        hyperparameter=combo.hyperparameter,
        resources=spec.resources,
        samples=spec.samples,
        sample_system_prompt=spec.sample_system_prompt,
        early_stopping=spec.early_stopping,
        retry_limit=spec.retry_limit,
        priority=spec.priority,
    )
    notes = suspended_by(experiment, spec.suspend)
    return FinetuneJob(
        metadata=metadata_of(combo.name, [experiment], finalizers=(CHILDREN,), annotations=notes),
        spec=FinetuneJobSpec(finetune=finetune, scoring=spec.scoring, suspend=spec.suspend),
    )


def summarize(jobs: Jobs) -> JobsSummary:
    """How many jobs are where."""
    count = JobsSummary(total=len(jobs))
    for job in jobs.values():
        match job.status.phase if job else JobPhase.STOPPED:
            case JobPhase.PENDING:
                count.pending += 1
            case JobPhase.FINETUNING | JobPhase.SCORING:
                count.running += 1
            case JobPhase.SUSPENDED:
                count.suspended += 1
            case JobPhase.SUCCEEDED:
                count.succeeded += 1
            case JobPhase.FAILED:
                count.failed += 1
            case JobPhase.STOPPED:
                count.stopped += 1
    ended = count.succeeded + count.failed + count.stopped
    count.summary = f"{ended}/{count.total}"
    return count


def _brought_by(training: Finetune | None) -> str | None:
    """The run that has scored the base beside this training, if it has one."""
    return training.status.run if training else None


def _succeeded(job: FinetuneJob) -> bool:
    return job.status.phase is JobPhase.SUCCEEDED


def _pending(scoring: Scoring | None) -> bool:
    return scoring is None or scoring.status.phase in (ScoringPhase.PENDING, ScoringPhase.RUNNING)


def _base_row(llm: str, dataset: str, scoring: Scoring) -> Ranked:
    row = Ranked(name=llm, base=True, llm=llm, dataset=dataset, scoring=scoring.metadata.name)
    return _scored(row, scoring)


def _scored(row: Ranked, scoring: Scoring) -> Ranked:
    status = scoring.status
    first = status.metrics.get(status.metric or "")
    return row.model_copy(
        update={
            "measured_on": scoring.spec.measure.dataset or scoring.spec.dataset or "",
            "score": status.score,
            "low": status.low,
            "high": status.high,
            "n": first.n if first else 0,
            "metrics": status.metrics,
        }
    )
