"""URIs as places: which are local, what lies below what, and what is refused. Nothing here reads a file."""

import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from datatunerx.runs.files import path_of
from datatunerx.storage.errors import PrivatePlace, Refused

_DECODINGS = 3
"""How often a segment is percent-decoded when it is looked at: %252e%252e hides two dots twice."""

CheckPlace = Callable[[Path, str], None]
"""Called with a local file that somebody names and its URI; raises what refuses it."""
_KERNEL = (Path("/proc"), Path("/sys"))


def scheme_of(uri: str) -> str:
    """`file` for file:// URIs and plain paths, else the URI's own scheme."""
    head, sep, _ = uri.partition("://")
    return head.lower() if sep and head.replace("+", "").isalnum() else "file"


def is_local(uri: str) -> bool:
    return scheme_of(uri) == "file"


def local_path(uri: str) -> Path:
    """The absolute path behind a file:// URI or a plain path; symbolic links are left alone.

    Raises `Refused` for other schemes, relative paths, other hosts, `..` (encoded or not) and NUL.
    """
    check(uri)
    if not is_local(uri):
        raise Refused(f"{uri}: not on this machine; only file:// URIs and absolute paths work here")
    if "://" in uri and (host := urlsplit(uri).netloc) not in ("", "localhost"):
        raise Refused(f"{uri}: names the host {host!r}; write file:/// with three slashes")
    path = path_of(uri)
    if not path.is_absolute():
        raise Refused(f"{uri}: a relative path; write it from / on, or as file:///...")
    return Path(os.path.normpath(path))


def packaged(uri: str) -> Path:
    """The path behind pkg://module/file, in an installed package that is found and never imported.

    Raises `Refused` for what is no such URI, and if there is no such package.
    """
    module, _, inside = uri.removeprefix("pkg://").partition("/")
    parts = PurePosixPath(inside).parts
    if not re.fullmatch(r"\w+(\.\w+)*", module) or ".." in parts or inside.startswith("/"):
        raise Refused(f"{uri}: is not pkg://module/file; write pkg://, a package's name, /, a file in it")
    top, *folders = module.split(".")  # find_spec of a dotted name would import the parents
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        name = top.replace("_", "-")
        raise Refused(f"{uri}: no package {top!r} is installed; pip install --no-deps {name}")
    folder = Path(spec.submodule_search_locations[0], *folders)
    if not folder.is_dir():
        raise Refused(f"{uri}: package {top} has no package {'.'.join(folders)}; correct the name")
    return folder.joinpath(*parts)


def join(root_uri: str, *names: str) -> str:
    """The URI of something below `root_uri`. Each name may hold `/` but cannot leave the root."""
    for name in names:
        if not name or name.startswith(("/", "\\", "~")) or "://" in name:
            raise Refused(f"{name!r}: not a name below {root_uri}; leave out the leading / and the scheme")
        check(name)
    return "/".join([root_uri.rstrip("/"), *(name.strip("/") for name in names)])


def check(uri: str) -> None:
    """Raise `Refused` for a URI that climbs with `..`, encoded or not, or holds a NUL or line break."""
    text = uri
    for _ in range(_DECODINGS):
        if any(char in text for char in "\0\n\r"):
            raise Refused(f"{uri!r}: holds a control character")
        if ".." in text.replace("\\", "/").split("/"):
            raise Refused(f"{uri}: climbs with '..'; write the place itself")
        text = unquote(text)


def refuse_private(path: Path, uri: str, home: Path | None, uploads: Path | None = None) -> None:
    """Raise `PrivatePlace` if the path leads, over links too, into `home` but not into `uploads` below it.

    Also for what the kernel tells of processes: the environment of one that works may hold a Secret.
    """
    real = path.resolve()
    if any(real.is_relative_to(place) for place in _KERNEL):
        raise PrivatePlace(f"{uri}: leads to {real}, where no data is; name a file")
    if home is None or not real.is_relative_to(home.resolve()):
        return
    if uploads is None or not real.is_relative_to(uploads.resolve()):
        raise PrivatePlace(
            f"{uri}: leads to {real}, which is the server's own; copy it elsewhere, or upload it with "
            "dtx upload and name the upload:// that it prints"
        )


def refuse_outside(path: Path, uri: str, folders: Sequence[Path]) -> None:
    """Raise `PrivatePlace` unless the path leads, over links too, to something below one of the folders."""
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(os.path.realpath(folder)) for folder in folders):
        opened = ", ".join(map(str, folders))
        raise PrivatePlace(
            f"{uri}: leads out of the folders that are open to its namespace ({opened}); copy it there, "
            "upload it, or have the machine's owner apply this"
        )


def below(path: Path, root: Path) -> bool:
    """Whether `path` lies strictly below `root` once the links on the way to it are followed.

    The last part of `path` is not followed: a link that lies below the root is itself below it.
    """
    return root.resolve() in (path.parent.resolve() / path.name).parents
