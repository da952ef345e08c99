"""What an inspection found, as pages show it: places, problems, rows as they are trained on. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from datatunerx.runs.preview import pieces, visible

Json = dict[str, Any]
SHOWN_PROBLEMS = 100
SHOWN_CHARACTERS = 6000
"""Of one row; a row may have megabytes."""
_UPLOADED = re.compile(r"(?:upload://|\S*/uploads/)[a-z0-9-]+/[0-9a-f]{32}/")


class Part(NamedTuple):
    """A piece of a row. `role` is "" where the template wrote it; `trained` says whether it carries loss."""

    text: str
    trained: bool
    role: str = ""


class Row(NamedTuple):
    where: str
    parts: list[Part]
    cut: int
    """Characters that are not shown."""


def place(text: str) -> str:
    """file:line without the folders of an upload."""
    return _UPLOADED.sub("", text)


def problems(facts: Mapping[str, Any]) -> list[Json]:
    """The first rows that were left out, each with its place and what mends it."""
    found = []
    for each in (facts.get("problems") or ())[:SHOWN_PROBLEMS]:
        where = f"{place(each['file'])}:{each['line']}" if each.get("line") else place(each["file"])
        found.append({key: visible(each.get(key) or "") for key in ("reason", "field", "found", "fix")})
        found[-1]["where"] = visible(where)
    return found


def rows(facts: Mapping[str, Any]) -> list[Row]:
    """The first rows, as the tokens say them, or as they were read where no tokenizer was named."""
    return [_row(each) for each in facts.get("preview") or ()]


def _row(row: Mapping[str, Any]) -> Row:
    if "text" in row:
        parts = [Part(visible(text), trained) for text, trained in pieces(row) if text.strip()]
    else:
        parts = [Part(visible(m["content"]), m["role"] == "assistant", m["role"]) for m in _turns(row)]
    left, shown = SHOWN_CHARACTERS, []
    for part in parts:
        if left > 0:
            shown.append(part._replace(text=part.text[:left]))
        left -= len(part.text)
    return Row(visible(place(row["row"])), shown, max(0, -left))


def _turns(row: Mapping[str, Any]) -> list[Json]:
    tools = [{"role": "tools", "content": row["tools"]}] if row.get("tools") else []
    last = [each | {"role": "rejected"} for each in (row.get("rejected") or ())[-1:]]
    return [*tools, *(row.get("messages") or ()), *last]


def histogram(report: Mapping[str, Any], cutoffs: Sequence[int]) -> list[Json]:
    """A bar per bin: its place and height in a drawing 600 by 160, its label, and the cutoff in it."""
    bins = report.get("histogram") or []
    most = max((each["rows"] for each in bins), default=0) or 1
    width = 560 / max(1, len(bins))
    bars = []
    for n, each in enumerate(bins):
        height = 120 * each["rows"] / most
        low = bins[n - 1]["upTo"] if n else each["upTo"] // 2
        cut = next((c for c in cutoffs if low < c <= each["upTo"]), None)
        bars.append(
            {
                "x": 20 + n * width,
                "width": max(1.0, width - 4),
                "y": 130 - height,
                "height": height,
                "label": each["upTo"],
                "rows": each["rows"],
                "cut": cut,
                "cut_x": 20 + n * width + (width * (cut - low) / (each["upTo"] - low) if cut else 0),
            }
        )
    return bars


class MadeSplit(NamedTuple):
    """A split that was made from the train rows. Shares are of 1."""

    split: str
    share: float
    asked: float


def made_splits(report: Json, spec: Json) -> list[MadeSplit]:
    """Those without files of their own, with the share they got of what the train files hold."""
    counts = report.get("splits") or {}
    named = {
        split for subset in spec.get("subsets") or () for split, files in subset["splits"].items() if files
    }
    asked = {split: (spec.get("split") or {}).get(split, 0.1) for split in ("validate", "test")}
    made = [split for split, share in asked.items() if split not in named and share > 0]
    whole = counts.get("train", 0) + sum(counts.get(split, 0) for split in made)
    return [MadeSplit(split, counts.get(split, 0) / whole, asked[split]) for split in made] if whole else []
