"""Files far away, as their place lists them: name, size, what version they are, and a way to their bytes.

http(s)://host/file                      one file
s3://bucket/key                          one file, or a pattern such as s3://bucket/folder/*.jsonl
hf://datasets/org/name[@rev][/path]      a file or pattern in a dataset repository; without a path, all of it
hf://org/name[@rev][/path]               the same in a model repository
modelscope://datasets/org/name[@rev][/path], modelscope://org/name[@rev][/path]
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from datatunerx.storage.errors import Refused
from datatunerx.storage.paths import check, scheme_of

MAX_FILES = 2000
"""That one URI may stand for."""
PATTERN = re.compile(r"[*?\[]")
Reader = Callable[[int], AbstractContextManager[Iterator[bytes]]]
"""The bytes from an offset on. Raises `NotResumable` if they only come from the start."""


@dataclass(frozen=True)
class Credentials:
    """The values of a Secret, and the endpoint they are for. Its text shows no value."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    endpoint: str = ""
    name: str = ""
    """Of the Secret, for messages."""

    def get(self, *names: str) -> str:
        """The first of these keys that has a value, case and punctuation aside."""
        plain = {_plain(key): value.strip() for key, value in self.values.items()}
        return next((plain[_plain(name)] for name in names if plain.get(_plain(name))), "")

    @property
    def secret(self) -> str:
        return f"Secret {self.name}" if self.name else "no Secret (name one in spec.credentials.secretRef)"


@dataclass(frozen=True)
class Remote:
    """One file far away."""

    uri: str
    """The whole of it, as messages and reports name the file."""
    size: int | None
    """Bytes; None if its place does not say."""
    version: str
    """Another one means other content: an ETag, a commit, a hash; empty if its place does not say."""
    read: Reader = field(repr=False, compare=False)
    sha256: str = ""
    """Promised by its place; checked once the bytes are here."""

    @property
    def name(self) -> str:
        """Its last part, fit for a file name here."""
        last = re.split(r"[?#]", self.uri)[0].rstrip("/").rpartition("/")[2]
        return re.sub(r"[^\w.+=,@-]", "_", last)[-120:].lstrip(".") or "file"


def listed(uri: str, credentials: Credentials) -> list[Remote]:
    """The files that a far URI stands for, in order of name; at least one.

    Raises `Unreachable`, `Forbidden`, `Missing`, `Refused` (what is no file), all naming the URI and the fix.
    """
    check(uri)
    match scheme_of(uri):
        case "http" | "https":
            from datatunerx.storage.web import listed as found
        case "s3":
            from datatunerx.storage.s3 import listed as found
        case "hf":
            from datatunerx.storage.hubs import hugging_face as found
        case "modelscope":
            from datatunerx.storage.hubs import modelscope as found
        case scheme:
            raise Refused(f"{uri}: {scheme}:// is not known; use {KNOWN}")
    return found(uri, credentials)


KNOWN = "a path, file://, upload://, pkg://, s3://, https://, hf:// or modelscope://"


def few_enough(count: int, uri: str) -> None:
    """Raise `Refused` for a pattern that stands for too many files."""
    if count > MAX_FILES:
        raise Refused(
            f"{uri}: stands for {count:,} files, at most {MAX_FILES:,} are taken; join some of them"
        )


def matching(names: list[str], pattern: str) -> list[str]:
    """Names that a pattern takes, sorted: `*` and `?` stay in one folder, `**` goes through all."""
    wanted = re.compile(_regex(pattern))
    return sorted(name for name in names if wanted.fullmatch(name))


def _regex(pattern: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^\]/]+\])", pattern)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    made = []
    for part in parts:
        if part.startswith("[") and len(part) > 2:
            made.append("[" + part[1:-1].replace("!", "^", 1).replace("\\", "\\\\") + "]")
        else:
            made.append(known.get(part) or re.escape(part))
    return "".join(made)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
