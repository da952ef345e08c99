"""DataPlugin and ScoringPlugin: Ready when what they name is installed. Nothing of theirs is run here."""

import asyncio
import importlib.metadata
import importlib.util
import shutil

from datatunerx.client.informer import Key
from datatunerx.controllers.context import Context
from datatunerx.controllers.objects import draft, write_status
from datatunerx.controllers.users import keep_while_used
from datatunerx.resources.enums import PluginProvider
from datatunerx.resources.material import DataPlugin, PluginSpec
from datatunerx.resources.outcome import ScoringPlugin


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
        found, reason, message, version = await asyncio.to_thread(look, plugin.spec)  # reads many small files
        wanted.status.version = version
        wanted.status.set_condition("Ready", found, reason, message)
        await write_status(self._context, plugin, wanted)
        return None


def look(spec: PluginSpec) -> tuple[bool, str, str, str | None]:
    """(installed, reason, message, version). Only the top package is looked for, and not imported."""
    if spec.provider is PluginProvider.COMMAND:
        if not spec.command:
            return False, "CommandMissing", "provider command needs spec.command", None
        if not shutil.which(spec.command[0]):
            return False, "CommandNotFound", f"{spec.command[0]!r} is not on the server's PATH", None
        return True, "Found", f"{spec.command[0]} is on the PATH", spec.version
    module, colon, function = (spec.entry_point or "").partition(":")
    if not (module and colon and function):
        return False, "EntryPointMissing", "provider entry-point needs spec.entryPoint: module:function", None
    package = module.split(".")[0]
    try:
        installed = importlib.util.find_spec(package) is not None
    except ValueError:
        installed = False
    if not installed:
        return False, "ModuleNotFound", f"no package {package!r} is installed beside the server", None
    owners = importlib.metadata.packages_distributions().get(package, [])
    version = importlib.metadata.version(owners[0]) if owners else None
    return True, "Found", f"package {package} is installed", version
