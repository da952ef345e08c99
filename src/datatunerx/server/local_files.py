"""Which files and programs of the server's machine an object may name, by who writes it.

The machine's owner (an admin of all namespaces) may name any. Others name files below the folders that the
owner opened (`dtx up --allow-path`), and no program. What they write is marked, so that workers, which
follow links only when they read, keep to those folders too; the mark is the server's alone to set.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datatunerx import storage
from datatunerx.resources.wire import CONFINED, GROUP
from datatunerx.server.errors import Json, forbidden
from datatunerx.server.kinds import Kind
from datatunerx.server.tokens import ADMIN_ROLE, EVERYWHERE, User

LLMS, DATASETS, CHECKPOINTS = (f"{plural}.{GROUP}" for plural in ("llms", "datasets", "llmcheckpoints"))
PLUGINS = (f"dataplugins.{GROUP}", f"scoringplugins.{GROUP}")


def is_owner(user: User) -> bool:
    """Whether the machine is theirs: who may do everything everywhere."""
    return user.role == ADMIN_ROLE and EVERYWHERE in user.namespaces


def may_read(uri: str, user: User, allowed: Sequence[Path]) -> bool:
    """Whether they may have what lies there: the machine's owner anything, others what they may name."""
    return is_owner(user) or _is_below(uri, allowed)


def judge(kind: Kind, new: Json, live: Json | None, user: User, allowed: Sequence[Path]) -> bool:
    """Whether the object is to be marked as confined. 403 for a file or program that its writer may not name.

    What was there before is not judged again: an editor may change the rest of an owner's object.
    """
    if kind.stored_as in PLUGINS:
        _judge_program(kind, new, live, user)
    if kind.stored_as not in (LLMS, DATASETS, CHECKPOINTS):
        return False
    had = dict(_local(kind, live)) if live else {}
    added = {uri: field for uri, field in _local(kind, new) if uri not in had}
    marked = live is not None and CONFINED in (live["metadata"].get("annotations") or {})
    if not added:
        return marked and bool(list(_local(kind, new)))
    if is_owner(user):
        return False
    for uri, field in added.items():
        if not _is_below(uri, allowed):
            opened = ", ".join(map(str, allowed)) or "none yet"
            raise _refused(
                kind,
                new,
                f'{field}: "{uri}" is a file of the server\'s machine outside the folders opened to '
                f"{user.name} ({opened}); upload it (dtx dataset upload), name a hub or bucket, or have the "
                "machine's owner apply this, or open its folder with dtx up --allow-path",
            )
    return kind.stored_as != CHECKPOINTS


def mark(obj: Json, confined: bool) -> None:
    """Set or take away the mark, whatever the writer sent."""
    meta = obj["metadata"]
    if confined:
        meta["annotations"] = (meta.get("annotations") or {}) | {CONFINED: "true"}
    elif CONFINED in (meta.get("annotations") or {}):
        meta["annotations"] = {k: v for k, v in meta["annotations"].items() if k != CONFINED}
        if not meta["annotations"]:
            del meta["annotations"]


def _judge_program(kind: Kind, new: Json, live: Json | None, user: User) -> None:
    def programs(obj: Json | None) -> tuple[Any, str]:
        spec = (obj or {}).get("spec") or {}
        entry = str(spec.get("entryPoint") or "")
        return spec.get("command") or [], entry if ":" in entry else ""

    if programs(new) in (programs(live), ([], "")) or is_owner(user):
        return
    raise _refused(
        kind,
        new,
        "spec.command and an entryPoint as module:function are code that runs with the rights of the "
        "server's account; name an entry point that an installed package offers, or have the machine's "
        "owner apply this",
    )


def _refused(kind: Kind, obj: Json, why: str) -> Exception:
    name = str(obj["metadata"].get("name") or "")
    return forbidden(f'{kind.resource} "{name}" is forbidden: {why}', kind.resource, name)


def _local(kind: Kind, obj: Json) -> Iterator[tuple[str, str]]:
    """(URI, field) of every file of the machine that the object names."""
    spec = obj.get("spec") or {}
    for uri, field in _uris(kind, spec):
        if isinstance(uri, str) and storage.is_local(uri):
            yield uri, field


def _uris(kind: Kind, spec: Json) -> Iterator[tuple[Any, str]]:
    if kind.stored_as == LLMS:
        yield spec.get("source"), "spec.source"
    elif kind.stored_as == CHECKPOINTS:
        yield spec.get("uri"), "spec.uri"
        for place, export in enumerate(spec.get("exports") or []):
            yield export.get("uri"), f"spec.exports[{place}].uri"
    else:
        for place, subset in enumerate(spec.get("subsets") or []):
            for split, uris in (subset.get("splits") or {}).items():
                for number, uri in enumerate(uris or []):
                    yield uri, f"spec.subsets[{place}].splits.{split}[{number}]"


def _is_below(uri: str, allowed: Sequence[Path]) -> bool:
    try:
        path = storage.local_path(uri)
    except storage.StorageError:
        return False
    real = Path(os.path.realpath(path))
    return any(path.is_relative_to(root) and real.is_relative_to(os.path.realpath(root)) for root in allowed)
