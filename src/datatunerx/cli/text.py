"""Plain text from plain values: aligned columns, ages, numbers. No terminal, no clock of its own."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

from datatunerx.cli.documents import Json, scalar

GAP = 3
MISSING = "-"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines with columns under each other, as kubectl prints them."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        (" " * GAP).join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def table_cells(table: Json, *, wide: bool = False, namespaces: bool = False) -> list[list[str]]:
    """Head and rows of a server's Table; columns of priority above 0 with `wide` only."""
    columns = [i for i, c in enumerate(table["columnDefinitions"]) if wide or not c.get("priority")]
    head = [table["columnDefinitions"][i]["name"].upper() for i in columns]
    rows = [[cell(row["cells"][i]) for i in columns] for row in table.get("rows") or []]
    if namespaces:
        head = ["NAMESPACE", *head]
        for row, source in zip(rows, table.get("rows") or [], strict=True):
            row.insert(0, (source.get("object") or {}).get("metadata", {}).get("namespace", ""))
    return [head, *rows]


def cell(value: Any) -> str:
    if value is None or value == "":
        return "<none>"
    return number(value) if isinstance(value, float) else str(value)


def number(value: float) -> str:
    """At most four digits after the point, without the zeros that say nothing; tiny ones as 1e-05."""
    if value and abs(value) < 1e-3:
        return f"{value:.4g}"
    text = f"{value:.4f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def visible(text: str) -> str:
    """Text from elsewhere on one line: what would move or colour a terminal is shown as its code."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def readable(text: str) -> str:
    """Text of many lines from elsewhere: as `visible`, but line breaks and tabs stay."""
    return "".join(letter if letter in "\n\t" else visible(letter) for letter in text)


def percent(value: float | None) -> str:
    """A share as people read it; a missing one is a dash, never 0."""
    return MISSING if value is None else f"{value:.1%}"


def duration(seconds: float | None) -> str:
    """1:05 or 2:03:10; a dash for unknown."""
    if seconds is None or seconds < 0:
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def age(timestamp: str | None, now: datetime) -> str:
    """How long ago, in its two largest units."""
    if not timestamp:
        return "<unknown>"
    then = datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
    left = max(0, int((now - then.astimezone(UTC)).total_seconds()))
    parts: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{unit}")
    return "".join(part for part in parts[:2] if not part.startswith("0")) or "0s"


_BOOLEANS = frozenset("yYnN")
"""Read as booleans by kubectl, also as keys, though PyYAML writes them plain."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True  # what is the same twice is written twice: our own server takes no aliases

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    # the dumper quotes what YAML 1.1 would misread; 2e-4 is a number in 1.2 only
    plain = isinstance(scalar(value), str) and value not in _BOOLEANS
    style = "|" if "\n" in value else None if plain else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def as_yaml(objects: Sequence[Json]) -> str:
    """YAML documents that any reader, of 1.1 or 1.2, takes back unchanged."""
    return yaml.dump_all(
        objects, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110
    )
