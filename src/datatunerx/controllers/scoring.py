"""Scoring: takes the score from the run that measured the model, else has a run of its own."""

from datatunerx.client.informer import Key
from datatunerx.controllers.comparing import compare_scorings
from datatunerx.controllers.context import Context
from datatunerx.controllers.folder import publish_plan, read_result
from datatunerx.controllers.objects import (
    WORKER,
    acknowledge,
    asked_again,
    draft,
    ensure,
    is_gone,
    metadata_of,
    must_be_fresh,
    set_phase,
    tell,
    write_status,
)
from datatunerx.controllers.readiness import Waiting, ready_dataset, ready_model, resolve_measure
from datatunerx.controllers.run import RETRYABLE
from datatunerx.controllers.secrets import secrets_of
from datatunerx.controllers.stored import stored_predictions
from datatunerx.resources.enums import Precision, RunPhase, RunType, ScoringPhase
from datatunerx.resources.material import LLM
from datatunerx.resources.outcome import LLMCheckpoint, ModelRef, Run, RunSpec, Scoring
from datatunerx.resources.training import TrainingParameters
from datatunerx.runs.compile import data_files, model_files, run_name, score
from datatunerx.runs.plan import RunPlan, ScorePlan
from datatunerx.runs.result import ScoreOutcome

ENDED = (ScoringPhase.SUCCEEDED, ScoringPhase.FAILED)
MAX_DEATHS = 2
"""Workers that may die on one Scoring before it has failed. One that was interrupted does not count."""


