"""Finetune: waits for what it needs, follows its Run, is taken up again or ends, leaving a checkpoint."""

from typing import Any

from datatunerx import storage
from datatunerx.client.errors import Conflict
from datatunerx.client.informer import Key
from datatunerx.controllers.checkpoint import is_pinned, lies_in
from datatunerx.controllers.context import Context, World
from datatunerx.controllers.folder import (
    folder_of,
    log_tail,
    read_origin,
    read_plan,
    read_result,
    send,
    was_told,
)
from datatunerx.controllers.following import JobView
from datatunerx.controllers.objects import (
    FILES,
    WORKER,
    acknowledge,
    asked_again,
    draft,
    ensure,
    hold,
    is_gone,
    is_orphaning,
    metadata_of,
    note_retry,
    owner_uids,
    release,
    set_phase,
    tell,
    write_status,
)
from datatunerx.controllers.readiness import Waiting, resolve
from datatunerx.controllers.run import RETRYABLE
from datatunerx.controllers.turns import UNKNOWN, in_words, place_of
from datatunerx.resources.enums import FinetunePhase, RunPhase, RunType, StopMode
from datatunerx.resources.finetune import CheckpointRef, Finetune, FinetuneJob, FinetuneSpec
from datatunerx.resources.material import LLM, Dataset
from datatunerx.resources.outcome import LLMCheckpoint, LLMCheckpointSpec, Run
from datatunerx.resources.wire import now
from datatunerx.runs.commands import Command, Verb
from datatunerx.runs.compile import Training, num_steps, output_uri
from datatunerx.runs.events import STOPPED_EARLY, JobOutcome
from datatunerx.runs.exporting import CHECKPOINT

FOR_ALL = frozenset({"StartFailed", "PackageMissing", "ModelChanged"})
"""Reasons of a failed Run that would be every training's, also alone."""


