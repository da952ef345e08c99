"""A dataset's URIs into files of this machine: patterns spelt out, far files fetched, packed ones unpacked.

An inspection gathers; what it found is kept beside the copies under the content's digest, so that a
training reads the very files that were inspected, without the network and without credentials.
"""

import glob
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from datatunerx.data.errors import DataError
from datatunerx.data.sources import SCHEME, local_path, refuse_unlike_a_file, said, unreadable
from datatunerx.data.unpack import expand, packing, unpack
from datatunerx.resources.enums import Split
from datatunerx.runs.plan import DataFiles
from datatunerx.storage.errors import PrivatePlace, StorageError, is_disk_full
from datatunerx.storage.fetch import Copy, fetch, made, telling
from datatunerx.storage.objects import write_atomic
from datatunerx.storage.paths import CheckPlace, check
from datatunerx.storage.remote import MAX_FILES, PATTERN, Credentials, Remote, listed

SETS = "sets"
UPLOAD = "upload://"
MAX_FETCHED_BYTES = 1 << 40
Tell = Callable[[str], None]
"""Called with what is being done now."""


def is_plain(files: DataFiles) -> bool:
    """Whether every file is one of this machine that can be read as it lies there."""
    return all(_is_plain(uri) for uris in files.splits.values() for uri in uris)


def gather(
    files: DataFiles,
    store: Path,
    uploads: Path,
    credentials: Credentials | None = None,
    tell: Tell = lambda text: None,
    check_place: CheckPlace = lambda path, uri: None,
) -> DataFiles:
    """The same dataset with one URI a file, and `copies` saying where each lies.

    What is fetched or unpacked goes into `store`; `uploads` is what upload:// is below;
    `check_place` is called with every local file and its URI, and may refuse it.

    Raises DataError naming URI and fix: unreachable, not allowed, not there, no match, a folder, a bomb.
    """
    if is_plain(files):
        for uri in (uri for uris in files.splits.values() for uri in uris):
            if (path := local_path(uri)) is not None:
                check_place(path, uri)
        return files
    found = _Gathered(files, store, uploads, credentials or Credentials(), tell, check_place)
    splits = {
        split: [name for uri in uris for name in found.of(uri, split)] for split, uris in files.splits.items()
    }
    return files.model_copy(update={"splits": splits, "copies": found.copies, "access": None})


def remember(files: DataFiles, digest: str, store: Path) -> None:
    """Keep what was gathered, for trainings to find by the digest of the content."""
    kept = files.model_copy(update={"name": "any", "digest": digest})
    write_atomic(str(_set_of(store, digest)), kept.model_dump_json(by_alias=True).encode())


def recall(files: DataFiles, store: Path) -> DataFiles:
    """What the inspection has gathered. Raises DataError if the copies are gone."""
    if is_plain(files):
        return files
    fix = "have the Dataset inspected again, which fetches it again"
    gone = DataError(f"the fetched files of dataset {files.name} are gone from {store}", fix=fix)
    try:
        kept = DataFiles.model_validate_json(_set_of(store, files.digest).read_bytes())
    except (OSError, ValidationError) as error:
        raise gone from error
    if any((path := local_path(copy)) is None or not path.exists() for copy in kept.copies.values()):
        raise gone
    return files.model_copy(update={"splits": kept.splits, "copies": kept.copies, "access": None})


def _set_of(store: Path, digest: str) -> Path:
    return store / SETS / f"{digest}.json"


def _is_plain(uri: str) -> bool:
    scheme = SCHEME.match(uri)
    is_here = scheme is None or scheme[1].lower() in ("file", "pkg")
    return is_here and not packing(uri) and not _is_pattern(uri)


def _is_pattern(uri: str) -> bool:
    """A name may hold such characters, too: what is there by its very name is a file."""
    path = local_path(uri)
    if path is None:
        return PATTERN.search(uri) is not None
    return PATTERN.search(str(path)) is not None and not path.exists()