class ScoringReconciler:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, key: Key) -> float | None:
        context = self._context
        scoring = context.world.get(Scoring, *key)
        if scoring is None or scoring.metadata.deletion_timestamp:
            return None
        if _may_be_measured_again(scoring) and (value := asked_again(scoring)):
            await self._try_again(scoring, value)
            return None
        if scoring.status.phase in ENDED:
            if not await self._compare(scoring):
                await acknowledge(context, scoring)
            return None
        wanted = draft(scoring)
        status = wanted.status
        status.metric = scoring.spec.measure.ranks
        if not await self._from_named_run(scoring, wanted):
            await self._from_own_run(scoring, wanted)
        ended = status.phase in ENDED
        ready = status.phase is ScoringPhase.SUCCEEDED
        status.set_condition("Ready", ready, status.reason or status.phase.value, status.message or "")
        await write_status(context, scoring, wanted)
        if ended:
            failed = status.phase is ScoringPhase.FAILED
            said = status.message or f"{status.metric} {status.score}"
            await tell(context, scoring, status.phase.value, said, warning=failed)
        return None

    async def _try_again(self, scoring: Scoring, value: str) -> None:
        """Asked by a user: another plan, so another Run; the one that failed stays as the record."""
        wanted = draft(scoring)
        wanted.status.retried_for, wanted.status.run = value, None
        set_phase(wanted, ScoringPhase.PENDING, "Retried", "measured again")
        wanted.status.set_condition("Ready", False, "Retried", "measured again")
        await write_status(self._context, scoring, wanted)

    async def _compare(self, scoring: Scoring) -> bool:
        """With those it names and is not compared with yet; it has ended, and its score stays as it is."""
        told = {found.to for found in scoring.status.comparisons if found.value is not None}
        if scoring.status.phase is not ScoringPhase.SUCCEEDED or told == set(scoring.spec.compare_with):
            return False
        wanted = draft(scoring)
        wanted.status.comparisons = compare_scorings(self._context.world, scoring)
        return await write_status(self._context, scoring, wanted)

    async def _from_named_run(self, scoring: Scoring, wanted: Scoring) -> bool:
        """False if spec.run has no score of this model and never will, or one to be measured again."""
        namespace, name = scoring.metadata.namespace, scoring.spec.run
        if name is None or scoring.status.retried_for:
            return False
        run = self._context.world.get(Run, namespace, name)
        if run is None:
            if not await is_gone(self._context, Run, namespace, name):
                set_phase(wanted, ScoringPhase.PENDING, "RunNotSeen", f"Run {name} has not been seen yet")
                return True
            return False
        if not run.status.phase.terminal:
            set_phase(wanted, ScoringPhase.RUNNING, "Measuring", f"Run {name} is measuring it")
            wanted.status.run = name
            return True
        result = read_result(run.spec.plan_uri, run.spec.plan_id)
        model = scoring.spec.model
        subject = ""
        if model and model.kind == "LLMCheckpoint":
            checkpoint = self._context.world.get(LLMCheckpoint, namespace, model.name)
            subject = checkpoint.spec.finetune if checkpoint else model.name
        measure = resolve_measure(self._context.world, namespace, scoring.spec.measure, scoring.spec.dataset)
        if isinstance(measure, Waiting):
            return False
        outcome = result.score(subject, measure.key()) if result else None
        if outcome:
            take(wanted, outcome, name)
        return outcome is not None

    async def _from_own_run(self, scoring: Scoring, wanted: Scoring) -> None:
        context, namespace = self._context, scoring.metadata.namespace
        plan, lost = self._attempt(scoring)
        if isinstance(plan, Waiting):
            phase = ScoringPhase.FAILED if plan.final else ScoringPhase.PENDING
            set_phase(wanted, phase, plan.reason, plan.message)
            return
        name = run_name(plan)
        run = context.world.get(Run, namespace, name)
        if run is None:
            if scoring.status.run == name and await is_gone(context, Run, namespace, name):
                set_phase(
                    wanted, ScoringPhase.FAILED, "RunDeleted", f"Run {name}, which measured it, was deleted"
                )
                return
            run = await self._start(scoring, plan)
        wanted.status.run = name
        if not run.status.phase.terminal:
            message = f"Run {name} is measuring it"
            if lost:
                message += f" again: {lost.status.reason} in Run {lost.metadata.name}: {lost.status.message}"
            set_phase(wanted, ScoringPhase.RUNNING, "MeasuringAgain" if lost else "Measuring", message)
            return
        result = read_result(run.spec.plan_uri, plan.id)
        assert plan.score
        key = plan.score.measure.key()
        outcome = next((s for s in result.scores if s.measure == key), None) if result else None
        if outcome:
            take(wanted, outcome, name)
        else:
            stopped = run.status.phase is RunPhase.STOPPED
            reason = run.status.reason or ("RunStopped" if stopped else "ScoreMissing")
            message = run.status.message or f"Run {name} ended without the score"
            if _died(run):
                message += f" ({MAX_DEATHS} workers died on it)"
            set_phase(wanted, ScoringPhase.FAILED, reason, message)

    async def _start(self, scoring: Scoring, plan: RunPlan) -> Run:
        await must_be_fresh(self._context, scoring)
        assert plan.score
        stored = stored_predictions(self._context.world, scoring, plan.score)
        told = plan.model_copy(
            update={"score": plan.score.model_copy(update={"predictions_uri": stored})}
        )  # the id stays: it is the same result
        spec = RunSpec(
            type=RunType.SCORE,
            plan_id=plan.id,
            plan_uri=publish_plan(told),
            serves=[f"Scoring/{scoring.metadata.name}"],
            secrets=secrets_of(scoring.spec.service, scoring.spec.measure.judge),
        )
        made = Run(metadata=metadata_of(run_name(plan), [scoring], finalizers=(WORKER,)), spec=spec)
        return await ensure(self._context, scoring, made)

    def _attempt(self, scoring: Scoring) -> tuple[RunPlan | Waiting, Run | None]:
        """The plan to follow, and the Run before it that was lost through no fault of the measure.

        Counted from the Runs that are there; one that was deleted since is not made again for it.
        """
        plan = self._plan(scoring)
        if isinstance(plan, Waiting):
            return plan, None
        runs = {run.metadata.name: run for run in self._context.world.owned(Run, scoring.metadata.uid)}
        lost: Run | None = None
        deaths = number = 0
        while True:
            run, number = runs.get(run_name(plan)), number + 1
            again = self._plan(scoring, number)
            assert isinstance(again, RunPlan)
            if run and (_died(run) or _interrupted(run)):
                deaths += _died(run)
                if deaths >= MAX_DEATHS:
                    return plan, lost
                lost = run
            elif run or run_name(again) != scoring.status.run:
                return plan, lost
            plan = again

    def _plan(self, scoring: Scoring, again: int = 0) -> RunPlan | Waiting:
        """What its Run is to do; `again` tells one that repeats a lost Run from that."""
        world, namespace = self._context.world, scoring.metadata.namespace
        measure = resolve_measure(world, namespace, scoring.spec.measure, scoring.spec.dataset)
        if isinstance(measure, Waiting):
            return measure
        part = ScorePlan(service=scoring.spec.service, measure=measure)
        if scoring.spec.model:
            found = self._model(namespace, scoring.spec.model)
            if isinstance(found, Waiting):
                return found
            llm, part.adapter_uri, part.precision = found
            part.model = model_files(llm)
        if measure.data:
            dataset = ready_dataset(world, namespace, measure.data)
            if isinstance(dataset, Waiting):
                return dataset
            part.data = data_files(dataset)
        asked = f"-retry-{scoring.status.retried_for}" if scoring.status.retried_for else ""
        salt = scoring.metadata.uid + asked + (f"-again-{again}" if again else "")
        return score(salt, part, self._context.settings.root_uri)

    def _model(self, namespace: str, model: ModelRef) -> tuple[LLM, str | None, Precision] | Waiting:
        """The base model, and for a checkpoint of it the adapter's folder and what it was trained in."""
        world = self._context.world
        if model.kind == "LLM":
            llm = ready_model(world, namespace, model.name)
            return llm if isinstance(llm, Waiting) else (llm, None, Precision.AUTO)
        checkpoint = world.get(LLMCheckpoint, namespace, model.name)
        if checkpoint is None:
            return Waiting("CheckpointNotFound", f"there is no LLMCheckpoint {model.name!r}")
        llm = ready_model(world, namespace, checkpoint.spec.llm)
        if isinstance(llm, Waiting):
            return llm
        if checkpoint.spec.base_digest and llm.status.digest != checkpoint.spec.base_digest:
            message = f"{model.name} was trained on another base model than {checkpoint.spec.llm} now is"
            return Waiting("CheckpointOfOtherBase", message, final=True)
        return llm, checkpoint.spec.uri, _precision(checkpoint)