class FinetuneReconciler:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._written: dict[str, float] = {}

    async def reconcile(self, key: Key) -> float | None:
        context = self._context
        finetune = context.world.get(Finetune, *key)
        if finetune is None:
            return None
        run = current_run(context, finetune)
        if is_orphaning(finetune):
            return None
        if finetune.metadata.deletion_timestamp:
            return await self._leave(finetune, run)
        if finetune.status.phase.terminal:
            self._written.pop(finetune.metadata.uid, None)
            if finetune.status.phase is FinetunePhase.STOPPED and run and not run.status.phase.terminal:
                # Bound to a run in the moment it was stopped.
                await self._ask_to_leave(finetune, run, Verb.STOP)
            if finetune.status.phase is FinetunePhase.FAILED and (value := asked_again(finetune)):
                await self._try_again(finetune, value)
            else:
                await acknowledge(context, finetune)
            return None
        if not await hold(context, finetune, WORKER):
            return None
        named = finetune.status.run
        if run is None and named and not await is_gone(context, Run, key.namespace, named):
            raise Conflict(409, "Conflict", f"Run {named} has not been seen yet")
        wanted = draft(finetune)
        wanted.status.expected_start = None
        note_retry(finetune, wanted)
        if run is None:
            await self._wait(finetune, wanted)
        else:
            await self._follow(finetune, wanted, run)
        return await self._write(finetune, wanted, run)

    # Without a run

    async def _wait(self, finetune: Finetune, wanted: Finetune) -> None:
        spec = finetune.spec
        if finetune.status.run and finetune.status.phase is not FinetunePhase.SUSPENDED:
            await self._end_with_run_deleted(finetune, wanted)
        elif spec.stop:
            said = await self._keep(finetune, wanted) if finetune.status.attempt else ""
            message = f"stopped while it waited to be taken up again; {said}"
            _end(wanted, FinetunePhase.STOPPED, "Stopped", message if said else "stopped before it began")
        elif spec.suspend:
            set_phase(wanted, FinetunePhase.SUSPENDED, "Suspended", "set spec.suspend to false to go on")
        elif finetune.status.phase is FinetunePhase.SUSPENDED:
            self._take_up_again(wanted, FinetunePhase.PENDING, "Resumed", "resumes from its last checkpoint")
        else:
            self._say_what_it_waits_for(finetune, wanted)

    def _say_what_it_waits_for(self, finetune: Finetune, wanted: Finetune) -> None:
        settings = self._context.settings
        found = resolve(self._context.world, finetune, gpus=settings.gpus, root_uri=settings.root_uri)
        if isinstance(found, Waiting):
            wanted.status.set_condition("Ready", False, found.reason, found.message)
            if found.final:
                _end(wanted, FinetunePhase.FAILED, found.reason, found.message)
            else:
                set_phase(wanted, wanted.status.phase, found.reason, found.message)
            return
        self._warn_of_late_checkpoint(found, wanted)
        if finetune.status.phase is not FinetunePhase.RETRYING:
            place = place_of(self._context.world, finetune)
            message, wanted.status.expected_start = in_words(place, self._context.clock())
            set_phase(wanted, FinetunePhase.PENDING, "Queued", message)

    def _warn_of_late_checkpoint(self, found: Training, wanted: Finetune) -> None:
        dataset = self._context.world.get(Dataset, wanted.metadata.namespace, wanted.spec.dataset)
        steps = num_steps(found, dataset) if dataset else None
        if warning := found.parameters.no_checkpoint_before_end(steps or 0):
            wanted.status.set_condition("SavesOnTheWay", False, "OnlyAtTheEnd", warning)

    # With a run

    async def _follow(self, finetune: Finetune, wanted: Finetune, run: Run) -> None:
        status, name = wanted.status, finetune.metadata.name
        status.run = run.metadata.name
        view = await self._context.feeds.view(folder_of(run.spec.plan_uri))
        _take(wanted, view.job(name))
        if warnings := view.warned(name):
            status.set_condition("Warning", True, "WorkerWarned", "\n".join(warnings))
        outcome = self._outcome(finetune, run, view.job(name))
        if outcome is not None:
            await self._ended(finetune, wanted, run, outcome)
        elif run.status.phase.terminal:
            await self._run_ended_without_it(finetune, wanted, run)
        else:
            if finetune.spec.stop:
                await self._ask_to_leave(finetune, run, Verb.STOP)
            elif finetune.spec.suspend:
                await self._ask_to_leave(finetune, run, Verb.SUSPEND)
            if run.status.phase is RunPhase.RUNNING:
                status.started_at = status.started_at or now()
                set_phase(wanted, FinetunePhase.RUNNING, None, view.activity)
            elif finetune.status.phase is not FinetunePhase.RETRYING:
                place = f"; place {run.status.position} in the queue" if run.status.position else ""
                message = f"Run {run.metadata.name} waits{place}; {UNKNOWN}"
                set_phase(wanted, FinetunePhase.PENDING, "Queued", message)

    def _outcome(self, finetune: Finetune, run: Run, view: JobView) -> JobOutcome | None:
        """The result has the last word, once there is one."""
        if run.status.phase.terminal:
            result = read_result(run.spec.plan_uri, run.spec.plan_id)
            if result and (outcome := result.jobs.get(finetune.metadata.name)):
                return outcome
        return view.outcome

    async def _ended(self, finetune: Finetune, wanted: Finetune, run: Run, outcome: JobOutcome) -> None:
        spec, phase = finetune.spec, outcome.phase
        kept = outcome.checkpoint is not None and spec.stop is not StopMode.DISCARD
        if phase is FinetunePhase.SUSPENDED and not spec.stop:
            if _is_deleted(finetune, run):
                await self._end_with_run_deleted(finetune, wanted)
            elif spec.suspend:
                set_phase(wanted, phase, "Suspended", outcome.message or f"saved at step {outcome.step}")
            elif _was_suspended(finetune, run):
                self._take_up_again(wanted, FinetunePhase.PENDING, "Resumed", "resumes from its checkpoint")
            elif run.spec.stop:
                said = await self._keep(finetune, wanted)
                _end(wanted, FinetunePhase.STOPPED, "RunStopped", f"its Run was stopped; {said}")
            else:
                self._retry(wanted, "Interrupted", outcome.message or "its worker was asked to leave", run)
            return
        if phase is FinetunePhase.SUCCEEDED or kept and phase is not FinetunePhase.FAILED:
            # Made before the phase says so: once terminal, nothing is made any more.
            await self._checkpoint(finetune, outcome.checkpoint)
        if phase is FinetunePhase.FAILED:
            wanted.status.log_tail = log_tail(run.spec.plan_uri)
            _end(wanted, phase, outcome.reason or "Failed", outcome.message)
        elif phase is FinetunePhase.SUCCEEDED:
            _end(wanted, phase, outcome.reason or None, outcome.message or f"{outcome.step} steps")
            if spec.early_stopping:
                early, reason = outcome.reason == STOPPED_EARLY, outcome.reason or "RanToItsEnd"
                wanted.status.set_condition(STOPPED_EARLY, early, reason, outcome.message)
        else:
            said = "its checkpoint is kept" if kept else "no checkpoint was kept"
            _end(wanted, FinetunePhase.STOPPED, "Stopped", f"stopped at step {outcome.step}; {said}")

    async def _run_ended_without_it(self, finetune: Finetune, wanted: Finetune, run: Run) -> None:
        reason, message = run.status.reason or "", run.status.message or ""
        if finetune.spec.stop:
            said = await self._keep(finetune, wanted)
            _end(wanted, FinetunePhase.STOPPED, "Stopped", f"{message or 'stopped'}; {said}")
        elif _is_deleted(finetune, run):
            await self._end_with_run_deleted(finetune, wanted)
        elif finetune.spec.suspend:
            message = "its worker left before it said what it saved; resumes from the last whole checkpoint"
            set_phase(wanted, FinetunePhase.SUSPENDED, "Suspended", message)
        elif _was_suspended(finetune, run):
            self._take_up_again(wanted, FinetunePhase.PENDING, "Resumed", "resumes from its last checkpoint")
        elif run.status.phase is RunPhase.STOPPED and run.spec.stop:
            said = await self._keep(finetune, wanted)
            _end(wanted, FinetunePhase.STOPPED, "RunStopped", f"its Run was stopped; {said}")
        elif run.status.phase is RunPhase.STOPPED:
            self._retry(wanted, "Interrupted", message or "its worker was asked to leave", run)
        elif run.status.phase is RunPhase.FAILED and (reason in RETRYABLE or _may_be_anothers(run)):
            self._retry(wanted, reason, message, run)
        else:
            said = message or f"Run {run.metadata.name} ended without saying how this training ended"
            wanted.status.log_tail = log_tail(run.spec.plan_uri)
            _end(wanted, FinetunePhase.FAILED, reason or "NoOutcome", said)

    def _retry(self, wanted: Finetune, reason: str, message: str, run: Run) -> None:
        status, limit = wanted.status, wanted.spec.retry_limit
        shared = _may_be_anothers(run)
        if status.retries >= limit and not shared:
            status.log_tail = log_tail(run.spec.plan_uri)
            tried = f" (taken up again {status.retries} times)" if status.retries else ""
            _end(wanted, FinetunePhase.FAILED, reason, f"{message}{tried}")
            return
        status.retries = min(status.retries + 1, limit)
        again = f"{message}; taken up again from its last whole checkpoint"
        if shared:
            status.alone = True
            again += f", alone, since any of the {len(run.spec.attempts)} in its Run may be to blame"
        else:
            again += f" ({status.retries} of {limit})"
        self._take_up_again(wanted, FinetunePhase.RETRYING, reason, again)

    def _take_up_again(self, wanted: Finetune, phase: FinetunePhase, reason: str, message: str) -> None:
        """A new attempt, for which placement finds a new Run."""
        if wanted.status.run:
            wanted.status.attempt += 1
            wanted.status.run = None
        set_phase(wanted, phase, reason, message)

    async def _try_again(self, finetune: Finetune, value: str) -> None:
        """Asked by a user: the only way out of Failed. Its Run stays as the record of what happened."""
        wanted = draft(finetune)
        status = wanted.status
        status.retried_for, status.retries = value, 0
        status.finished_at = status.log_tail = None
        said = "tried again, from its last whole checkpoint if it has one"
        self._take_up_again(wanted, FinetunePhase.PENDING, "Retried", said)
        _ready(wanted)
        if await write_status(self._context, finetune, wanted):
            await tell(self._context, finetune, "Retried", f"{said} ({value})")

    async def _end_with_run_deleted(self, finetune: Finetune, wanted: Finetune) -> None:
        said = await self._keep(finetune, wanted)
        message = f"Run {wanted.status.run}, which carried it, was deleted; {said}"
        _end(wanted, FinetunePhase.STOPPED, "RunDeleted", message)

    async def _keep(self, finetune: Finetune, wanted: Finetune) -> str:
        """Make the LLMCheckpoint of the newest checkpoint, unless told to discard; what to say of it."""
        there = [made for made in wanted.status.checkpoints if storage.exists(made.uri)]
        if finetune.spec.stop is StopMode.DISCARD or not there:
            return "no checkpoint was kept"
        await self._checkpoint(finetune, there[-1])
        return f"its checkpoint at step {there[-1].step} is kept"

    async def _checkpoint(self, finetune: Finetune, made: CheckpointRef | None) -> None:
        if made is None:
            return
        spec = LLMCheckpointSpec(
            finetune=finetune.metadata.name,
            llm=finetune.spec.llm,
            dataset=finetune.spec.dataset,
            uri=made.uri,
            step=made.step,
            bytes=made.bytes,
            manifest_digest=made.digest,
        ).model_copy(update=self._origin(finetune))
        metadata = metadata_of(finetune.metadata.name, [finetune], finalizers=(FILES,))
        await ensure(self._context, finetune, LLMCheckpoint(metadata=metadata, spec=spec))

    def _origin(self, finetune: Finetune) -> dict[str, Any]:
        """What it was trained from, as its last plan says; nothing where every plan was deleted."""
        name = finetune.metadata.name
        runs = self._context.world.owned(Run, finetune.metadata.uid)
        for run in sorted(runs, key=lambda run: run.spec.attempts.get(name, -1), reverse=True):
            try:
                plan = read_plan(run.spec.plan_uri).tune
            except storage.Missing:
                continue  # the Run is being deleted, and its folder is gone
            job = next((job for job in plan.jobs if job.name == name), None) if plan else None
            if plan is None or job is None:
                continue
            data = next(files for files in plan.data if files.name == job.data)
            return {
                "base_digest": plan.model.digest,
                "base_uri": plan.model.uri,
                "data_digest": data.digest,
                "parameters_json": job.parameters.model_dump_json(by_alias=True, exclude_none=True),
                "parent": self._parent(finetune),
                "origin": read_origin(run.spec.plan_uri, job.parameters.seed),
            }
        return {}

    def _parent(self, finetune: Finetune) -> str | None:
        """The checkpoint that it went on from: merged into its base, or as its first weights."""
        llm = self._context.world.get(LLM, finetune.metadata.namespace, finetune.spec.llm)
        merged = llm is not None and llm.spec.source.startswith(CHECKPOINT)
        return llm.spec.source.removeprefix(CHECKPOINT) if llm and merged else finetune.spec.resume_from

    # Leaving a run

    async def _ask_to_leave(self, finetune: Finetune, run: Run, verb: Verb) -> None:
        """Tell the worker; when nobody else needs the run, end the run itself, which bounds the time."""
        mode = finetune.spec.stop or StopMode.KEEP
        if finetune.metadata.deletion_timestamp:
            mode = StopMode.DISCARD
        send(run.spec.plan_uri, Command(verb=verb, job=finetune.metadata.name, mode=mode))
        await end_unless_needed(self._context, run)

    async def _leave(self, finetune: Finetune, run: Run | None) -> float | None:
        """Deleted: out of its run first, then its files, then the object."""
        context = self._context
        self._written.pop(finetune.metadata.uid, None)
        if run is None and not finetune.status.phase.terminal:
            run = await self._bound_unseen(finetune)
        if run is None and finetune.status.run:  # orphaned: it has another's name no more, and trains still
            run = context.world.get(Run, finetune.metadata.namespace, finetune.status.run)
        if run is not None and not run.status.phase.terminal:
            view = await context.feeds.view(folder_of(run.spec.plan_uri))
            outcome = view.job(finetune.metadata.name).outcome
            await self._ask_to_leave(finetune, run, Verb.STOP)
            if outcome is None or outcome.phase is FinetunePhase.SUCCEEDED and run.spec.stop:
                return context.settings.poll_seconds
        root = context.settings.root_uri
        folder = output_uri(root, finetune.metadata.uid)
        if not is_pinned(folder) and not await self._orphans(finetune, folder):
            storage.delete_tree(folder, under=f"{root}/artifacts")
        await release(context, finetune, WORKER)
        return None

    async def _orphans(self, finetune: Finetune, folder: str) -> bool:
        """Whether a checkpoint in its folder is to outlive it, since it is nobody's child any more."""
        made = await self._context.api.list(LLMCheckpoint, finetune.metadata.namespace)
        return any(
            lies_in(checkpoint, folder)
            for checkpoint in made
            if not checkpoint.metadata.owner_references and not checkpoint.metadata.deletion_timestamp
        )

    async def _bound_unseen(self, finetune: Finetune) -> Run | None:
        """The unfinished Run that the API, not yet our view, has of it: its worker must be told first."""
        runs = await self._context.api.list(Run, finetune.metadata.namespace)
        mine = (run for run in runs if finetune.metadata.uid in owner_uids(run))
        return next(
            (run for run in mine if run.spec.type is RunType.TUNE and not run.status.phase.terminal), None
        )

    # Writing

    async def _write(self, finetune: Finetune, wanted: Finetune, run: Run | None) -> float | None:
        """Write the status, progress alone not more often than the settings say."""
        context, uid = self._context, finetune.metadata.uid
        status = wanted.status
        moved = status.phase is not finetune.status.phase or status.reason != finetune.status.reason
        again = None if run is None or run.status.phase.terminal else context.settings.poll_seconds
        since = context.clock() - self._written.get(uid, 0.0)
        if not moved and 0 <= since < context.settings.status_seconds:
            return context.settings.status_seconds - since
        _ready(wanted)
        if idle := _without_effect(finetune.spec):
            message = f"{', '.join(idle)}: not used on one machine"
            status.set_condition("ClusterSettings", False, "NotBuilt", message)
        if await write_status(context, finetune, wanted):
            self._written[uid] = context.clock()
        if status.phase is not finetune.status.phase and status.phase is not FinetunePhase.PENDING:
            bad = status.phase in (FinetunePhase.FAILED, FinetunePhase.RETRYING)
            said = status.message or f"the training is {status.phase.value.lower()}"
            await tell(context, finetune, status.phase.value, said, warning=bad)
        return again


