"""What every write passes: unknown fields out, defaults in, then schema, rules and metadata checked."""

import base64
import re
from collections.abc import Iterator
from datetime import datetime

import orjson

from datatunerx.server import builtin, cel, structural
from datatunerx.server.errors import Cause, Json, bad_request, invalid, required, wrong
from datatunerx.server.http import Request
from datatunerx.server.kinds import Kind, check_crd

MAX_ANNOTATIONS = 256 << 10
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
    "and end with an alphanumeric character (e.g. 'my-name', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


def decode(kind: Kind, obj: Json, request: Request) -> None:
    """Prune and default in place; unknown fields are refused, warned of or let pass as the request says."""
    if not isinstance(obj.get("metadata"), dict):
        raise bad_request("metadata: must be an object")
    judge_fields(structural.prune(obj, kind.full_schema), request)
    if kind.builtin:
        builtin.fill(kind, obj)
    structural.default(obj, kind.defaults)


def judge_fields(unknown: list[str], request: Request) -> None:
    """Fields that stand twice or are unknown: refuse them, warn, or let them pass, as the request says."""
    validation = request.query.get("fieldValidation") or "Warn"
    if validation not in ("Strict", "Warn", "Ignore"):
        raise bad_request(f'fieldValidation: "{validation}" is not one of Strict, Warn, Ignore')
    told = [f'duplicate field "{path}"' for path in request.doubled]
    told += [f'unknown field "{path}"' for path in unknown]
    request.doubled = []
    if told and validation == "Strict":
        raise bad_request(f"strict decoding error: {', '.join(told)}")
    if validation == "Warn":
        request.warnings += told


def validate(kind: Kind, new: Json, live: Json | None) -> None:
    """Refuse what does not fit (422, every cause named)."""
    name = new["metadata"].get("name") or new["metadata"].get("generateName", "")
    found = list(structural.causes(kind.validator, new))
    if kind.keyed_lists and not found:
        found += structural.duplicates(new, kind.keyed_lists)
    if kind.rules and not found:
        found += cel.check(kind.rules, new, cel.ABSENT if live is None else _with_defaults(kind, live))
    if not found:
        found += metadata(kind, new["metadata"], live["metadata"] if live else None)
    if not found and kind.builtin:
        found += _builtin(kind, new, live)
    if found:
        raise invalid(kind.group_kind, name, list(dict.fromkeys(found)))


def _with_defaults(kind: Kind, live: Json) -> Json:
    """What was stored before a field had its default: rules of change must not take that for a change."""
    old: Json = orjson.loads(orjson.dumps(live))
    structural.default(old, kind.defaults)
    return old


def metadata(kind: Kind, meta: Json, old: Json | None) -> Iterator[Cause]:
    """What is wrong with names, labels, annotations, finalizers and owners."""
    if old is None:
        yield from _name(kind, meta)
    for key, value in (meta.get("labels") or {}).items():
        yield from _qualified("metadata.labels", key)
        if value and (len(value) > 63 or not _QUALIFIED.fullmatch(value)):
            why = "a valid label must be at most 63 alphanumeric characters, '-', '_' or '.'"
            yield wrong("metadata.labels", value, why)
    annotations = meta.get("annotations") or {}
    for key in annotations:
        yield from _qualified("metadata.annotations", key)
    if sum(len(k) + len(v.encode()) for k, v in annotations.items()) > MAX_ANNOTATIONS:
        message = f"Too long: may not be more than {MAX_ANNOTATIONS} bytes"
        yield Cause("FieldValueTooLong", "metadata.annotations", message)
    finalizers = meta.get("finalizers") or []
    for finalizer in finalizers:
        yield from _qualified("metadata.finalizers", finalizer)
    if old and old.get("deletionTimestamp"):
        added = [f for f in finalizers if f not in (old.get("finalizers") or [])]
        if added:
            why = "no new finalizers can be added if the object is being deleted"
            yield Cause("FieldValueForbidden", "metadata.finalizers", f"Forbidden: {why}, found new {added}")
    owners = meta.get("ownerReferences") or []
    if sum(bool(owner.get("controller")) for owner in owners) > 1:
        yield wrong("metadata.ownerReferences", owners, "only one reference can have controller set to true")
    for place, owner in enumerate(owners):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                yield required(
                    f"metadata.ownerReferences[{place}].{field}", "Required value: must not be empty"
                )


def _name(kind: Kind, meta: Json) -> Iterator[Cause]:
    name = meta.get("name", "")
    if not name:
        yield required("metadata.name", "Required value: name or generateName is required")
    elif kind.resource == builtin.NAMESPACES:
        if len(name) > 63 or not _LABEL.fullmatch(name):
            yield wrong("metadata.name", name, _LABEL_RULE)
    elif len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        yield wrong("metadata.name", name, _SUBDOMAIN_RULE)


def _qualified(field: str, key: str) -> Iterator[Cause]:
    prefix, slash, name = key.rpartition("/")
    if not name or len(name) > 63 or not _QUALIFIED.fullmatch(name):
        yield wrong(field, key, "name part must be 1 to 63 alphanumeric characters, '-', '_' or '.'")
    elif slash and (len(prefix) > 253 or not _SUBDOMAIN.fullmatch(prefix)):
        yield wrong(field, key, f"prefix part {_SUBDOMAIN_RULE}")


def _builtin(kind: Kind, new: Json, live: Json | None) -> Iterator[Cause]:
    if kind.resource == builtin.CRDS:
        yield from check_crd(new)
        if live and live["spec"].get("scope") != new["spec"].get("scope"):
            yield wrong("spec.scope", new["spec"].get("scope"), "field is immutable")
    frozen = kind.resource in (builtin.SECRETS, builtin.CONFIG_MAPS) and live and live.get("immutable")
    if (
        live
        and frozen
        and any(live.get(part) != new.get(part) for part in ("data", "binaryData", "immutable"))
    ):
        yield Cause("FieldValueForbidden", "data", "Forbidden: field is immutable when `immutable` is set")
    if kind.resource == builtin.TOKENS and (end := new["spec"].get("expires")) is not None:
        try:
            known = datetime.fromisoformat(end).tzinfo is not None
        except ValueError:
            known = False
        if not known:
            yield wrong("spec.expires", end, "must be an RFC 3339 time, as 2030-01-31T12:00:00Z")
    if kind.resource == builtin.SECRETS:
        if builtin.REDACTED in (new["metadata"].get("annotations") or {}):
            why = "this copy is from a list, without its values; get the Secret by name and change that"
            yield Cause(
                "FieldValueForbidden", f"metadata.annotations[{builtin.REDACTED}]", f"Forbidden: {why}"
            )
        for name, value in (new.get("data") or {}).items():
            try:
                base64.b64decode(value, validate=True)
            except ValueError:
                why = "must be base64; put plain text under stringData"
                yield Cause("FieldValueInvalid", f"data[{name}]", f"Invalid value: {why}")
    if kind.resource == builtin.SECRETS and live and live.get("type") != new.get("type"):
        yield wrong("type", new.get("type"), "field is immutable")
