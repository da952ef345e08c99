"""One object as a page of text: what it says, how it stands, what happened to it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from datatunerx.cli.documents import Json
from datatunerx.cli.text import age, aligned, as_yaml

HIDDEN = ("conditions", "observedGeneration", "logTail")
LONG = 40
"""Longer lists and texts are cut in a description, with a word on how to see the whole."""

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""Annotation in which `kubectl apply` keeps the manifest."""


def describe(body: Json, events: Sequence[Json], now: datetime) -> str:
    """The page. Nothing is left out without saying so."""
    metadata, status = body["metadata"], body.get("status") or {}
    created = metadata.get("creationTimestamp")
    lines = [
        f"Name:       {metadata['name']}",
        f"Namespace:  {metadata.get('namespace', '')}",
        f"Kind:       {body['kind']}",
        f"Created:    {created} ({age(created, now)} ago)",
    ]
    if metadata.get("deletionTimestamp"):
        lines.append(f"Deleting:   since {metadata['deletionTimestamp']}")
    for title, key in (("Labels:", "labels"), ("Annotations:", "annotations")):
        pairs = dict(metadata.get(key) or {})
        if LAST_APPLIED in pairs:  # a Secret's values are in it too
            pairs[LAST_APPLIED] = f"({len(pairs[LAST_APPLIED])} characters, not shown)"
        lines += [f"{title:<11} {name}={value}" for name, value in pairs.items()]
    owners = ", ".join(f"{o['kind']}/{o['name']}" for o in metadata.get("ownerReferences", []))
    lines += [f"Owned by:   {owners}"] if owners else []
    lines += ["", "Spec:", *_indented(body.get("spec") or {})]
    rest = {key: _shortened(value) for key, value in status.items() if key not in HIDDEN}
    lines += ["", "Status:", *_indented(rest)] if rest else []
    warnings = (status.get("report") or {}).get("warnings") or ()
    lines += ["", "Warnings:", *(f"  {warning}" for warning in warnings)] if warnings else []
    lines += _conditions(status.get("conditions") or [], now)
    if status.get("logTail"):
        lines += ["", "Last lines of the log:", *(f"  {line}" for line in status["logTail"].splitlines())]
    return "\n".join([*lines, *_events(events, now)])


def event_rows(events: Sequence[Json], now: datetime) -> list[list[str]]:
    """Events in the order they happened, with a head."""
    rows = [["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]]
    for event in sorted(events, key=when):
        about = event.get("involvedObject") or {}
        count = f" (x{event['count']})" if (event.get("count") or 1) > 1 else ""
        rows.append([
            age(when(event) or None, now), event.get("type", ""), event.get("reason", ""),
            f"{about.get('kind', '')}/{about.get('name', '')}", event.get("message", "") + count,
        ])  # fmt: skip
    return rows


def when(event: Json) -> str:
    """RFC 3339 time of an Event; as text, so that a missing one comes first."""
    when = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
    return str(when or "")


def _conditions(conditions: Sequence[Json], now: datetime) -> list[str]:
    if not conditions:
        return []
    rows = [["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"]]
    for c in conditions:
        since = age(c.get("lastTransitionTime") or None, now)
        rows.append([c["type"], c["status"], c.get("reason", ""), since, c.get("message", "")])
    return ["", "Conditions:", *(f"  {line}" for line in aligned(rows))]


def _events(events: Sequence[Json], now: datetime) -> list[str]:
    if not events:
        return ["", "Events:     none"]
    rows = [[row[0], row[1], row[2], row[4]] for row in event_rows(events, now)]
    return ["", "Events:", *(f"  {line}" for line in aligned(rows))]


def _indented(body: Json) -> list[str]:
    return [f"  {line}" for line in as_yaml([body]).splitlines()] if body else ["  {}"]


def _shortened(value: Any) -> Any:
    if isinstance(value, list):
        kept = [_shortened(item) for item in value[:LONG]]
        more = len(value) - len(kept)
        return [*kept, f"... {more} more; see -o yaml"] if more else kept
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, str) and len(value) > LONG * 50:
        return f"{value[: LONG * 50]}... {len(value)} characters; see -o yaml"
    return value
