"""Objects that our models refuse, as those of a later version may be: said on them, not only in a log."""

from typing import Any

from datatunerx.client.errors import NotFound
from datatunerx.client.informer import Key
from datatunerx.controllers.context import Context
from datatunerx.controllers.objects import tell_about
from datatunerx.resources.kinds import KINDS
from datatunerx.resources.wire import CONDITION_TEXT, Condition, cut, now

REFUSED = "Refused"
REASON = "NotUnderstood"
_MODELS = {kind.name: kind.model for kind in KINDS}


class RefusedReconciler:
    """Its keys are Kind/name: what they stand for cannot be read in any other way."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._found: dict[Key, tuple[dict[str, Any], str]] = {}

    def note(self, obj: dict[str, Any], why: str) -> Key:
        """Remember what was refused; the key to reconcile."""
        key = Key(obj["metadata"].get("namespace", "default"), f"{obj['kind']}/{obj['metadata']['name']}")
        self._found[key] = obj, why
        return key

    async def reconcile(self, key: Key) -> float | None:
        if key not in self._found:
            return None
        obj, why = self._found[key]
        metadata = obj["metadata"]
        message = cut(f"nothing is done with it: this version does not understand {why}", CONDITION_TEXT)
        conditions = list(obj.get("status", {}).get("conditions") or [])
        if not any(c.get("reason") == REASON and c.get("message") == message for c in conditions):
            about = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "namespace": key.namespace}
            about |= {"name": metadata["name"], "uid": metadata["uid"]}
            await tell_about(self._context, about, REASON, message, warning=True)
            told = Condition(
                type="Ready", status="False", reason=REASON, message=message, last_transition_time=now(),
                observed_generation=metadata.get("generation"),
            )  # fmt: skip
            others = [c for c in conditions if c.get("type") != "Ready"]
            patch = {
                "metadata": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
                "status": {"conditions": [*others, told.dump()]},
            }
            try:
                model = _MODELS[obj["kind"]]
                await self._context.api.patch_status(model, metadata["name"], patch, key.namespace)
            except NotFound:
                pass  # deleted meanwhile
        if self._found.get(key, (None,))[0] is obj:
            del self._found[key]
        return None
