"""A Dataset with a plugin: the Run in which the plugin makes its rows, before they are inspected."""

from datatunerx.controllers.context import Context, World
from datatunerx.controllers.inspection import Inspected, follow, salt_of
from datatunerx.controllers.plugins import call_of, parameters_problem
from datatunerx.controllers.readiness import Waiting
from datatunerx.resources.material import DataPlugin, Dataset
from datatunerx.resources.outcome import Run
from datatunerx.runs.compile import make_data, run_name
from datatunerx.runs.plan import RunPlan


def plan_of(world: World, dataset: Dataset, root_uri: str) -> RunPlan | Waiting | None:
    """What makes the dataset's rows, or what stands in the way; None if it has no plugin."""
    use = dataset.spec.plugin
    if use is None:
        return None
    plugin = world.get(DataPlugin, dataset.metadata.namespace, use.ref)
    if plugin is None:
        where = f"in namespace {dataset.metadata.namespace}"
        return Waiting("DataPluginNotFound", f"spec.plugin.ref: there is no DataPlugin {use.ref!r} {where}")
    said = plugin.status.condition("Ready")
    known = plugin.status.observed_generation == plugin.metadata.generation
    if said is None or said.status != "True" or not known:
        why = f"{said.reason}: {said.message}" if said and known else "it is being looked at"
        under_way = not known or said is None or said.status == "Unknown"
        return Waiting("DataPluginNotReady", f"DataPlugin {use.ref}: {why}", under_way=under_way)
    parameters = {**plugin.spec.parameters, **use.parameters}
    if problem := parameters_problem(plugin, parameters, whole=True):
        return Waiting("ParametersInvalid", f"spec.plugin.{problem} (plugin {use.ref})")
    return make_data(dataset, call_of(plugin), plugin.status.version, parameters, root_uri, salt_of(dataset))


async def make(context: Context, dataset: Dataset, plan: RunPlan) -> Inspected | None:
    """Start the making, or say how it stands. None: the status tells of what this very plan has made, and
    the Run that holds the files is there."""
    made = dataset.status.made
    name = run_name(plan)
    if made and made.run == name and context.world.get(Run, dataset.metadata.namespace, name):
        return None
    return await follow(context, dataset, plan)
