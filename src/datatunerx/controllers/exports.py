"""What is wanted of a checkpoint beyond keeping it: exports, and to be trained again. Each is a Run."""

import hashlib

from datatunerx import storage
from datatunerx.controllers.context import Context
from datatunerx.controllers.folder import publish_plan, read_plan, read_result
from datatunerx.controllers.objects import WORKER, delete, ensure, metadata_of, must_be_fresh, tell
from datatunerx.controllers.readiness import ready_dataset
from datatunerx.controllers.secrets import secret_values
from datatunerx.resources.enums import ExportPhase, FinetunePhase, RunPhase, RunType
from datatunerx.resources.export import Export, ExportStatus, Rerun
from datatunerx.resources.material import LLM, Dataset
from datatunerx.resources.outcome import LLMCheckpoint, Run, RunSpec
from datatunerx.runs.compile import data_files, run_name
from datatunerx.runs.exporting import (
    EXPORTING,
    adapter_files,
    export_plan,
    rerun_plan,
    rerun_uri,
    target_uri,
    work_uri,
)
from datatunerx.runs.files import in_folder
from datatunerx.runs.plan import RunPlan, TunePlan

WEIGHTS = "adapter_model.safetensors"
ENDED = (ExportPhase.SUCCEEDED, ExportPhase.FAILED)


async def follow_exports(context: Context, checkpoint: LLMCheckpoint, wanted: LLMCheckpoint) -> None:
    """Fill in status.exports; starts what has not begun."""
    known = {one.name: one for one in checkpoint.status.exports}
    wanted.status.exports = [
        await _follow(context, checkpoint, request, known.get(request.name))
        for request in checkpoint.spec.exports
    ]


async def _follow(
    context: Context, checkpoint: LLMCheckpoint, request: Export, known: ExportStatus | None
) -> ExportStatus:
    if known and known.phase in ENDED:
        return known  # whatever becomes of its Run
    adapter = adapter_files(checkpoint)
    if adapter is None:
        return _failed(request, "BaseUnknown", "the checkpoint does not say what it was trained on")
    namespace = checkpoint.metadata.namespace
    if request.secret and await secret_values(context, namespace, request.secret) is None:
        return _failed(request, "SecretNotFound", f"there is no Secret {request.secret!r} in {namespace}")
    llm = context.world.get(LLM, namespace, checkpoint.spec.llm)
    dataset = ready_dataset(context.world, namespace, checkpoint.spec.dataset)
    data = dataset if isinstance(dataset, Dataset) else None
    root = context.settings.root_uri
    plan = export_plan(checkpoint, request, adapter, llm, data, data_files(data) if data else None, root)
    plan = plan.model_copy(update={"private_uri": context.settings.private_uri})
    secrets = [request.secret] if request.secret else []
    run = await _run(context, checkpoint, plan, RunType.EXPORT, secrets)
    status = ExportStatus(name=request.name, run=run.metadata.name)
    if not run.status.phase.terminal:
        status.phase = ExportPhase.RUNNING if run.status.phase is RunPhase.RUNNING else ExportPhase.PENDING
        status.message = run.status.message
        return status
    result = read_result(run.spec.plan_uri, plan.id)
    if result and result.export:
        status.phase, status.message, status.outcome = ExportPhase.SUCCEEDED, result.message, result.export
        await tell(context, checkpoint, "Exported", f"{request.name}: {result.export.uri}; {result.message}")
        return status
    left = _clear(request, checkpoint, root)
    if run.status.phase is RunPhase.STOPPED and not run.spec.stop:
        await delete(context, run)  # interrupted from outside, as by a shutdown; made again once it is gone
        return status
    message = f"{run.status.message or 'it ended unsaid'}{left}"
    failed = _failed(request, run.status.reason or "ExportFailed", message)
    failed.run = run.metadata.name
    await tell(context, checkpoint, failed.reason or "", f"{request.name}: {failed.message}", warning=True)
    return failed


def _failed(request: Export, reason: str, message: str) -> ExportStatus:
    return ExportStatus(name=request.name, phase=ExportPhase.FAILED, reason=reason, message=message)


def _clear(request: Export, checkpoint: LLMCheckpoint, root_uri: str) -> str:
    """Remove what a killed worker left, or say that it is there still.

    Its name is ours alone, wherever the target lies; but that place was the user's choice.
    """
    uid = checkpoint.metadata.uid
    place = work_uri(target_uri(request, uid, root_uri), uid, request.name, root_uri)
    if storage.is_local(place) and place.endswith(EXPORTING):
        try:
            storage.delete_tree(place, under=place.rpartition("/")[0])
        except (storage.StorageError, OSError) as error:
            return f"; {place} may be left there, for it cannot be removed: {error}"
    return ""


