"""InferenceService: says plainly that nothing is served yet."""

from datatunerx.client.informer import Key
from datatunerx.controllers.context import Context
from datatunerx.controllers.objects import draft, write_status
from datatunerx.resources.enums import ServicePhase
from datatunerx.resources.outcome import InferenceService


class ServiceReconciler:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, key: Key) -> float | None:
        service = self._context.world.get(InferenceService, *key)
        if service is None or service.metadata.deletion_timestamp:
            return None
        wanted = draft(service)
        wanted.status.phase = ServicePhase.PENDING
        wanted.status.reason = "NotBuilt"
        wanted.status.message = "serving is not built yet; load the checkpoint with PEFT meanwhile"
        wanted.status.set_condition("Ready", False, "NotBuilt", "serving is not built yet")
        await write_status(self._context, service, wanted)
        return None
