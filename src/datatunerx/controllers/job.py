"""FinetuneJob: one Finetune, then its score."""

from datatunerx.client.errors import Conflict, NotFound
from datatunerx.client.informer import Key
from datatunerx.controllers.context import Context
from datatunerx.controllers.finetune import end_unless_needed
from datatunerx.controllers.objects import (
    CHILDREN,
    WORKER,
    NameTaken,
    acknowledge,
    ask_again,
    asked_again,
    delete,
    draft,
    ensure,
    hold,
    is_gone,
    leave_after,
    metadata_of,
    note_retry,
    owner_uids,
    pass_suspend,
    set_phase,
    suspended_by,
    tell,
    write_name_taken,
    write_status,
)
from datatunerx.resources.enums import FinetunePhase, JobPhase, ScoringPhase
from datatunerx.resources.finetune import Finetune, FinetuneJob
from datatunerx.resources.outcome import (
    InferenceService,
    InferenceServiceSpec,
    LLMCheckpoint,
    ModelRef,
    Run,
    Scoring,
    ScoringSpec,
)
from datatunerx.runs.events import STOPPED_EARLY

_PHASES = {
    FinetunePhase.PENDING: JobPhase.PENDING,
    FinetunePhase.RUNNING: JobPhase.FINETUNING,
    FinetunePhase.RETRYING: JobPhase.FINETUNING,
    FinetunePhase.SUSPENDED: JobPhase.SUSPENDED,
    FinetunePhase.FAILED: JobPhase.FAILED,
    FinetunePhase.STOPPED: JobPhase.STOPPED,
}


