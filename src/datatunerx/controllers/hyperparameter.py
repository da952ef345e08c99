"""Hyperparameter: Ready unless what it extends is missing, circular or adds up to nonsense."""

from pydantic import ValidationError

from datatunerx.client.informer import Key
from datatunerx.controllers.context import Context
from datatunerx.controllers.objects import draft, write_status
from datatunerx.controllers.users import keep_while_used
from datatunerx.resources.material import Hyperparameter
from datatunerx.resources.training import HyperparameterRef
from datatunerx.runs.compile import Unresolved, parameters, unsupported


class HyperparameterReconciler:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, key: Key) -> float | None:
        world = self._context.world
        group = world.get(Hyperparameter, *key)
        if group is None:
            return None
        wanted = draft(group)
        if await keep_while_used(self._context, group, wanted):
            return None
        groups = {g.metadata.name: g for g in world.all(Hyperparameter, key.namespace)}
        try:
            why = unsupported(parameters(HyperparameterRef(ref=key.name), groups))
        except Unresolved as error:
            wanted.status.set_condition("Ready", False, error.reason, error.message)
        except ValidationError as error:
            wanted.status.set_condition("Ready", False, "Invalid", str(error))
        else:
            if why:
                wanted.status.set_condition("Ready", False, "MethodNotSupported", why)
            else:
                wanted.status.set_condition("Ready", True, "Resolved")
        await write_status(self._context, group, wanted)
        return None
