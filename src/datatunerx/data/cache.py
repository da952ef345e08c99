"""Tokenised rows on disk: published whole or not at all, mapped into memory, shared by every process.

A folder holds `ids.bin` and `labels.bin` (int32, rows end to end), `starts.bin` (int64 [rows + 1]),
`origins.bin` (int64 [rows, 2]: file, line) and `meta.json`, which says how long the others are.
"""

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from array import array
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache, cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from datatunerx.data.encoding import Ints
from datatunerx.data.errors import where
from datatunerx.resources.material import DataReport

IDS, LABELS, STARTS, ORIGINS, META = "ids.bin", "labels.bin", "starts.bin", "origins.bin", "meta.json"
COLUMNS = (IDS, LABELS, STARTS, ORIGINS)


class TokenRows(Sequence[tuple[Ints, Ints]]):
    """The kept rows of a split: `rows[i]` is (input ids, labels), both int32 [tokens], mapped from disk."""

    def __init__(self, folder: Path, *, from_cache: bool) -> None:
        """Raises OSError or ValueError if the folder is not whole."""
        self._held = _Held(folder)
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        for name, size in meta["sizes"].items():
            if (folder / name).stat().st_size != size:
                raise ValueError(f"{folder / name} is not {size} bytes long")
        self.folder, self.from_cache = folder, from_cache
        self.report = DataReport.model_validate(meta["report"])
        self._files: list[str] = meta["files"]
        self._starts = _mapped(folder / STARTS, np.int64)
        self._origins = _mapped(folder / ORIGINS, np.int64).reshape(-1, 2)
        self._ids, self._labels = _mapped(folder / IDS, np.int32), _mapped(folder / LABELS, np.int32)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> tuple[Ints, Ints]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Ints, Ints]]: ...
    def __getitem__(self, index: int | slice) -> tuple[Ints, Ints] | list[tuple[Ints, Ints]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        place = index % len(self)
        start, end = self._starts[place], self._starts[place + 1]
        return self._ids[start:end], self._labels[start:end]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        lengths: NDArray[np.int64] = np.diff(self._starts)
        return lengths

    def where(self, index: int) -> str:
        """file:line that row `index` was made of."""
        file, line = self._origins[index].tolist()
        return where(self._files[file], line)

    @cached_property
    def row_numbers(self) -> list[str]:
        """file:line of each row."""
        return [self.where(index) for index in range(len(self))]


class _Held:
    """A shared lock on a folder for as long as this lives: nobody takes it for unused."""

    def __init__(self, folder: Path) -> None:
        os.utime(folder)  # used just now: the oldest go first when the cache is cleaned
        self._handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._handle, fcntl.LOCK_SH)

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)


class RowWriter:
    """Writes a folder beside its final name and publishes it with one rename."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._temporary = folder.with_name(f".{folder.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
        self._files: dict[str, int] = {}
        self._end = 0

    def __enter__(self) -> Self:
        self._temporary.mkdir(parents=True)
        with ExitStack() as opened:
            self._ids, self._labels, self._starts, self._origins = (
                opened.enter_context((self._temporary / name).open("wb")) for name in COLUMNS
            )
            self._opened = opened.pop_all()
        self._starts.write(np.zeros(1, np.int64).tobytes())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._opened.close()  # may write what is left, and find no room
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)  # published, there is nothing left to remove

    def append(
        self, ids: bytes, labels: bytes, lengths: "array[int]", file: str, lines: "array[int]"
    ) -> None:
        """Rows of one file, end to end: ids and labels int32; of each row its length and its line."""
        self._ids.write(ids)
        self._labels.write(labels)
        ends = self._end + np.cumsum(np.frombuffer(lengths, np.int64)) if lengths else np.empty(0, np.int64)
        self._end = int(ends[-1]) if lengths else self._end
        number = self._files.setdefault(file, len(self._files))
        self._starts.write(ends.tobytes())
        self._origins.write(np.column_stack((np.full(len(lines), number), lines)).astype(np.int64).tobytes())

    def publish(self, report: DataReport) -> None:
        """Make the folder appear, whole. If another process was faster, its folder stays."""
        self._opened.close()
        sizes = {name: (self._temporary / name).stat().st_size for name in COLUMNS}
        meta = {"files": list(self._files), "report": report.dump(), "sizes": sizes}
        (self._temporary / META).write_text(json.dumps(meta), encoding="utf-8")
        for name in (*sizes, META):
            _sync(self._temporary / name)
        _sync(self._temporary)
        try:
            self._temporary.rename(self.folder)
        except OSError:
            if not self.folder.is_dir():
                raise
        _sync(self.folder.parent)


def cached(folder: Path, build: Callable[[RowWriter], DataReport]) -> TokenRows:
    """The rows in `folder`, built first if they are not there. Processes may race: all get whole rows."""
    try:
        return TokenRows(folder, from_cache=True)
    except (OSError, ValueError, KeyError):
        _discard_broken(folder)
    with RowWriter(folder) as writer:
        writer.publish(build(writer))
    return TokenRows(folder, from_cache=False)


def _discard_broken(folder: Path) -> None:
    """Remove a folder that is not whole; under a lock, so that nobody removes what was just rebuilt."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            TokenRows(folder, from_cache=True)
        except FileNotFoundError:
            if not folder.exists():
                return
        except (OSError, ValueError, KeyError):
            pass
        else:
            return
        aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.broken")
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


@cache
def code_version() -> str:
    """Digest of this room's sources: other code makes other rows, whoever forgot to say so."""
    whole = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        whole.update(path.read_bytes())
    return whole.hexdigest()


def _mapped(path: Path, kind: type[np.int32] | type[np.int64]) -> Any:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype=kind)
    return np.memmap(path, dtype=kind, mode="r")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
