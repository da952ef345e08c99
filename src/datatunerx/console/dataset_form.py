"""A Dataset's spec as fields of a form, and back. Pure. A field is named as in YAML, with dots."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

Json = dict[str, Any]

MAIN_PARTS = {"prompt": "Question", "completion": "Answer", "system": "System prompt"}
"""What most files hold, in words; the other parts are called by their names."""
OTHER_PARTS = (
    "messages", "conversations", "instruction", "input", "output", "history", "tools", "chosen", "rejected",
    "label", "text",
)  # fmt: skip
SPLITS = ("train", "validate", "test")
FORMATS = (
    "auto", "messages", "sharegpt", "alpaca", "prompt-completion", "preference", "labelled", "text",
)  # fmt: skip
LISTS = ("languages", "tags")
TEXTS = ("task", "license", "llm")
_OF_SPLIT = {
    "validate": ("val", "valid", "validate", "validation", "dev", "eval"),
    "test": ("test", "holdout"),
}
_COLUMNS = re.compile(r"columns (.+?) are (?:no known format|not those of format)|\(found (.+?)\)")


def split_of(file: str) -> str:
    """The split that a file's name speaks of; train if of none."""
    words = set(re.split(r"[^a-z]+", file.lower()))
    return next((split for split, names in _OF_SPLIT.items() if words & set(names)), "train")


def name_for(file: str, taken: Collection[str]) -> str:
    """A free name for a dataset of this file."""
    stem = re.sub(r"[^a-z0-9]+", "-", file.lower().split(".")[0]).strip("-")[:50].strip("-") or "data"
    return next(
        name for n in range(1, len(taken) + 2) if (name := stem if n == 1 else f"{stem}-{n}") not in taken
    )


def file_name(name: str) -> str:
    """The name under which the server takes a file."""
    cleaned = re.sub(r"[^\w .,+=@()-]", "_", name.replace("\\", "/").rpartition("/")[2])[:200]
    return cleaned if re.match(r"\w", cleaned) else f"_{cleaned[1:]}"


def columns_in(message: str) -> list[str]:
    """The file's columns, where a refusal names them."""
    found = _COLUMNS.search(message)
    columns = (found[1] or found[2]).split(", ") if found else []
    return [column for column in columns if column not in ("...", "none")]


def values_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """What the form shows of a spec."""
    split = spec.get("split") or {}
    files = (spec.get("subsets") or [{}])[0].get("splits") or {}
    values = {name: "\n".join(files.get(name) or ()) for name in SPLITS}
    values |= {name: str(spec.get(name) or "") for name in TEXTS}
    values |= {name: ", ".join(spec.get(name) or ()) for name in LISTS}
    values |= {f"map.{each['name']}": each["mapTo"] for each in spec.get("features") or ()}
    values |= {f"split.{name}": _percent(split.get(name, 0.1)) for name in SPLITS[1:]}
    values |= {f"split.{name}": str(split.get(name) or "") for name in ("groupBy", "stratifyBy")}
    return values | {
        "format": str(spec.get("format") or "auto"),
        "split.seed": str(split.get("seed", 42)),
        "unpack": "on" if spec.get("unpack") else "",
        "credentials": ((spec.get("credentials") or {}).get("secretRef") or {}).get("name", ""),
    }


def spec_of(form: Mapping[str, str], before: Mapping[str, Any]) -> tuple[Json, dict[str, str]]:
    """The spec as a merge patch of `before`, and what is wrong with which field (in English).

    Fields that the form does not hold stay as they are.
    """
    spec: Json = {}
    faults: dict[str, str] = {}
    if "train" in form:
        files = {name: _lines(form.get(name, "")) for name in SPLITS}
        if not files["train"] and not files["test"]:
            faults["train"] = "Name at least one file to train on, or one to score by as test."
        subset = (before.get("subsets") or [{"name": "default"}])[0]
        spec["subsets"] = [subset | {"splits": {name: found for name, found in files.items() if found}}]
    for name in (*TEXTS, "format"):
        if name in form:
            spec[name] = form[name].strip() or None
    for name in LISTS:
        if name in form:
            spec[name] = [word for each in form[name].split(",") if (word := each.strip())] or None
    if any(name.startswith("map.") for name in form):
        asked = {name[4:]: form[name].strip() for name in form if name.startswith("map.")}
        spec["features"] = [{"name": part, "mapTo": column} for part, column in asked.items() if column]
    if "split.seed" in form:
        spec["split"] = _split(form, faults)
    if "credentials" in form:
        secret = form["credentials"].strip()
        spec["credentials"] = {"secretRef": {"name": secret}} if secret else None
        spec["unpack"] = True if form.get("unpack") else None
    return spec, faults


def _split(form: Mapping[str, str], faults: dict[str, str]) -> Json:
    split: Json = {}
    for name in SPLITS[1:]:
        try:
            share = float(form.get(f"split.{name}", "").strip().rstrip("%") or 0) / 100
        except ValueError:
            share = -1.0
        if not 0 <= share < 1:
            faults[f"split.{name}"] = "Write a number from 0 to 99."
        split[name] = round(share, 6)
    if not faults and split["validate"] + split["test"] >= 1:
        faults["split.test"] = "Both shares together leave nothing to train on."
    seed = form["split.seed"].strip() or "42"
    if not (seed.isascii() and seed.isdigit()):
        faults["split.seed"] = "Write a whole number."
    else:
        split["seed"] = int(seed)
    for name in ("groupBy", "stratifyBy"):
        split[name] = form.get(f"split.{name}", "").strip() or None
    return split


def by_field(causes: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The server's faults, (path, message) each, by the field of the form that they belong to."""
    found: dict[str, str] = {}
    for path, message in causes:
        field = path.removeprefix("spec.")
        field = "credentials" if field.startswith("credentials") else field
        field = "name" if field == "metadata.name" else field
        for split in SPLITS:
            if field.startswith("subsets") and f".{split}" in field:
                field = split
        found[field] = f"{found[field]}; {message}" if field in found else message
    return found


def _percent(share: float) -> str:
    return f"{share * 100:.4g}"


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