def current_run(context: Context, finetune: Finetune) -> Run | None:
    """The Run of the Finetune's present attempt: known by its spec, so a restart finds it again."""
    name, attempt = finetune.metadata.name, finetune.status.attempt
    for run in context.world.owned(Run, finetune.metadata.uid):
        if run.spec.type is RunType.TUNE and run.spec.attempts.get(name) == attempt:
            return run
    return None


async def end_unless_needed(context: Context, run: Run) -> None:
    """End the run if no Finetune that it serves wants it to go on."""
    if run.spec.stop or run.status.phase.terminal:
        return
    if not any(_needs(context.world, run, served) for served in run.spec.serves):
        # Told to each before the run is stopped: one that is wanted back before it told its worker itself
        # must find that it was suspended, and not take the stop for its end.
        for name in _suspended(context.world, run):
            send(run.spec.plan_uri, Command(verb=Verb.SUSPEND, job=name))
        body = {"spec": {"stop": True}}
        await context.api.patch(Run, run.metadata.name, body, run.metadata.namespace)


def _suspended(world: World, run: Run) -> list[str]:
    names = [served.partition("/")[2] for served in run.spec.serves]
    found = [world.get(Finetune, run.metadata.namespace, name) for name in names]
    return [f.metadata.name for f in found if f and f.spec.suspend and not f.status.phase.terminal]


