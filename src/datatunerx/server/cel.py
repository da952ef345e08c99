"""Rules in CRDs (x-kubernetes-validations): compiled once, evaluated on each write.

The engine is untyped here, so values are converted by their schema first: numbers written as `1` become
doubles, date-times become timestamps. Rules that mention oldSelf run only on an update, and only where the
old value can be told: under maps, objects and lists of type map.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_bindings, ext_optional, ext_strings

from datatunerx.server import cel_functions
from datatunerx.server.errors import Cause, Json, shown
from datatunerx.server.structural import item_key, join, list_keys

_OLD = re.compile(r"\boldSelf\b")
_REASONS = ("FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate")
_HAD, _BEFORE = "dtxHadSelf", "dtxOldSelf"
_OPTIONAL = f"cel.bind(oldSelf, {_HAD} ? optional.of({_BEFORE}) : optional.none(),\n%s\n)"
"""A rule with optionalOldSelf: oldSelf is an optional value, absent on a create."""
ABSENT: Any = object()


class RuleError(ValueError):
    """A rule that cannot be compiled; says where it stands and why."""


@dataclass
class Rule:
    """One compiled rule."""

    text: str
    program: Any
    message: str
    message_program: Any
    reason: str
    field_path: str
    needs_old: bool
    optional_old: bool


@dataclass
class Node:
    """The rules at one place of the schema and below it."""

    schema: Json
    convert: "Convert | None"
    rules: list[Rule] = field(default_factory=list)
    properties: dict[str, "Node"] = field(default_factory=dict)
    values: "Node | None" = None
    items: "Node | None" = None


@cache
def _environment() -> Any:
    dyn = cel.Type.DYN
    variables = {"self": dyn, "oldSelf": dyn, _HAD: cel.Type.BOOL, _BEFORE: dyn}
    extensions = [ext_strings.ExtStrings(), ext_optional.ExtOptional(), ext_bindings.ExtBindings()]
    return cel.NewEnv(variables=variables, extensions=[*extensions, cel_functions.extension()])


def compile_rules(schema: Json, path: str = "") -> Node | None:
    """The rules of a schema as a tree; None when there are none. Raises RuleError."""
    node = Node(schema, _converter(schema))
    for number, rule in enumerate(schema.get("x-kubernetes-validations", ())):
        node.rules.append(_compile(rule, f"{path or 'schema'}.x-kubernetes-validations[{number}]"))
    for name, below in schema.get("properties", {}).items():
        if found := compile_rules(below, join(path, name)):
            node.properties[name] = found
    if isinstance(schema.get("additionalProperties"), dict):
        node.values = compile_rules(schema["additionalProperties"], f"{path}[*]")
    if isinstance(schema.get("items"), dict):
        node.items = compile_rules(schema["items"], f"{path}[*]")
    return node if node.rules or node.properties or node.values or node.items else None


def _compile(rule: Json, where: str) -> Rule:
    text = rule["rule"]
    optional = bool(rule.get("optionalOldSelf"))
    reason = rule.get("reason") or "FieldValueInvalid"
    if reason not in _REASONS:
        raise RuleError(f"{where}.reason: {reason!r} is not one of {', '.join(_REASONS)}")
    field_path = rule.get("fieldPath") or ""
    if field_path and not field_path.startswith((".", "[")):
        raise RuleError(f"{where}.fieldPath: {field_path!r} must begin with . or [")
    program = _program(text, f"{where}.rule")
    told = rule.get("messageExpression")
    if optional:
        # By itself it has compiled, so that nothing in it can close the brackets it is put in.
        program = _program(_OPTIONAL % text, f"{where}.rule")
    return Rule(
        text,
        program,
        rule.get("message", "").strip() or f"failed rule: {text.strip()}",
        _program(_OPTIONAL % told if optional else told, f"{where}.messageExpression") if told else None,
        reason,
        field_path,
        bool(_OLD.search(text)) and not optional,
        optional,
    )


def _program(text: str, where: str) -> Any:
    try:
        return _environment().compile(text)
    except RuntimeError as error:
        raise RuleError(f"{where}: {text!r} does not compile: {str(error).splitlines()[0]}") from None


def check(node: Node, new: Any, old: Any = ABSENT, path: str = "") -> Iterator[Cause]:
    """What the rules refuse in `new`; `old` is the value before, where there was one."""
    if node.rules:
        yield from _run(node, new, old, path)
    if isinstance(new, dict):
        before = old if isinstance(old, dict) else {}
        for name, below in node.properties.items():
            if name in new:
                yield from check(below, new[name], before.get(name, ABSENT), join(path, name))
        if node.values:
            for name, child in new.items():
                yield from check(node.values, child, before.get(name, ABSENT), f"{path}[{name}]")
    elif isinstance(new, list) and node.items:
        keys = list_keys(node.schema)
        for place, child in enumerate(new):
            before_child = _counterpart(child, old, keys, node.schema)
            yield from check(node.items, child, before_child, f"{path}[{place}]")


def _counterpart(item: Any, old: Any, keys: list[str] | None, schema: Json) -> Any:
    if keys is None or not isinstance(old, list):
        return ABSENT
    wanted = item_key(item, keys, schema)
    return next((other for other in old if item_key(other, keys, schema) == wanted), ABSENT)


def _run(node: Node, new: Any, old: Any, path: str) -> Iterator[Cause]:
    data: Json = {}
    # What did not change is not judged again, as on a cluster (validation ratcheting); but a rule about the
    # change itself is always asked.
    settled = old is not ABSENT and new == old and type(new) is type(old)
    for rule in node.rules:
        skipped = old is ABSENT if rule.needs_old else settled and not rule.optional_old
        if skipped:
            continue
        if not data:
            data |= {"self": _shown_to_rules(new, node, path), _HAD: old is not ABSENT, _BEFORE: None}
            if old is not ABSENT:
                data["oldSelf"] = data[_BEFORE] = _shown_to_rules(old, node, path)
        result = rule.program.eval(data=data)
        if result.type() == cel.Type.BOOL and result.plain_value():
            continue
        field_path = path + rule.field_path
        if result.type() == cel.Type.ERROR:
            why = f"rule could not be evaluated: {rule.text.strip()}: {result.value()}"
        else:
            why = _message(rule, data)
        yield _cause(rule, field_path.lstrip(".") or "<root>", new, why)


def _cause(rule: Rule, path: str, value: Any, why: str) -> Cause:
    if rule.reason == "FieldValueForbidden":
        return Cause(rule.reason, path, f"Forbidden: {why}")
    if rule.reason == "FieldValueRequired":
        return Cause(rule.reason, path, f"Required value: {why}")
    if rule.reason == "FieldValueDuplicate":
        return Cause(rule.reason, path, f"Duplicate value: {shown(value)}")
    return Cause(rule.reason, path, f"Invalid value: {shown(value)}: {why}")


def _message(rule: Rule, data: Json) -> str:
    if rule.message_program is not None:
        told = rule.message_program.eval(data=data)
        if told.type() == cel.Type.STRING and str(told.plain_value()).strip():
            return str(told.plain_value())
    return rule.message


Convert = Callable[[Any], Any]


def _converter(schema: Json) -> Convert | None:
    """What turns a value of the schema into what rules expect; None when it is that already."""
    if schema.get("type") == "number":
        return _to_double
    if schema.get("format") == "date-time":
        return _to_time
    properties = {
        name: found for name, below in schema.get("properties", {}).items() if (found := _converter(below))
    }
    others, items = schema.get("additionalProperties"), schema.get("items")
    rest = _converter(others) if isinstance(others, dict) else None
    each = _converter(items) if isinstance(items, dict) else None
    if not (properties or rest or each):
        return None

    def convert(value: Any) -> Any:
        if isinstance(value, list):
            return [each(child) for child in value] if each else value
        if not isinstance(value, dict):
            return value
        if rest:
            return {name: properties.get(name, rest)(child) for name, child in value.items()}
        changed = {name: found(value[name]) for name, found in properties.items() if name in value}
        return value | changed

    return convert


def _to_double(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _to_time(value: Any) -> Any:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _shown_to_rules(value: Any, node: Node, path: str) -> Any:
    if not path and isinstance(value, dict) and "metadata" in value:
        # Of an object's metadata rules see only these two, here as on a cluster.
        meta = value["metadata"]
        value = value | {"metadata": {name: meta[name] for name in ("name", "generateName") if name in meta}}
    return node.convert(value) if node.convert else value