def delete_exports(checkpoint: LLMCheckpoint, root_uri: str) -> None:
    """Remove those that lie with the platform; what was put elsewhere is the user's."""
    storage.delete_tree(f"{root_uri}/exports/{checkpoint.metadata.uid}", under=f"{root_uri}/exports")


async def _run(
    context: Context, checkpoint: LLMCheckpoint, plan: RunPlan, type: RunType, secrets: list[str]
) -> Run:
    """The Run of a plan, made if it is not there."""
    name, namespace = run_name(plan), checkpoint.metadata.namespace
    found = context.world.get(Run, namespace, name)
    if found:
        return found
    await must_be_fresh(context, checkpoint)
    spec = RunSpec(
        type=type, plan_id=plan.id, plan_uri=publish_plan(plan), secrets=secrets,
        serves=[f"LLMCheckpoint/{checkpoint.metadata.name}"],
    )  # fmt: skip
    return await ensure(
        context, checkpoint, Run(metadata=metadata_of(name, [checkpoint], finalizers=(WORKER,)), spec=spec)
    )


async def follow_rerun(context: Context, checkpoint: LLMCheckpoint, wanted: LLMCheckpoint) -> None:
    """Fill in status.rerun: trains again from the record, compares the bytes, keeps nothing of it."""
    asked, known = checkpoint.spec.rerun, checkpoint.status.rerun
    if not asked or (known and known.asked == asked and known.phase in ENDED):
        return
    status = Rerun(asked=asked)
    wanted.status.rerun = status
    made_by = recorded_plan(context, checkpoint)
    plan = rerun_plan(checkpoint, made_by, context.settings.root_uri) if made_by else None
    if plan is None:
        status.phase = ExportPhase.FAILED
        status.message = "the Run that trained it was deleted, and its plan with it"
        return
    run = await _run(context, checkpoint, plan, RunType.TUNE, [])
    status.run = run.metadata.name
    if not run.status.phase.terminal:
        running = run.status.phase is RunPhase.RUNNING
        status.phase = ExportPhase.RUNNING if running else ExportPhase.PENDING
        status.message = run.status.message
        return
    _compare(context, checkpoint, plan, run, status)
    folder = rerun_uri(checkpoint, context.settings.root_uri)
    storage.delete_tree(folder, under=f"{context.settings.root_uri}/reruns")
    await tell(context, checkpoint, "Rerun", status.message or "", warning=not status.same)


def _compare(context: Context, checkpoint: LLMCheckpoint, plan: RunPlan, run: Run, status: Rerun) -> None:
    result = read_result(run.spec.plan_uri, plan.id)
    outcome = result.jobs.get(checkpoint.spec.finetune) if result else None
    status.phase = ExportPhase.FAILED
    if outcome is None or outcome.phase is not FinetunePhase.SUCCEEDED or outcome.checkpoint is None:
        status.message = (outcome.message if outcome else None) or run.status.message or "the run failed"
        return
    mine, again = (
        hashlib.sha256(storage.read_bytes(in_folder(uri, WEIGHTS))).hexdigest()
        for uri in (checkpoint.spec.uri, outcome.checkpoint.uri)
    )
    status.phase, status.same = ExportPhase.SUCCEEDED, mine == again
    inexact = checkpoint.spec.origin.inexact if checkpoint.spec.origin else []
    step = outcome.checkpoint.step
    if status.same:
        status.message = f"{step} steps again gave the same weights, byte for byte (sha256 {mine[:16]})"
    else:
        why = f"; inexact by its record: {'; '.join(inexact)}" if inexact else ""
        status.message = f"{step} steps again gave other weights ({mine[:12]} then, {again[:12]} now){why}"


def recorded_plan(context: Context, checkpoint: LLMCheckpoint) -> TunePlan | None:
    """The plan of the last attempt that trained it; None once its Runs are gone."""
    name = checkpoint.spec.finetune
    owners = [owner.uid for owner in checkpoint.metadata.owner_references if owner.kind == "Finetune"]
    runs = [run for uid in owners for run in context.world.owned(Run, uid)]
    for run in sorted(runs, key=lambda run: run.spec.attempts.get(name, -1), reverse=True):
        try:
            plan = read_plan(run.spec.plan_uri).tune
        except storage.Missing:
            continue
        if plan and any(job.name == name for job in plan.jobs):
            return plan
    return None
