"""Numbers, times and sizes as people read them. Pure; a missing one is a dash, never 0."""

from datetime import UTC, datetime
from typing import Any

import yaml

MISSING = "–"
_AGES = ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def number(value: float | None, digits: int = 4) -> str:
    """So many significant digits, thousands apart; tiny ones as 1e-05."""
    if value is None:
        return MISSING
    if isinstance(value, int) or float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def score(value: float | None) -> str:
    """A score to three places."""
    return MISSING if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """A difference, with its sign."""
    return MISSING if value is None else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def size(value: float | None) -> str:
    """Bytes in the unit that fits: 3.1 GB."""
    if value is None:
        return MISSING
    left = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if left < 1000:
            return f"{left:.3g} {unit}"
        left /= 1000
    return f"{left:.3g} TB"


def duration(seconds: float | None) -> str:
    """4 s, 3 min, 2 h 10 min."""
    if seconds is None or seconds < 0:
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return (
        f"{minutes} min {rest} s"
        if minutes and minutes < 10
        else f"{minutes} min"
        if minutes
        else f"{rest} s"
    )


def when(stamp: str | None) -> datetime | None:
    """A time of the API; None for none, or one that cannot be read."""
    try:
        return datetime.fromisoformat(stamp).astimezone(UTC) if stamp else None
    except ValueError:
        return None


def age(stamp: str | None, now: datetime) -> str:
    """How long ago, in its largest unit."""
    then = when(stamp)
    if then is None:
        return MISSING
    left = max(0, int((now - then).total_seconds()))
    size, unit = next(((s, u) for s, u in _AGES if left >= s), (1, "s"))
    return f"{left // size} {unit}"


def took(start: str | None, end: str | None, now: datetime) -> float | None:
    """Seconds from start to end, or until now."""
    began = when(start)
    return ((when(end) or now) - began).total_seconds() if began else None


def as_yaml(*objects: Any) -> str:
    """Documents as YAML, in the order of their fields."""
    return yaml.safe_dump_all(objects, sort_keys=False, allow_unicode=True, width=110)
