"""`dtx lineage` and `dtx diff`: what made a checkpoint, and what two were made of that is not the same."""

import json
from collections.abc import Sequence
from typing import Any

from datatunerx import storage
from datatunerx.cli.compare import flat
from datatunerx.cli.errors import BadInput, Exit
from datatunerx.cli.export import checkpoint_named
from datatunerx.cli.text import MISSING, aligned, number, visible
from datatunerx.client import Api
from datatunerx.resources import LLM, Dataset, LLMCheckpoint
from datatunerx.runs.exporting import card_facts
from datatunerx.runs.files import rows_uri

ROWS_BYTES = 256 << 20
Rows = dict[str, str]
"""Mark of a row -> its first words."""


async def lineage(api: Api, name: str, namespace: str, *, form: str | None) -> Exit:
    """The checkpoint, what made it, and its forebears up to an untouched base."""
    _must_be(form)
    found = [await checkpoint_named(api, name, namespace)]
    every = {c.metadata.name: c for c in await api.list(LLMCheckpoint, namespace)}
    while (parent := found[-1].spec.parent) in every and every[parent] not in found:
        found.append(every[parent])
    pages = [(c.metadata.name, await made_of(api, c)) for c in found]
    if form:
        print(json.dumps([{"name": n, **facts} for n, facts in pages], indent=2, ensure_ascii=False))
        return Exit.OK
    for place, (title, facts) in enumerate(pages):
        print(f"{'' if place == 0 else chr(10) + 'which came from '}{title}")
        print("\n".join(aligned([[f"  {key}", str(value)] for key, value in facts.items()])))
    return Exit.OK


async def made_of(api: Api, checkpoint: LLMCheckpoint) -> dict[str, Any]:
    """Flat: what -> value; digests whole."""
    namespace, spec = checkpoint.metadata.namespace, checkpoint.spec
    llms = {one.metadata.name: one for one in await api.list(LLM, namespace)}
    sets = {one.metadata.name: one for one in await api.list(Dataset, namespace)}
    facts: dict[str, Any] = {
        fact.name: fact.value for fact in card_facts(checkpoint, llms.get(spec.llm), sets.get(spec.dataset))
    }
    facts |= flat(json.loads(spec.parameters_json or "{}"))
    if spec.origin:
        facts |= {"Threads": spec.origin.threads, "Command": spec.origin.command}
        facts["Inexact"] = "; ".join(spec.origin.inexact) or "nothing: the same again gives the same bytes"
    for export in checkpoint.status.exports:
        facts[f"Export {export.name}"] = export.outcome.uri if export.outcome else export.phase.value
    return facts


async def diff(api: Api, a: str, b: str, namespace: str, *, limit: int, form: str | None) -> Exit:
    """What changed between two trainings: settings, base, code, and the data row by row."""
    _must_be(form)
    both = [await checkpoint_named(api, name, namespace) for name in (a, b)]
    facts = [await made_of(api, one) for one in both]
    own = ("Command", "Manifest")  # another for every training
    keys = [k for k in dict.fromkeys([*facts[0], *facts[1]]) if k not in own and not k.startswith("Export ")]
    changed = {k: (facts[0].get(k), facts[1].get(k)) for k in keys if facts[0].get(k) != facts[1].get(k)}
    rows = _rows_changed(both)
    if form:
        document = {"changed": {k: list(v) for k, v in changed.items()}, "rows": rows}
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return Exit.OK
    names = [one.metadata.name for one in both]
    if changed:
        print("\n".join(aligned([["", *names], *([k, *map(_shown, v)] for k, v in changed.items())])))
    else:
        print("made of the same: base, data, parameters and code")
    if isinstance(rows, str):
        print(rows)
    elif rows["removed"] or rows["added"]:
        print(f"\nrows of the training split: {rows['same']:,} in both")
        for sign, which, owner in (("-", "removed", names[0]), ("+", "added", names[1])):
            print(f"{len(rows[which]):,} only in {owner}")
            print("".join(f"  {sign} {visible(text)}\n" for text in rows[which][:limit]), end="")
            if len(rows[which]) > limit:
                print(f"  ... {len(rows[which]) - limit:,} more; --limit shows them")
    return Exit.OK


def _rows_changed(both: Sequence[LLMCheckpoint]) -> Any:
    """{same, added, removed}, or why it cannot be told; same is None where the data are one and not noted."""
    if both[0].spec.data_digest == both[1].spec.data_digest:
        noted_rows = _rows_of(both[0])
        same = None if noted_rows is None else len(noted_rows)
        return {"same": same, "added": [], "removed": []}
    noted = [_rows_of(one) for one in both]
    if noted[0] is None or noted[1] is None:
        return "which rows differ is not known here: no note of them is on this machine"
    mine, theirs = noted[0], noted[1]
    return {
        "same": len(mine.keys() & theirs.keys()),
        "added": [text for mark, text in theirs.items() if mark not in mine],
        "removed": [text for mark, text in mine.items() if mark not in theirs],
    }


def _rows_of(checkpoint: LLMCheckpoint) -> Rows | None:
    """As its training has noted them; None without a note. Beside the artifacts, in the same data folder."""
    root = storage.local_path(checkpoint.spec.uri).parents[2]
    try:
        place = rows_uri(str(root / "cache"), checkpoint.spec.data_digest)
        lines = storage.read_bytes(place, ROWS_BYTES).decode().splitlines()
    except (storage.StorageError, OSError):
        return None
    return dict(json.loads(line) for line in lines)


def _must_be(form: str | None) -> None:
    if form not in (None, "json"):
        raise BadInput(f"-o {form}: must be json")


def _shown(value: Any) -> str:
    if value is None:
        return MISSING
    text = number(value) if isinstance(value, float) else str(value)
    return text if len(text) <= 64 else f"{text[:61]}..."
