"""Label and field selectors, as `kubectl get -l` and `--field-selector` send them."""

import re
from collections.abc import Callable, Iterable

from datatunerx.server.errors import Json, bad_request

Matches = Callable[[Json], bool]

_TERM = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<absent_key>[^\s,()=!]+)"
    r"|(?P<set_key>[^\s,()=!]+)\s+(?P<set_op>in|notin)\s*\((?P<values>[^()]*)\)"
    r"|(?P<key>[^\s,()=!]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s,()=!]*)"
    r"|(?P<present>[^\s,()=!]+))\s*(?:,|$)"
)
_FIELD = re.compile(r"\s*([^\s,=!]+?)\s*(==|=|!=)\s*((?:\\.|[^,\\])*)\s*(?:,|$)")

FIELDS_OF_ALL = ("metadata.name", "metadata.namespace")


def labels(selector: str) -> Matches | None:
    """A test of an object's labels; None when everything matches. 400 when it cannot be parsed."""
    terms: list[Callable[[dict[str, str]], bool]] = []
    place = 0
    while place < len(selector.rstrip()):
        match = _TERM.match(selector, place)
        if not match:
            raise bad_request(f"unable to parse label selector {selector!r} at {selector[place:]!r}")
        terms.append(_label_term(match))
        place = match.end()
    if not terms:
        return None

    def matches(obj: Json) -> bool:
        found = obj["metadata"].get("labels") or {}
        return all(term(found) for term in terms)

    return matches


def _label_term(match: re.Match[str]) -> Callable[[dict[str, str]], bool]:
    if match["absent"]:
        absent = match["absent_key"]
        return lambda found: absent not in found
    if match["set_op"]:
        key, values = match["set_key"], {value.strip() for value in match["values"].split(",")}
        if match["set_op"] == "in":
            return lambda found: found.get(key) in values
        return lambda found: found.get(key) not in values
    if match["op"]:
        key, value = match["key"], match["value"]
        if match["op"] == "!=":
            return lambda found: found.get(key) != value
        return lambda found: found.get(key) == value
    present = match["present"]
    return lambda found: present in found


def fields(selector: str, allowed: Iterable[str]) -> Matches | None:
    """A test of an object's fields; 400 for a field the kind does not offer."""
    allowed = (*FIELDS_OF_ALL, *allowed)
    terms: list[tuple[tuple[str, ...], bool, str]] = []
    place = 0
    while place < len(selector.rstrip()):
        match = _FIELD.match(selector, place)
        if not match:
            raise bad_request(f"unable to parse field selector {selector!r} at {selector[place:]!r}")
        name, operator, value = match.groups()
        if name not in allowed:
            raise bad_request(f"field label not supported: {name}")
        terms.append((tuple(name.split(".")), operator != "!=", re.sub(r"\\(.)", r"\1", value)))
        place = match.end()
    if not terms:
        return None
    return lambda obj: all((_text(obj, path) == value) == equal for path, equal, value in terms)


def _text(obj: Json, path: tuple[str, ...]) -> str:
    value: object = obj
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def both(first: Matches | None, second: Matches | None) -> Matches | None:
    """Both tests as one."""
    if first and second:
        return lambda obj: first(obj) and second(obj)
    return first or second


def name_in(selector: str) -> str | None:
    """The name, when the field selector is exactly `metadata.name=NAME`; a list of one needs no scan."""
    match = re.fullmatch(r"\s*metadata\.name\s*==?\s*([^,\s\\]+)\s*", selector)
    return match[1] if match else None
