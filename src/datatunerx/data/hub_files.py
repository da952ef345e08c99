"""Which files of a whole hub repository belong to a split: those whose names say so. No script is run."""

import re
from pathlib import PurePosixPath

from datatunerx.data.errors import DataError
from datatunerx.data.unpack import READ, packing, plain_name
from datatunerx.resources.enums import Split
from datatunerx.storage.remote import Remote

WORDS = {
    Split.TRAIN: ("train", "training"),
    Split.VALIDATE: ("validation", "valid", "validate", "val", "dev"),
    Split.TEST: ("test", "testing", "eval", "evaluation"),
}
KINDS = frozenset(READ) - {".txt", ".md"}
"""A repository's README and licence are no data."""


def of_split(found: list[Remote], uri: str, split: Split) -> list[Remote]:
    """The files of the split; all data files for the train split if no name tells one.

    A file or pattern that the URI names itself is taken as it is. Raises DataError if nothing is left.
    """
    if _names_files(uri):
        return found
    data = [file for file in found if _is_data(file.name)]
    if not data:
        raise DataError(_nothing(found), uri, fix="name data files in it, as .../data/train-*.parquet")
    named = {file.uri: split_named(file.uri[len(uri) :]) for file in data}
    if not any(named.values()):
        chosen = data if split is Split.TRAIN else []
    else:
        chosen = [file for file in data if named[file.uri] is split]
    if not chosen:
        fix = f"name files in the {split} split, or leave it out"
        raise DataError(f"none of its {len(data)} data files is named for the {split} split", uri, fix=fix)
    return chosen


def split_named(path: str) -> Split | None:
    """The split that a path in a repository names, the file's own name before its folders'."""
    for part in reversed(PurePosixPath(path).parts):
        words = set(re.split(r"[^a-z]+", part.lower()))
        for split, known in WORDS.items():
            if words & set(known):
                return split
    return None


def _names_files(uri: str) -> bool:
    place = uri.partition("://")[2].removeprefix("datasets/")
    return place.count("/") > 1


def _is_data(name: str) -> bool:
    inner = plain_name(name)
    return PurePosixPath(inner).suffix.lower() in KINDS and packing(name) != "archive"


def _nothing(found: list[Remote]) -> str:
    if any(file.name.endswith(".py") for file in found):
        return "has a loading script and no data files; scripts are never run"
    return "has no data file"
