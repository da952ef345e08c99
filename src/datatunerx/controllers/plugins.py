"""DataPlugin and ScoringPlugin: Ready when a worker could load what they name. None of it is loaded here."""

from datatunerx.client.informer import Key
from datatunerx.controllers.context import Context
from datatunerx.controllers.inspection import Inspected, inspect, salt_of
from datatunerx.controllers.objects import draft, write_status
from datatunerx.controllers.users import keep_while_used
from datatunerx.plugins import DATA_PLUGINS, SCORERS, parameter_problem, schema_problem
from datatunerx.resources.enums import PluginProvider
from datatunerx.resources.material import DataPlugin, PluginSpec, PluginStatus
from datatunerx.resources.outcome import ScoringPlugin
from datatunerx.runs.compile import inspect_plugin, plugin_call
from datatunerx.runs.plan import PluginCall


class PluginReconciler:
    def __init__(self, context: Context, model: type[DataPlugin] | type[ScoringPlugin]) -> None:
        self._context = context
        self._model = model

    async def reconcile(self, key: Key) -> float | None:
        plugin: DataPlugin | ScoringPlugin | None = self._context.world.get(self._model, *key)
        if plugin is None:
            return None
        wanted = draft(plugin)
        if await keep_while_used(self._context, plugin, wanted):
            return None
        if plugin.metadata.deletion_timestamp is None:
            await self._inspect(plugin, wanted.status)
        await write_status(self._context, plugin, wanted)
        return None

    async def _inspect(self, plugin: DataPlugin | ScoringPlugin, status: PluginStatus) -> None:
        if problem := spec_problem(plugin.spec):
            status.run = None
            status.set_condition("Ready", False, *problem)
            return
        root = self._context.settings.root_uri
        plan = inspect_plugin(call_of(plugin), plugin.metadata.uid, root, salt_of(plugin))
        found = await inspect(self._context, plugin, plan)
        if found is not None:
            status.run = found.run
            _tell_of(found, plugin.spec, status)


def call_of(plugin: DataPlugin | ScoringPlugin) -> PluginCall:
    """How a worker calls it."""
    group = DATA_PLUGINS if isinstance(plugin, DataPlugin) else SCORERS
    return plugin_call(plugin.metadata.name, plugin.spec, group)


def spec_problem(spec: PluginSpec) -> tuple[str, str] | None:
    """(reason, message) of what is wrong with the spec by itself."""
    if spec.provider is PluginProvider.COMMAND and not spec.command:
        return "CommandMissing", "provider command needs spec.command: the program and its arguments"
    if spec.provider is PluginProvider.ENTRY_POINT and not spec.entry_point:
        wanted = "the name that an installed package offers, or module:function"
        return "EntryPointMissing", f"provider entry-point needs spec.entryPoint: {wanted}"
    if problem := schema_problem(spec.parameter_schema):
        return "SchemaInvalid", f"spec.parameterSchema is {problem}"
    return None


def parameters_problem(
    plugin: DataPlugin | ScoringPlugin, given: dict[str, object], *, whole: bool
) -> str | None:
    """Which parameters its own schema or its spec's does not take; `whole`: none may be missing any more."""
    return _problem([plugin.status.parameter_schema or {}, plugin.spec.parameter_schema], given, whole=whole)


def _problem(schemas: list[dict[str, object]], given: dict[str, object], *, whole: bool) -> str | None:
    for schema in schemas:
        asked = schema if whole else {key: part for key, part in schema.items() if key != "required"}
        if problem := parameter_problem(asked, given):
            return problem
    return None


def _tell_of(found: Inspected, spec: PluginSpec, status: PluginStatus) -> None:
    if found.failed:
        status.set_condition("Ready", False, found.reason, found.message)
        return
    if found.result is None or found.result.plugin is None:
        status.set_condition("Ready", None, "Inspecting", f"Run {found.run} loads it")
        return
    facts = found.result.plugin
    status.version = facts.version or spec.version
    status.package, status.summary, status.parameter_schema = (
        facts.package,
        facts.summary,
        facts.parameter_schema,
    )
    if problem := _problem([facts.parameter_schema, spec.parameter_schema], spec.parameters, whole=False):
        status.set_condition("Ready", False, "ParametersInvalid", f"spec.{problem}")
    elif spec.version and facts.version and spec.version != facts.version:
        message = f"version {facts.version} is installed and spec.version asks for {spec.version}"
        status.set_condition(
            "Ready", False, "OtherVersion", f"{message}; install that, or change spec.version"
        )
    else:
        what = f"{facts.package} {facts.version}" if facts.package else "the program is there"
        status.set_condition("Ready", True, "Found", what)
