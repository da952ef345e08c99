"""Running a data plugin on a dataset: the plugins to choose from, their parameters as fields of a form."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from datatunerx.console import kinds, states
from datatunerx.console.visit import Visit

Json = dict[str, Any]


class Field(NamedTuple):
    """A parameter. `form` is how it is asked for: choice, number, text or json."""

    name: str
    form: str
    help: str
    value: str
    choices: tuple[tuple[str, Any], ...] = ()
    """(as it is shown, as it is sent)"""
    required: bool = False


async def context(visit: Visit, obj: Json, form: Mapping[str, str], faults: Mapping[str, str]) -> Json:
    """What the tab shows."""
    plugins = {
        kinds.name_of(each): each for each in await kinds.some(visit.api, "DataPlugin", visit.namespace)
    }
    used = obj["spec"].get("plugin") or {}
    ref = form.get("plugin") or used.get("ref") or next(iter(plugins), "")
    plugin = plugins.get(ref)
    given = used.get("parameters") or {} if ref == used.get("ref") else {}
    return {
        "plugins": sorted(plugins),
        "plugin": ref,
        "plugin_phase": states.phase(plugin) if plugin else "",
        "plugin_why": states.why(plugin, visit.say) if plugin else "",
        "summary": (kinds.status_of(plugin).get("summary") or "") if plugin else "",
        "fields": [_filled(each, form) for each in fields(plugin, given)] if plugin else [],
        "made": kinds.status_of(obj).get("made"),
        "new_name": form.get("name") or kinds.name_of(obj),
        "faults": {field: visit.say(text) for field, text in faults.items()},
    }


def fields(plugin: Json, given: Mapping[str, Any]) -> list[Field]:
    """The parameters that the plugin's schema names, with what is given, set for all, or its default."""
    schema = kinds.status_of(plugin).get("parameterSchema") or plugin["spec"].get("parameterSchema") or {}
    preset = plugin["spec"].get("parameters") or {}
    required = schema.get("required") or ()
    found = []
    for name, rule in (schema.get("properties") or {}).items():
        rule = rule if isinstance(rule, dict) else {}
        value = given.get(name, preset.get(name, rule.get("default")))
        found.append(_field(name, rule, value, required=name in required))
    return found


def _field(name: str, rule: Json, value: Any, *, required: bool) -> Field:
    form = {"boolean": "bool", "integer": "number", "number": "number", "string": "text"}.get(
        str(rule.get("type", "")), "json"
    )
    options = [True, False] if form == "bool" else rule.get("enum") or ()
    choices = tuple((each if isinstance(each, str) else json.dumps(each), each) for each in options)
    text = value if isinstance(value, str) and form != "json" else json.dumps(value, ensure_ascii=False)
    text = "" if value is None else text
    help = str(rule.get("description") or rule.get("title") or "")
    return Field(name, "choice" if choices else form, help, text, choices, required)


def _filled(field: Field, form: Mapping[str, str]) -> Field:
    """The field as it was sent, where it was."""
    typed = form.get(f"p.{field.name}")
    return field if typed is None else field._replace(value=typed)


async def chosen(visit: Visit) -> tuple[str, Json, dict[str, str]]:
    """The dataset's name, the use of the plugin, and what is wrong, by field."""
    name, ref = visit.form.get("name", "").strip(), visit.form.get("plugin", "")
    if not ref or not name:
        return name, {}, {"plugin": "Choose a plugin."} if not ref else {"name": "Give it a name."}
    plugin = await visit.api.get(kinds.PLURALS["DataPlugin"], ref, visit.namespace)
    parameters, faults = values(fields(plugin, {}), visit.form)
    return name, {"ref": ref, "parameters": parameters}, faults


def values(asked: list[Field], form: Mapping[str, str]) -> tuple[Json, dict[str, str]]:
    """The parameters as typed: one left empty is left out, and the plugin's own default holds."""
    found: Json = {}
    faults: dict[str, str] = {}
    for field in asked:
        typed = form.get(f"p.{field.name}", "").strip()
        if not typed:
            if field.required:
                faults[f"p.{field.name}"] = "This is needed."
            continue
        try:
            found[field.name] = _value(field, typed)
        except (ValueError, KeyError):
            wanted = "Write a number." if field.form == "number" else "Write it as JSON."
            faults[f"p.{field.name}"] = wanted
    return found, faults


def _value(field: Field, typed: str) -> Any:
    """Raises ValueError, KeyError for what is no choice."""
    if field.form == "text":
        return typed
    if field.form == "choice":
        return dict(field.choices)[typed]
    value = json.loads(typed)
    if field.form == "number" and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(typed)
    return value
