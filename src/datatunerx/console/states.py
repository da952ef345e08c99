"""One vocabulary of states: each has a word, a shape and a tone; never a colour alone. Pure."""

from typing import Any, NamedTuple

from datatunerx.console.words import Say, plain

Json = dict[str, Any]


class State(NamedTuple):
    word: str
    """In English; the page says it in the visitor's language."""
    shape: str
    """Name of a symbol in `icons.svg`."""
    tone: str
    """good, bad, busy, wait, idle: a colour token of the style sheet."""


STATES = {
    "Pending": State("Pending", "s-wait", "wait"),
    "Running": State("Running", "s-run", "busy"),
    "Finetuning": State("Training", "s-run", "busy"),
    "Scoring": State("Scoring", "s-score", "busy"),
    "Retrying": State("Retrying", "s-retry", "warn"),
    "Suspended": State("Paused", "s-pause", "idle"),
    "Succeeded": State("Succeeded", "s-good", "good"),
    "Failed": State("Failed", "s-bad", "bad"),
    "Stopped": State("Stopped", "s-stop", "idle"),
    "Ready": State("Ready", "s-good", "good"),
    "NotReady": State("Not ready", "s-bad", "bad"),
    "Warning": State("Warning", "s-bad", "warn"),
    "Normal": State("Normal", "s-good", "idle"),
    "Deleting": State("Being deleted", "s-stop", "warn"),
}
UNKNOWN = State("Unknown", "s-wait", "wait")
ENDED = frozenset({"Succeeded", "Failed", "Stopped"})
BUSY = frozenset({"Running", "Finetuning", "Scoring", "Retrying"})


def phase(obj: Json) -> str:
    """Where an object stands: its phase, or what its Ready condition says."""
    if obj["metadata"].get("deletionTimestamp"):
        return "Deleting"
    status = obj.get("status") or {}
    if found := status.get("phase"):
        return str(found)
    ready = condition(obj, "Ready")
    if ready is None or ready.get("status") == "Unknown":
        return "Pending"
    return "Ready" if ready["status"] == "True" else "NotReady"


def state(name: str) -> State:
    return STATES.get(name, UNKNOWN)


def condition(obj: Json, type: str) -> Json | None:
    """A condition of the object; None when nobody has set it."""
    conditions = (obj.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == type), None)


def why(obj: Json, say: Say = plain) -> str:
    """What the object itself says of its state; empty when there is nothing to say."""
    status = obj.get("status") or {}
    found = said(status, say)
    return found if found or phase(obj) == "Ready" else said(condition(obj, "Ready") or {}, say)


def said(told: Json, say: Say = plain) -> str:
    """Reason and message. The reason is a word of the catalogue; messages come as they were written."""
    message = str(told.get("message") or "").partition("; to try again: ")[0]  # a button does it here
    reason = str(told.get("reason") or "")
    return ": ".join(filter(None, (say(reason) if reason else "", message)))


def attention(name: str) -> int:
    """Rank in a list: what needs somebody first, then what works, then what waits, then the rest."""
    if name in ("Failed", "NotReady"):
        return 0
    if name in BUSY:
        return 1
    return 2 if name in ("Pending", "Suspended", "Deleting") else 3