def _precision(checkpoint: LLMCheckpoint) -> Precision:
    if not checkpoint.spec.parameters_json:
        return Precision.AUTO
    return TrainingParameters.model_validate_json(checkpoint.spec.parameters_json).precision


def _may_be_measured_again(scoring: Scoring) -> bool:
    """Whether it failed; or has no score, as when a judge was away, and no job or experiment reckoned with
    that already."""
    status, alone = scoring.status, not scoring.metadata.owner_references
    without_score = status.phase is ScoringPhase.SUCCEEDED and status.score is None
    return status.phase is ScoringPhase.FAILED or (alone and without_score)


def _died(run: Run) -> bool:
    """Whether its worker ended without a word: that speaks of the worker, not of the measure."""
    return run.status.phase is RunPhase.FAILED and run.status.reason in RETRYABLE


def _interrupted(run: Run) -> bool:
    """Whether it was stopped from outside, as by a shutdown, and nobody had asked for that."""
    return run.status.phase is RunPhase.STOPPED and not run.spec.stop


def take(wanted: Scoring, outcome: ScoreOutcome, run: str) -> None:
    """The score as it was measured; one that is missing stays missing."""
    status = wanted.status
    status.run = run
    status.phase, status.reason, status.message = ScoringPhase.SUCCEEDED, None, None
    status.metrics = outcome.metrics
    status.predictions_uri = outcome.predictions_uri
    first = outcome.metrics.get(status.metric or "")
    if first is not None and first.value is not None:
        status.score, status.low, status.high = first.value, first.low, first.high
        return
    status.score = status.low = status.high = None
    status.reason = "ScoreMissing"
    reasons = [f"{name}: {found.why_missing}" for name, found in outcome.metrics.items() if found.why_missing]
    known = f"{status.metric} was not measured; measured: {', '.join(outcome.metrics)}"
    status.message = (first.why_missing if first else None) or "; ".join([known, *reasons])