def _needs(world: World, run: Run, served: str) -> bool:
    """Whether a Finetune that the run serves still wants it to go on: to train, or to be scored."""
    _, _, name = served.partition("/")
    namespace = run.metadata.namespace
    other = world.get(Finetune, namespace, name)
    if other is None or other.metadata.deletion_timestamp:
        return False
    if other.status.phase is FinetunePhase.SUCCEEDED:
        jobs = [o.name for o in other.metadata.owner_references if o.kind == FinetuneJob.kind_name]
        job = world.get(FinetuneJob, namespace, jobs[0]) if jobs else None
        return job is None or not (job.status.phase.terminal or job.spec.stop)
    return not (other.status.phase.terminal or other.spec.stop or other.spec.suspend)


def _without_effect(spec: FinetuneSpec) -> list[str]:
    """What was set and nothing acts on here."""
    given = {"resources.memory": spec.resources.memory, "env": spec.env, "nodeSelector": spec.node_selector}
    return [name for name, value in given.items() if value]


def _may_be_anothers(run: Run) -> bool:
    """Whether the run ended by a fault that one of several trainings in it may have brought upon all."""
    failed = run.status.phase is RunPhase.FAILED and run.status.reason not in FOR_ALL
    return failed and len(run.spec.attempts) > 1


