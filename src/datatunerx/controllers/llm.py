"""LLM: has its model inspected and says what was found."""

from datatunerx.client.informer import Key
from datatunerx.controllers.context import Context
from datatunerx.controllers.inspection import SECRET_NOT_FOUND, inspect, missing_secret, next_look, salt_of
from datatunerx.controllers.objects import draft, tell, write_status
from datatunerx.controllers.users import keep_while_used
from datatunerx.resources.material import LLM
from datatunerx.runs.compile import inspect_model
from datatunerx.runs.result import ModelFacts


class LLMReconciler:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, key: Key) -> float | None:
        context = self._context
        llm = context.world.get(LLM, *key)
        if llm is None:
            return None
        wanted = draft(llm)
        if await keep_while_used(context, llm, wanted):
            return None
        told = None
        if llm.metadata.deletion_timestamp is None:
            told = await self._inspect(llm, wanted)
        await write_status(context, llm, wanted)
        if told:
            ready = wanted.status.condition("Ready")
            assert ready
            await tell(context, llm, ready.reason, ready.message, warning=ready.status == "False")
        return next_look(wanted)

    async def _inspect(self, llm: LLM, wanted: LLM) -> bool:
        """Fill in the status; True if there is news worth an Event."""
        if missing := await missing_secret(self._context, llm):
            wanted.status.set_condition("Ready", False, SECRET_NOT_FOUND, missing)
            return False
        plan = inspect_model(llm, self._context.settings.root_uri, salt_of(llm))
        found = await inspect(self._context, llm, plan)
        if found is None:
            return False
        status = wanted.status
        status.run = found.run
        if found.failed:
            status.set_condition("Ready", False, found.reason, found.message)
            return True
        if found.result is None or found.result.model is None:
            status.set_condition("Ready", None, "Inspecting", f"Run {found.run} is looking at the model")
            return False
        facts = found.result.model
        _take(facts, wanted)
        notes = "".join(f"; {warning}" for warning in facts.warnings)
        message = f"{facts.architecture}, {facts.parameters:,} parameters{notes}"
        status.set_condition("Ready", True, "Inspected", message)
        return True


def _take(facts: ModelFacts, wanted: LLM) -> None:
    status = wanted.status
    status.architecture = facts.architecture
    status.parameters = facts.parameters
    status.context_length = facts.context_length
    status.bytes = facts.bytes
    status.digest = facts.digest
    status.local_uri = facts.local_uri
    status.template = facts.template
    status.template_source = facts.template_source or None
