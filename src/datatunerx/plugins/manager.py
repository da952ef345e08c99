"""Finding plugins. Loading one runs its code, so only a child process with limits calls these."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, packages_distributions, version
from typing import Any

import pluggy

from datatunerx.plugins.hooks import DATA_PLUGINS, SCORERS, Hooks

_HOOK_OF = {DATA_PLUGINS: "data_plugins", SCORERS: "scorers"}


class PluginError(Exception):
    """A plugin cannot be found or loaded. `reason` is one word for a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message

    def __reduce__(self) -> tuple[type["PluginError"], tuple[str, str]]:
        return type(self), (self.reason, self.message)


@dataclass(frozen=True)
class Offer:
    """A plugin as it was found."""

    name: str
    plugin: Any
    """What the hook gives under this name: a DataPlugin, a scorer."""
    package: str
    version: str | None


def find(group: str, name: str) -> Offer:
    """The plugin of this name, or the one that `module:function` returns or is. Raises PluginError."""
    if ":" in name:
        return _direct(name)
    found, broken = offered(group)
    if name in found:
        return found[name]
    known = ", ".join(sorted(found)) or "none"
    failed = "".join(f"; {text}" for text in broken)
    raise PluginError("PluginNotFound", f"no installed package offers {name!r}; offered: {known}{failed}")


def offered(group: str) -> tuple[dict[str, Offer], list[str]]:
    """Every plugin that installed packages offer, by name; and what kept others from being loaded.

    Of two packages that offer one name neither is taken: which one was meant nobody can tell.
    """
    found: dict[str, Offer] = {}
    broken: list[str] = []
    claims: dict[str, list[str]] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.value):
        owner = point.dist.name if point.dist else point.value
        try:
            for name, plugin in _hooked(group, point):
                claims.setdefault(name, []).append(owner)
                found[name] = Offer(name, plugin, owner, point.dist.version if point.dist else None)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; here it is named
            broken.append(f"package {owner} cannot be loaded: {type(error).__name__}: {error}")
    for name, owners in claims.items():
        if len(owners) > 1:
            del found[name]
            broken.append(f"{' and '.join(owners)} both offer {name!r}; uninstall one")
    return found, broken


def _hooked(group: str, point: EntryPoint) -> Iterator[tuple[str, Any]]:
    """What one module offers through the group's hook."""
    manager = pluggy.PluginManager("datatunerx")
    manager.add_hookspecs(Hooks)
    manager.register(point.load())
    answers: list[Mapping[str, Any]] = getattr(manager.hook, _HOOK_OF[group])()
    for answer in answers:
        yield from answer.items()


def _direct(name: str) -> Offer:
    module_name, _, attribute = name.partition(":")
    try:
        module = import_module(module_name)
    except Exception as error:
        message = f"{module_name} cannot be imported: {type(error).__name__}: {error}"
        raise PluginError("ModuleNotFound", message) from error
    plugin = getattr(module, attribute, None)
    if plugin is None:
        raise PluginError("PluginNotFound", f"module {module_name} has no {attribute!r}")
    package, number = _owner(module_name.partition(".")[0])
    return Offer(name, plugin, package, number)


def _owner(top: str) -> tuple[str, str | None]:
    owners = packages_distributions().get(top, [])
    try:
        return (owners[0], version(owners[0])) if owners else (top, None)
    except PackageNotFoundError:
        return top, None
