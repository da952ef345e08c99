"""LLM: has its model inspected and says what was found."""

from contextlib import suppress

from datatunerx.client.errors import AlreadyExists
from datatunerx.client.informer import Key
from datatunerx.controllers.context import Context
from datatunerx.controllers.inspection import SECRET_NOT_FOUND, inspect, missing_secret, next_look, salt_of
from datatunerx.controllers.objects import draft, tell, write_status
from datatunerx.controllers.users import keep_while_used, users_of
from datatunerx.resources.material import LLM, LLMSpec
from datatunerx.resources.outcome import LLMCheckpoint
from datatunerx.resources.wire import ObjectMeta
from datatunerx.runs.compile import inspect_model
from datatunerx.runs.exporting import CHECKPOINT, adapter_files
from datatunerx.runs.plan import AdapterFiles
from datatunerx.runs.result import ModelFacts


class LLMReconciler:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, key: Key) -> float | None:
        context = self._context
        llm = context.world.get(LLM, *key)
        if llm is None:
            await self._make_of_checkpoint(key)
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

    async def _make_of_checkpoint(self, key: Key) -> None:
        """An experiment may name a checkpoint where it names its base: the LLM for it is made here."""
        world = self._context.world
        if world.get(LLMCheckpoint, *key) is None:
            return
        metadata = ObjectMeta(name=key.name, namespace=key.namespace)
        made = LLM(metadata=metadata, spec=LLMSpec(source=f"{CHECKPOINT}{key.name}"))
        if users_of(world, made):
            with suppress(AlreadyExists):
                await self._context.api.create(made)

    def _checkpoint(self, llm: LLM) -> AdapterFiles | str:
        """What is to be merged, or why nothing can be."""
        name = llm.spec.source.removeprefix(CHECKPOINT)
        checkpoint = self._context.world.get(LLMCheckpoint, llm.metadata.namespace, name)
        if checkpoint is None:
            return f"there is no LLMCheckpoint {name!r} in namespace {llm.metadata.namespace}"
        found = adapter_files(checkpoint)
        return found or f"LLMCheckpoint {name} does not say what base it was trained on"

    async def _inspect(self, llm: LLM, wanted: LLM) -> bool:
        """Fill in the status; True if there is news worth an Event."""
        if missing := await missing_secret(self._context, llm):
            wanted.status.set_condition("Ready", False, SECRET_NOT_FOUND, missing)
            return False
        merge = self._checkpoint(llm) if llm.spec.source.startswith(CHECKPOINT) else None
        if isinstance(merge, str):
            if not llm.status.is_true("Ready"):  # its copy stands by itself, once it is made
                wanted.status.set_condition("Ready", False, "CheckpointNotFound", merge)
            return False
        plan = inspect_model(llm, self._context.settings.root_uri, salt_of(llm), merge)
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
    status.cache_width = facts.cache_width
    status.bytes = facts.bytes
    status.digest = facts.digest
    status.local_uri = facts.local_uri
    status.template = facts.template
    status.template_source = facts.template_source or None
