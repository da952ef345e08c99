"""Checkpoints on disk: a directory is a checkpoint once its manifest is whole, and not before.

Files are written into a hidden directory beside the final one and synced, the directory is renamed, and the
manifest (names, sizes, SHA-256) comes last. Whatever a crash leaves behind is not a checkpoint and is cleared
by the next save.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatunerx import storage
from datatunerx.resources.finetune import CheckpointRef
from datatunerx.runs.manifest import MANIFEST, PINNED

_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint."""

    path: Path
    step: int
    digest: str
    """SHA-256 of the manifest."""
    bytes: int
    eval_loss: float | None
    score: float | None
    pinned: bool

    @property
    def reference(self) -> CheckpointRef:
        """As it is told of."""
        return CheckpointRef(
            step=self.step,
            uri=str(self.path),
            digest=self.digest,
            bytes=self.bytes,
            eval_loss=self.eval_loss,
            score=self.score,
        )


class DamagedCheckpoint(ValueError):
    """A file of a checkpoint is not what its manifest says."""


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def save(
    folder: Path,
    step: int,
    files: Mapping[str, bytes],
    *,
    eval_loss: float | None = None,
    score: float | None = None,
) -> Checkpoint:
    """Publish one checkpoint. If that step already has an intact one, it is returned as it is.

    One whose bytes are damaged is written anew.

    Raises OSError or StorageError (a full disk among others); what was there before stays as it is.
    """
    storage.make_folder(folder)
    final = checkpoint_path(folder, step)
    present = intact(final)
    if present is not None:
        return present
    for left in [*folder.glob(".saving-*"), *([final] if final.exists() else [])]:
        shutil.rmtree(left)
    hidden = folder / f".saving-{final.name}"
    try:
        hidden.mkdir()
        for name, content in files.items():
            (hidden / name).write_bytes(content)
        storage.publish_dir(hidden, final)
        storage.write_atomic(str(final / MANIFEST), _manifest(step, files, eval_loss, score))
    except (OSError, storage.StorageError):
        for left in (hidden, final):
            shutil.rmtree(left, ignore_errors=True)
        raise
    saved = read(final)
    assert saved is not None
    return saved


def _manifest(step: int, files: Mapping[str, bytes], eval_loss: float | None, score: float | None) -> bytes:
    document = {
        "version": 1,
        "step": step,
        "evalLoss": eval_loss,
        **({} if score is None else {"score": score}),
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in sorted(files.items())
        },
    }
    return json.dumps(document, indent=2, sort_keys=True).encode()


def read(path: Path) -> Checkpoint | None:
    """The checkpoint at `path`, or None if it is not whole (a manifest, and every file of its size)."""
    name = _NAME.fullmatch(path.name)
    try:
        content = (path / MANIFEST).read_bytes()
        document: dict[str, Any] = json.loads(content)
        sizes = {file: entry["bytes"] for file, entry in document["files"].items()}
        if name is None or int(name.group(1)) != document["step"]:
            return None
        if any((path / file).stat().st_size != size for file, size in sizes.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Checkpoint(
        path=path,
        step=int(document["step"]),
        digest=hashlib.sha256(content).hexdigest(),
        bytes=sum(sizes.values()) + len(content),
        eval_loss=document.get("evalLoss"),
        score=document.get("score"),
        pinned=(path / PINNED).exists(),
    )


def whole(folder: Path) -> list[Checkpoint]:
    """Every whole checkpoint in a folder, the oldest first."""
    if not folder.is_dir():
        return []
    found = (read(path) for path in folder.iterdir())
    return sorted((one for one in found if one is not None), key=lambda one: one.step)


def latest(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint whose files are what the manifest says, byte for byte."""
    return next((one for one in reversed(whole(folder)) if intact(one.path) is not None), None)


def intact(path: Path) -> Checkpoint | None:
    """The checkpoint at `path`, or None if it is not whole, or its bytes cannot be read or are others."""
    checkpoint = read(path)
    if checkpoint is None:
        return None
    try:
        verify(checkpoint)
    except (DamagedCheckpoint, OSError):
        return None
    return checkpoint


def verify(checkpoint: Checkpoint) -> None:
    """Raises `DamagedCheckpoint` naming the file, or OSError if it cannot be read."""
    document = json.loads((checkpoint.path / MANIFEST).read_bytes())
    for name, entry in document["files"].items():
        path = checkpoint.path / name
        if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            raise DamagedCheckpoint(f"{path}: not the bytes that were saved")


def best(checkpoints: Iterable[Checkpoint]) -> Checkpoint | None:
    """The one with the lowest validation loss, the earliest of equals; None if none was measured."""
    measured = [c for c in checkpoints if c.eval_loss is not None]
    return min(measured, key=lambda c: (c.eval_loss, c.step), default=None)


def superfluous(
    checkpoints: Iterable[Checkpoint], keep: int, best_step: int | None = None
) -> list[Checkpoint]:
    """What retention may remove: all but the newest `keep`, the latest, the best and the pinned.

    The best is that of `best_step`; where there is none of that step, that with the lowest validation loss.
    """
    ordered = sorted(checkpoints, key=lambda c: c.step)
    kept = {c.step for c in ordered if c.pinned} | {c.step for c in ordered[-max(1, keep) :]}
    winner = next((c for c in ordered if c.step == best_step), None) or best(ordered)
    if winner is not None:
        kept.add(winner.step)
    return [c for c in ordered if c.step not in kept]


def remove(checkpoint: Checkpoint) -> None:
    """Delete one checkpoint. With its first file gone it no longer counts."""
    shutil.rmtree(checkpoint.path)


def prune(folder: Path, keep: int, best_step: int | None = None) -> list[Checkpoint]:
    """Remove what is superfluous; returns what was removed."""
    gone = superfluous(whole(folder), keep, best_step)
    for checkpoint in gone:
        remove(checkpoint)
    return gone