class _Gathered:
    """Gathers URI by URI; one that stands in two splits is fetched once."""

    def __init__(
        self,
        files: DataFiles,
        store: Path,
        uploads: Path,
        credentials: Credentials,
        tell: Tell,
        check_place: CheckPlace,
    ) -> None:
        self._files, self._store, self._uploads, self._check_place = files, store, uploads, check_place
        self._credentials, self._tell = credentials, tell
        self.copies: dict[str, str] = {}
        self._left = MAX_FETCHED_BYTES

    def of(self, uri: str, split: Split) -> list[str]:
        """The names of the files that a URI of a split stands for; `copies` says where they are."""
        try:
            return [name for file in self._sources(uri, split) for name in self._names(file)]
        except PrivatePlace:
            raise
        except (StorageError, OSError, ImportError) as error:
            if is_disk_full(error):
                raise  # the run waits for space
            told = said(error, uri) if isinstance(error, StorageError) else unreadable(error, uri)
            raise told from error

    def _sources(self, uri: str, split: Split) -> Iterator[Remote | tuple[str, Path]]:
        place = f"{self._uploads}/{uri[len(UPLOAD) :]}" if uri.lower().startswith(UPLOAD) else uri
        check(place)
        path = local_path(place)
        if path is None:
            self._tell(f"looking at {uri}")
            yield from _of_split(listed(uri, self._credentials), uri, split)
        elif _is_pattern(place):
            for found in _local_matches(path, uri):
                self._check_place(found, uri)
                yield found.as_uri(), found
        else:
            self._check_place(path, uri)
            refuse_unlike_a_file(path, uri)
            yield uri, path

    def _names(self, file: Remote | tuple[str, Path]) -> list[str]:
        uri = file.uri if isinstance(file, Remote) else file[0]
        name = file.name if isinstance(file, Remote) else Path(uri.split("?")[0]).name
        how = packing(name)
        if how == "archive" and not self._files.unpack:
            fix = "set spec.unpack to true to take the files in it, or name them unpacked"
            raise DataError("is an archive", uri, fix=fix)
        if not how and not isinstance(file, Remote):
            self.copies[uri] = file[1].as_uri()
            return [uri]
        copy = self._copy(file, uri, name, how)
        if how != "archive":
            self.copies[uri] = (copy.folder / copy.names[0]).as_uri()
            return [uri]
        named = {f"{uri}!{member}": (copy.folder / member).as_uri() for member in copy.names}
        self.copies |= named
        return list(named)

    def _copy(self, file: Remote | tuple[str, Path], uri: str, name: str, how: str) -> Copy:
        make = partial(unpack if how == "archive" else expand, uri, name) if how else None
        if isinstance(file, Remote):
            copy = fetch(
                file, self._store, mode=f"{how or 'as it is'} {name}", make=make, max_bytes=self._left,
                on_progress=telling(self._tell, uri),
            )  # fmt: skip
            self._left -= sum((copy.folder / member).stat().st_size for member in copy.names)
            return copy
        assert make
        self._tell(f"unpacking {uri}")
        return made(file[1], uri, self._store, f"{how} {name}", make)


def _of_split(found: list[Remote], uri: str, split: Split) -> list[Remote]:
    """Of a whole hub repository, the data files whose name tells the split; of all else, all."""
    scheme = SCHEME.match(uri)
    if scheme is None or scheme[1].lower() not in ("hf", "modelscope"):
        return found
    from datatunerx.data.hub_files import of_split

    return of_split(found, uri, split)


def _local_matches(path: Path, uri: str) -> list[Path]:
    found = []
    for name in sorted(glob.iglob(str(path), recursive=True)):
        if os.path.isfile(name) and not os.path.islink(name):
            found.append(Path(name))
        if len(found) > MAX_FILES:
            raise DataError(f"stands for more than {MAX_FILES:,} files", uri, fix="join some of them")
    if not found:
        raise DataError(
            "the pattern takes no file", uri, fix="check the path; links and folders do not count"
        )
    return found
