"""Dataset: has its files inspected and says what they hold."""

from datatunerx.client.informer import Key
from datatunerx.controllers.context import Context
from datatunerx.controllers.inspection import (
    SECRET_NOT_FOUND,
    Inspected,
    inspect,
    missing_secret,
    next_look,
    salt_of,
)
from datatunerx.controllers.making import make, plan_of
from datatunerx.controllers.objects import draft, tell, write_status
from datatunerx.controllers.readiness import Waiting, ready_model
from datatunerx.controllers.users import keep_while_used
from datatunerx.resources.material import Dataset
from datatunerx.resources.outcome import Run
from datatunerx.runs.compile import foreign_uploads, inspect_data, model_files, relative_paths
from datatunerx.runs.plan import ModelFiles, RunPlan


class DatasetReconciler:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, key: Key) -> float | None:
        context = self._context
        dataset = context.world.get(Dataset, *key)
        if dataset is None:
            return None
        wanted = draft(dataset)
        if await keep_while_used(context, dataset, wanted):
            return None
        told = False
        if dataset.metadata.deletion_timestamp is None:
            told = await self._inspect(dataset, wanted)
        await write_status(context, dataset, wanted)
        if told:
            ready = wanted.status.condition("Ready")
            assert ready
            await tell(context, dataset, ready.reason, ready.message, warning=ready.status == "False")
        return next_look(wanted)

    async def _inspect(self, dataset: Dataset, wanted: Dataset) -> bool:
        """Fill in the status; True if there is news worth an Event."""
        status = wanted.status
        model = self._model(dataset)
        making = plan_of(self._context.world, dataset, self._context.settings.root_uri)
        obstacle = _obstacle(dataset) or next(
            (one for one in (model, making) if isinstance(one, Waiting)), None
        )
        if obstacle is None and (missing := await missing_secret(self._context, dataset)):
            obstacle = Waiting(SECRET_NOT_FOUND, missing)
        if obstacle:
            known = None if obstacle.under_way else False
            status.set_condition("Ready", known, obstacle.reason, obstacle.message)
            status.run = None
            return False
        assert not isinstance(model, Waiting) and not isinstance(making, Waiting)
        if making is None:
            status.made = None
        elif not await self._is_made(dataset, making, wanted):
            said = status.condition("Ready")
            return bool(said and said.status == "False" and said != dataset.status.condition("Ready"))
        plan = inspect_data(wanted, model, self._context.settings.root_uri, salt_of(dataset))
        found = await inspect(self._context, dataset, plan)
        if found is None:
            return False
        status.run = found.run
        if found.failed:
            status.set_condition("Ready", False, found.reason, found.message)
            return True
        if found.result is None or found.result.data is None:
            self._tell_of(found, "Inspecting", wanted)
            return False
        facts = found.result.data
        status.digest, status.report, status.report_uri = facts.digest, facts.report, facts.report_uri
        report = facts.report
        why = ", ".join(f"{r.count} {r.reason}" for r in report.reasons)
        message = f"{report.kept} of {report.read} rows kept" + (f"; dropped: {why}" if why else "")
        status.set_condition("Ready", True, "Inspected", "; ".join([message, *report.warnings]))
        return True

    async def _is_made(self, dataset: Dataset, plan: RunPlan, wanted: Dataset) -> bool:
        """Whether its plugin has made the rows; else the status says how far it is, or why it failed."""
        found = await make(self._context, dataset, plan)
        if found is None:
            return True
        if found.result and found.result.made:
            wanted.status.made = found.result.made
            return True
        wanted.status.run = found.run
        if found.failed:
            wanted.status.set_condition("Ready", False, found.reason, found.message)
        else:
            self._tell_of(found, "Making", wanted)
        return False

    def _tell_of(self, found: Inspected, reason: str, wanted: Dataset) -> None:
        """What the Run does now."""
        run = self._context.world.get(Run, wanted.metadata.namespace, found.run)
        doing = run.status.message if run and run.status.message else "it is about to begin"
        wanted.status.set_condition("Ready", None, reason, f"Run {found.run}: {doing}")

    def _model(self, dataset: Dataset) -> ModelFiles | Waiting | None:
        if dataset.spec.llm is None:
            return None
        llm = ready_model(self._context.world, dataset.metadata.namespace, dataset.spec.llm)
        return llm if isinstance(llm, Waiting) else model_files(llm)


def _obstacle(dataset: Dataset) -> Waiting | None:
    """What the spec asks for that cannot be done."""
    if relative := relative_paths(dataset):
        return Waiting(
            "RelativePath",
            f"{relative[0]!r} is a relative path, which means nothing to the server; write file:///... with "
            "the whole path, or use `dtx apply`, which resolves it against the manifest's folder",
        )
    if strange := foreign_uploads(dataset):
        return Waiting(
            "UploadOfOtherNamespace",
            f"{strange[0]} was uploaded to another namespace; upload it to {dataset.metadata.namespace}",
        )
    return None