def _is_deleted(finetune: Finetune, run: Run) -> bool:
    """Whether its run was deleted under it; a suspended training does not need its last one."""
    return bool(run.metadata.deletion_timestamp) and finetune.status.phase is not FinetunePhase.SUSPENDED


def _was_suspended(finetune: Finetune, run: Run) -> bool:
    """Whether its worker was asked to let it go, so that its return is a resumption and no accident.

    The command tells even when nobody saw it suspended, because it was wanted back at once.
    """
    suspend = Command(verb=Verb.SUSPEND, job=finetune.metadata.name)
    return finetune.status.phase is FinetunePhase.SUSPENDED or was_told(run.spec.plan_uri, suspend)


def _take(wanted: Finetune, view: JobView) -> None:
    """What the worker said about this training."""
    status = wanted.status
    if view.progress:
        status.progress = view.progress
    if view.metrics:
        status.metrics = dict(view.metrics)
    if view.report:
        status.data = view.report
    known = {checkpoint.step: checkpoint for checkpoint in status.checkpoints} | view.checkpoints
    # Retention deletes old ones; only what is there may be listed.
    status.checkpoints = [known[step] for step in sorted(known) if storage.exists(known[step].uri)]
    if view.samples:
        earlier = [s for s in status.samples if s.step < view.samples[0].step]
        status.samples = [*earlier, *view.samples][-256:]


def _end(wanted: Finetune, phase: FinetunePhase, reason: str | None, message: str | None) -> None:
    set_phase(wanted, phase, reason, message)
    wanted.status.finished_at = now()


def _ready(wanted: Finetune) -> None:
    status = wanted.status
    done = status.phase is FinetunePhase.SUCCEEDED
    status.set_condition("Ready", done, status.reason or status.phase.value, status.message or "")