class JobReconciler:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, key: Key) -> float | None:
        context = self._context
        job = context.world.get(FinetuneJob, *key)
        if job is None:
            return None
        if job.metadata.deletion_timestamp:
            world, uid = context.world, job.metadata.uid
            # What serves the checkpoint goes first: it would keep it, and so the Finetune.
            children = [world.owned(kind, uid) for kind in (InferenceService, Scoring, Finetune)]
            return await leave_after(context, job, [child for found in children for child in found])
        if job.status.phase is JobPhase.FAILED and (value := asked_again(job)):
            await self._try_again(job, value)
        elif job.status.phase.terminal:
            await acknowledge(context, job)
        if job.status.phase.terminal:
            return None
        if not await hold(context, job, CHILDREN):
            return None
        wanted = draft(job)
        note_retry(job, wanted)
        try:
            finetune = await self._finetune(job)
        except NameTaken as error:
            await write_name_taken(context, job, error)
            raise
        if finetune is None:
            set_phase(wanted, JobPhase.FAILED, "FinetuneDeleted", "its Finetune was deleted before it ended")
        else:
            await self._follow(job, finetune, wanted)
        status = wanted.status
        if job.spec.serve:
            await self._serve(job, wanted)
        done = status.phase is JobPhase.SUCCEEDED
        status.set_condition("Ready", done, status.reason or status.phase.value, status.message or "")
        await write_status(context, job, wanted)
        if status.phase is not job.status.phase and status.phase is not JobPhase.PENDING:
            failed = status.phase is JobPhase.FAILED
            said = status.message or f"the job is {status.phase.value.lower()}"
            await tell(context, job, status.phase.value, said, warning=failed)
        return None

    async def _try_again(self, job: FinetuneJob, value: str) -> None:
        """What failed of it first, its training or its scoring; then the job itself is open again."""
        context, at = self._context, (job.metadata.namespace, job.metadata.name)
        wanted = draft(job)
        finetune = context.world.get(Finetune, *at)
        scoring = context.world.get(Scoring, *at)
        if finetune is None:
            if not await is_gone(context, Finetune, *at):
                return
            wanted.status.finetune = wanted.status.scoring = None  # deleted, and now wanted again
        elif finetune.status.phase is FinetunePhase.FAILED:
            if not await ask_again(context, finetune, value):
                return
        elif job.status.scoring and scoring is None:
            if not await is_gone(context, Scoring, *at):
                return
            wanted.status.scoring = None
        elif (
            scoring
            and scoring.status.phase is ScoringPhase.FAILED
            and not await ask_again(context, scoring, value)
        ):
            return
        wanted.status.retried_for = value
        set_phase(wanted, JobPhase.PENDING, "Retried", "what failed of it is tried again")
        wanted.status.set_condition("Ready", False, "Retried", wanted.status.message or "")
        await write_status(context, job, wanted)

    async def _serve(self, job: FinetuneJob, wanted: FinetuneJob) -> None:
        """Once it has succeeded, a service of the job's own name; what becomes of it is the user's affair."""
        status, name = wanted.status, job.metadata.name
        if status.phase is not JobPhase.SUCCEEDED or status.checkpoint is None:
            status.set_condition("Serving", False, "NotYet", "it is served once it has succeeded")
            return
        spec = InferenceServiceSpec(models=[ModelRef(name=status.checkpoint)])
        service = InferenceService(metadata=metadata_of(name, [job]), spec=spec)
        await ensure(self._context, job, service)
        status.set_condition("Serving", True, "Made", f"InferenceService {name} serves it")

    async def _finetune(self, job: FinetuneJob) -> Finetune | None:
        """Its Finetune, made unless it was there once; None if somebody deleted it."""
        context, name = self._context, job.metadata.name
        if job.status.finetune and context.world.get(Finetune, job.metadata.namespace, name) is None:
            if await is_gone(context, Finetune, job.metadata.namespace, name):
                return None
            raise Conflict(409, "Conflict", f"Finetune {name} has not been seen yet")
        suspend = job.spec.suspend or job.spec.finetune.suspend
        spec = job.spec.finetune.model_copy(update={"suspend": suspend})
        notes = suspended_by(job, job.spec.suspend)
        metadata = metadata_of(name, [job], finalizers=(WORKER,), annotations=notes)
        made = Finetune(metadata=metadata, spec=spec)
        finetune = await ensure(context, job, made)
        await self._pass_on(job, finetune)
        return finetune

    async def _pass_on(self, job: FinetuneJob, finetune: Finetune) -> None:
        """Suspend and stop reach the Finetune."""
        if finetune.status.phase.terminal or finetune.metadata.deletion_timestamp:
            return
        if job.spec.stop and not finetune.spec.stop:
            body = {"spec": {"stop": job.spec.stop.value}}
            await self._context.api.patch(Finetune, finetune.metadata.name, body, finetune.metadata.namespace)
        else:
            await pass_suspend(self._context, job, job.spec.suspend, finetune)

    async def _follow(self, job: FinetuneJob, finetune: Finetune, wanted: FinetuneJob) -> None:
        status, name = wanted.status, job.metadata.name
        status.finetune = name
        if self._context.world.get(LLMCheckpoint, job.metadata.namespace, name):
            status.checkpoint = name
        if finetune.status.phase is not FinetunePhase.SUCCEEDED:
            phase = _PHASES[finetune.status.phase]
            set_phase(wanted, phase, finetune.status.reason, finetune.status.message)
            return
        status.checkpoint = name
        if early := finetune.status.condition(STOPPED_EARLY):
            status.set_condition(early.type, early.status == "True", early.reason, early.message)
        if job.spec.stop and await self._stop_scoring(job, finetune):
            status.scoring = None
            set_phase(
                wanted, JobPhase.STOPPED, "Stopped", "stopped before it was scored; its checkpoint is kept"
            )
            return
        scoring = await self._scoring(job, finetune)
        status.scoring, status.metric = name, job.spec.scoring.ranks
        if scoring is None:
            message = "its Scoring was deleted before it ended; the checkpoint is kept"
            set_phase(wanted, JobPhase.FAILED, "ScoringFailed", message)
        elif scoring.status.phase is ScoringPhase.SUCCEEDED:
            status.score = scoring.status.score
            told = scoring.status.reason, scoring.status.message
            if scoring.status.reason is None and status.is_true(STOPPED_EARLY):
                told = finetune.status.reason, finetune.status.message
            set_phase(wanted, JobPhase.SUCCEEDED, *told)
        elif scoring.status.phase is ScoringPhase.FAILED:
            why = f"{scoring.status.reason}: {scoring.status.message}"
            set_phase(wanted, JobPhase.FAILED, "ScoringFailed", f"{why}; the checkpoint is kept")
        else:
            said = scoring.status.message or ""
            if job.spec.suspend:
                said = f"suspend comes too late: the training has ended and its score is awaited; {said}"
            set_phase(wanted, JobPhase.SCORING, scoring.status.reason, said)

    async def _stop_scoring(self, job: FinetuneJob, finetune: Finetune) -> bool:
        """End the measuring, with the run that does it once nobody else needs it. False if it has ended."""
        context, name, namespace = self._context, job.metadata.name, job.metadata.namespace
        try:
            scoring = await context.api.get(Scoring, name, namespace)
        except NotFound:
            pass
        else:
            if job.metadata.uid in owner_uids(scoring):
                if scoring.status.phase in (ScoringPhase.SUCCEEDED, ScoringPhase.FAILED):
                    return False
                await delete(context, scoring)  # a run of its own goes with it; kept, it would start one
        run = context.world.get(Run, namespace, finetune.status.run) if finetune.status.run else None
        if run:
            await end_unless_needed(context, run)
        return True

    async def _scoring(self, job: FinetuneJob, finetune: Finetune) -> Scoring | None:
        context, name = self._context, job.metadata.name
        if job.status.scoring and context.world.get(Scoring, job.metadata.namespace, name) is None:
            if await is_gone(context, Scoring, job.metadata.namespace, name):
                return None
            raise Conflict(409, "Conflict", f"Scoring {name} has not been seen yet")
        spec = ScoringSpec(
            model=ModelRef(kind="LLMCheckpoint", name=name),
            dataset=job.spec.scoring.dataset or finetune.spec.dataset,
            measure=job.spec.scoring,
            run=finetune.status.run,
        )
        return await ensure(context, job, Scoring(metadata=metadata_of(name, [job]), spec=spec))
