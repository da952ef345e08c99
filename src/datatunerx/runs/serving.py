"""Services into plans. Pure: the same models, loaded as often, give the same plan."""

from dataclasses import dataclass

from datatunerx.resources.enums import Engine, Precision, RunType
from datatunerx.runs.compile import BYTES_OF, WORKING_BYTES, adapter_weights, base_bytes
from datatunerx.runs.plan import ModelFiles, RunPlan, ServedModel, ServePlan, identified

ADAPTER_RANK = 16
"""What an adapter is taken for when memory is reckoned: its own rank matters little beside a base."""
LAYOUTS = {Precision.FLOAT32: 2, Precision.BFLOAT16: 1, Precision.FLOAT16: 1}
"""How often the weights are held: on a CPU in float32 once more, laid out for its products."""
ADAPTER_BYTES = 16
"""Per weight of an adapter: itself, a place for its gradient, and in the stack of adapters at most twice."""
ROOM_PER_TOKEN = 2
"""Places in the cache for each token that may sit there: rows of like length share a rectangle, which is at
most twice as large as they are."""


@dataclass(frozen=True, order=True)
class BaseSize:
    """What is known of how large a base is; zeros where nothing is."""

    num_parameters: int = 0
    cache_width: int = 0
    """Numbers kept for each token of a conversation: layers x heads of keys and values x head width x 2."""


@dataclass(frozen=True)
class ServedBase:
    """The models of a service that share a base, so that one worker serves them all."""

    digest: str
    uri: str
    size: BaseSize
    models: tuple[ServedModel, ...]


def serve(
    uid: str,
    base: ServedBase,
    load: int,
    *,
    engine: Engine,
    precision: Precision,
    idle_seconds: float,
    root_uri: str,
) -> RunPlan:
    """The run that serves a base for the `load`-th time; `uid` is the service's.

    What is served is no part of the id, nor is which object names the base: both change as a worker runs.
    """
    model = ModelFiles(name=f"base-{base.digest[:12]}", uri=base.uri, digest=base.digest)
    part = ServePlan(model=model, precision=precision, engine=engine, idle_seconds=idle_seconds or None)
    plan = identified(RunType.SERVE, root_uri, {"serve": part}, f"{uid}/{load}")
    return plan.model_copy(update={"serve": part.model_copy(update={"models": list(base.models)})})


def memory_bytes(base: ServedBase, plan: ServePlan) -> int:
    """About how many bytes of a device serving it takes at most, its cache full; 0, which is all of it, for
    an engine that fills its device and for a base of unknown size."""
    size = base.size
    if plan.engine is Engine.VLLM or not size.num_parameters or not size.cache_width:
        return 0
    weights = base_bytes(size.num_parameters, plan.precision) * LAYOUTS[plan.precision]
    adapters = sum(model.adapter_uri is not None for model in base.models)
    each = int(ADAPTER_BYTES * adapter_weights(size.num_parameters, ADAPTER_RANK))
    cache = ROOM_PER_TOKEN * plan.max_tokens * size.cache_width * BYTES_OF[plan.precision]
    return weights + adapters * each + cache + WORKING_BYTES
