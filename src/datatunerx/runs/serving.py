"""Services into plans. Pure: the same models, loaded as often, give the same plan."""

from dataclasses import dataclass

from datatunerx.resources.enums import Engine, Precision, RunType
from datatunerx.runs.compile import WORKING_BYTES, adapter_weights, base_bytes
from datatunerx.runs.plan import ModelFiles, RunPlan, ServedModel, ServePlan, identified

ADAPTER_RANK = 16
"""What an adapter is taken for when memory is reckoned: its own rank matters little beside a base."""


@dataclass(frozen=True)
class ServedBase:
    """The models of a service that share a base, so that one worker serves them all."""

    digest: str
    uri: str
    num_parameters: int
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


def memory_bytes(base: ServedBase, engine: Engine, precision: Precision) -> int:
    """About what serving it takes of a device; 0, all of it, for an engine that fills its device."""
    if engine is Engine.VLLM:
        return 0
    adapters = sum(model.adapter_uri is not None for model in base.models)
    each = int(4 * adapter_weights(base.num_parameters, ADAPTER_RANK))
    return base_bytes(base.num_parameters, precision) + adapters * each + WORKING_BYTES
