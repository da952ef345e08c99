"""`dtx cache`: what can be made or fetched again, how large it is, who uses it, and giving its bytes back.

It looks at the disk of the server, so it runs on the server's machine; who uses what is asked of its API.
"""

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from datatunerx.app.settings import Settings
from datatunerx.cli.errors import BadInput, CommandError, Exit
from datatunerx.cli.text import aligned
from datatunerx.client import Api
from datatunerx.resources.material import LLM, Dataset
from datatunerx.resources.outcome import LLMCheckpoint, Run
from datatunerx.runs.files import path_of
from datatunerx.runs.plan import DataFiles, RunPlan
from datatunerx.storage.inventory import YOUNG_SECONDS, Entry, entries, remove
from datatunerx.storage.paths import is_local

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SPANS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
SHOWN_USERS = 3


@dataclass(frozen=True)
class Held:
    """An entry and the objects that need it."""

    entry: Entry
    users: Sequence[str]


async def show(api: Api, found: Settings) -> Exit:
    """List every entry with its size and users, the largest first."""
    root = _root(found)
    held = await _held(api, root)
    now = time.time()
    rows = [["KIND", "NAME", "SIZE", "LAST USED", "USED BY"]]
    for one in sorted(held, key=lambda one: -one.entry.bytes):
        more = f", {len(one.users) - SHOWN_USERS} more" if len(one.users) > SHOWN_USERS else ""
        users = ", ".join(one.users[:SHOWN_USERS]) + more
        entry = one.entry
        rows.append([entry.kind, entry.name, size(entry.bytes), _ago(now - entry.used), users or "nobody"])
    print("\n".join(aligned(rows)))
    print(f"{size(sum(one.entry.bytes for one in held))} in {len(held)} entries under {root}")
    return Exit.OK


async def clean(
    api: Api, found: Settings, older_than: str | None, limit: str | None, *, dry_run: bool
) -> Exit:
    """Remove what nobody uses: all, what was not used for so long, or the oldest until all fits."""
    root = _root(found)
    seconds = _span(older_than) if older_than else 0.0
    most = _bytes(limit) if limit else None
    held = await _held(api, root)
    chosen = to_remove(held, time.time(), seconds, most)
    given_back = 0
    for entry in chosen:
        count = entry.bytes if dry_run else remove(entry, root)
        given_back += count
        said = "would be removed" if dry_run else "removed" if count else "is in use by a worker and stays"
        print(f"{entry.kind} {entry.name} {said} ({size(entry.bytes)})")
    kept = sum(one.entry.bytes for one in held) - given_back
    print(f"{size(given_back)} {'would be ' if dry_run else ''}given back; {size(kept)} stay")
    if most is not None and kept > most:
        print(f"that is more than {limit}: the rest is in use")
    return Exit.OK


def to_remove(held: Iterable[Held], now: float, seconds: float, most: int | None) -> list[Entry]:
    """The entries to remove, least recently used first. What is used, or half-made just now, never is."""
    found = list(held)
    free = [one.entry for one in found if not one.users and now - one.entry.used >= seconds]
    free = [e for e in free if e.kind != "unfinished" or now - e.used >= YOUNG_SECONDS]
    free.sort(key=lambda entry: entry.used)
    if most is None:
        return free
    total, chosen = sum(one.entry.bytes for one in found), []
    for entry in free:
        if total <= most:
            break
        chosen.append(entry)
        total -= entry.bytes
    return chosen


async def _held(api: Api, root: Path) -> list[Held]:
    uses = await _uses(api, root)
    return [
        Held(
            entry, sorted({who for place, who in uses if place == entry.path or entry.path in place.parents})
        )
        for entry in entries(root)
    ]


async def _uses(api: Api, root: Path) -> list[tuple[Path, str]]:
    """(a place on disk, who needs it) of every object there is."""
    found: list[tuple[Path, str]] = []
    for llm in await api.list(LLM):
        found += _places([llm.status.local_uri], _who(llm))
    for checkpoint in await api.list(LLMCheckpoint):
        found += _places([checkpoint.spec.base_uri], _who(checkpoint))
    for dataset in await api.list(Dataset):
        splits = [subset.splits for subset in dataset.spec.subsets]
        uris = [uri for s in splits for uri in (*s.train, *s.validate_, *s.test)]
        found += [(_upload(root, uri), _who(dataset)) for uri in uris if uri.startswith("upload://")]
        found += [(place, _who(dataset)) for place in _gathered(root, dataset.status.digest or "")]
    for run in await api.list(Run):
        if not run.status.phase.terminal:
            found += _of_run(run, root)
    return found


def _of_run(run: Run, root: Path) -> list[tuple[Path, str]]:
    who = _who(run)
    if run.spec.type.reads_only:  # what it is fetching, nobody knows by name yet
        return [
            (entry.path, who)
            for entry in entries(root)
            if entry.kind in ("fetched", "download", "unfinished")
        ]
    try:
        plan = RunPlan.model_validate_json(path_of(run.spec.plan_uri).read_bytes())
    except (OSError, ValueError) as error:
        raise CommandError(f"{who}: its plan cannot be read, so what it uses is unknown: {error}") from None
    part = plan.tune or plan.score
    if part is None:
        return []
    data = part.data if isinstance(part.data, list) else [part.data]
    places = [place for files in data if files for place in _gathered(root, files.digest)]
    models = [part.model.uri] if part.model else []  # a service that is scored has none here
    return [*_places(models, who), *((place, who) for place in places)]


def _gathered(root: Path, digest: str) -> list[Path]:
    """Where the copies of a dataset lie, as its inspection has noted."""
    try:
        kept = DataFiles.model_validate_json((root / "fetched" / "sets" / f"{digest}.json").read_bytes())
    except (OSError, ValidationError):
        return []
    return [path_of(uri) for uri in kept.copies.values()]


def _upload(root: Path, uri: str) -> Path:
    return root / "uploads" / uri.removeprefix("upload://")


def _places(uris: Iterable[str | None], who: str) -> list[tuple[Path, str]]:
    return [(path_of(uri), who) for uri in uris if uri and is_local(uri)]


def _who(obj: LLM | Dataset | LLMCheckpoint | Run) -> str:
    namespace = obj.metadata.namespace
    return f"{obj.kind}/{obj.metadata.name}" + (f" -n {namespace}" if namespace != "default" else "")


def _root(found: Settings) -> Path:
    root = found.home / "data"
    if found.other_kubeconfig is not None or not root.is_dir():
        raise BadInput(
            f"{root}: no data of a server lies here; run this on the server's machine, with its DTX_HOME"
        )
    return root


def size(count: int) -> str:
    """1.5 GB, in units of a thousand."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def _ago(seconds: float) -> str:
    unit, length = next(((u, n) for u, n in reversed(_SPANS.items()) if seconds >= n and u != "w"), ("m", 60))
    return f"{int(max(seconds, 0) // length)}{unit} ago"


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", text.strip().lower())
    if match is None:
        raise BadInput(f"--limit {text}: must be a size, such as 20GB")
    power = _UNITS[match[2]] if not match[3] else 1 << (10 * list(_UNITS).index(match[2]))
    return int(float(match[1]) * power)


def _span(text: str) -> float:
    match = re.fullmatch(r"(\d+)\s*([mhdw])", text.strip().lower())
    if match is None:
        raise BadInput(f"--older-than {text}: must be a time, such as 7d, 12h or 2w")
    return float(int(match[1]) * _SPANS[match[2]])
