"""An inspection: the Run that finds out what an LLM, a Dataset or a plugin is, or makes a Dataset's rows."""

from dataclasses import dataclass

from datatunerx.controllers.context import Context
from datatunerx.controllers.folder import publish_plan, read_result
from datatunerx.controllers.objects import WORKER, delete, ensure, is_gone, metadata_of, must_be_fresh
from datatunerx.controllers.secrets import secret_values
from datatunerx.resources.enums import RunPhase
from datatunerx.resources.kinds import BY_MODEL
from datatunerx.resources.material import LLM, DataPlugin, Dataset
from datatunerx.resources.outcome import Run, RunSpec, ScoringPlugin
from datatunerx.resources.wire import CONFINED, RETRY
from datatunerx.runs.compile import run_name
from datatunerx.runs.plan import RunPlan
from datatunerx.runs.result import RunResult

Inspectable = LLM | Dataset | DataPlugin | ScoringPlugin
SECRET_NOT_FOUND = "SecretNotFound"
SECRET_SECONDS = 2.0
"""Between two looks for a Secret that is not there yet."""


@dataclass(frozen=True)
class Inspected:
    """How its Run stands: a result, a failure, or neither yet."""

    run: str
    result: RunResult | None = None
    reason: str = ""
    message: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.reason)


def salt_of(obj: Inspectable) -> str:
    return obj.metadata.annotations.get(RETRY, "")


def is_decided(obj: Inspectable, plan: RunPlan) -> bool:
    """Whether the status already says what this very plan has found out."""
    ready = obj.status.condition("Ready")
    same = obj.status.run == run_name(plan) and obj.status.observed_generation == obj.metadata.generation
    return bool(same and ready and ready.status in ("True", "False"))


def _secrets(obj: Inspectable) -> list[str]:
    given = obj.spec.credentials if isinstance(obj, LLM | Dataset) else None
    return [given.secret_ref.name] if given and given.secret_ref else []


def next_look(obj: LLM | Dataset) -> float | None:
    """Seconds until the object is looked at again by itself: nobody tells when a Secret comes."""
    ready = obj.status.condition("Ready")
    return SECRET_SECONDS if ready and ready.reason == SECRET_NOT_FOUND else None


async def missing_secret(context: Context, obj: LLM | Dataset) -> str | None:
    """What to tell if the Secret that the object names is not there."""
    for name in _secrets(obj):
        if await secret_values(context, obj.metadata.namespace, name) is None:
            where = f"in namespace {obj.metadata.namespace}"
            return f"there is no Secret {name!r} {where}; create it, or correct spec.credentials"
    return None


async def inspect(context: Context, obj: Inspectable, plan: RunPlan) -> Inspected | None:
    """Start the inspection, or say how it stands. None: the status says it all already."""
    namespace, name = obj.metadata.namespace, run_name(plan)
    run = context.world.get(Run, namespace, name)
    # A finding stays whatever vanishes; a failed inspection whose Run was deleted is wanted again.
    if is_decided(obj, plan) and (
        obj.status.is_true("Ready") or run or not await is_gone(context, Run, namespace, name)
    ):
        return None
    return await follow(context, obj, plan)


def _allowed(context: Context, obj: Inspectable) -> list[str] | None:
    """Where the files that it names must lie; None is anywhere."""
    if CONFINED not in obj.metadata.annotations:
        return None
    uploads = f"{context.settings.root_uri}/uploads/{obj.metadata.namespace}"
    return [uploads, *context.settings.allowed_uris]


async def follow(context: Context, obj: Inspectable, plan: RunPlan) -> Inspected:
    """How the plan's Run stands; it is started if it is not there."""
    namespace, name = obj.metadata.namespace, run_name(plan)
    run = context.world.get(Run, namespace, name)
    if run is None:
        await must_be_fresh(context, obj)
        # what a plugin made lies among the server's own files; what it read did not
        is_made = isinstance(obj, Dataset) and obj.spec.plugin is not None and plan.inspect_data is not None
        private = None if is_made else context.settings.private_uri
        allowed = None if is_made else _allowed(context, obj)
        plan = plan.model_copy(update={"private_uri": private, "allowed_uris": allowed})
        spec = RunSpec(
            type=plan.type,
            plan_id=plan.id,
            plan_uri=publish_plan(plan),
            serves=[f"{obj.kind}/{obj.metadata.name}"],
            secrets=_secrets(obj),
        )
        run = await ensure(
            context, obj, Run(metadata=metadata_of(name, [obj], finalizers=(WORKER,)), spec=spec)
        )
    if not run.status.phase.terminal:
        return Inspected(name)
    if run.status.phase is RunPhase.STOPPED and not run.spec.stop:
        await delete(context, run)  # interrupted from outside, as by a shutdown; made again once it is gone
        return Inspected(name)
    result = read_result(run.spec.plan_uri, plan.id)
    if result and result.phase is RunPhase.SUCCEEDED:
        return Inspected(name, result)
    reason = (result.reason if result else "") or run.status.reason or "InspectionFailed"
    message = (result.message if result else "") or run.status.message or "the inspection failed"
    # A value that no earlier try had: the same one again would change nothing.
    annotated = f"{obj.kind.lower()} {obj.metadata.name} -n {namespace} {RETRY}=$(date +%s)"
    where = "" if namespace == "default" else f" -n {namespace}"
    ours = f"dtx retry {BY_MODEL[type(obj)].short}/{obj.metadata.name}{where}"
    again = f"to try again: {ours}, or kubectl annotate {annotated} --overwrite"
    return Inspected(name, None, reason, f"{message.rstrip('.')}; {again}")
