"""Packed files and places that are no data: bombs, names that climb, links, devices, programs. Each is
refused by name with one fix, in little memory and time, as a process of its own finds.
"""

import gzip
import io
import os
import pickle
import socket
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MIB = 1 << 20
GOOD = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'

Case = dict[str, Any]
"""What `make` writes into a folder (or the URI it returns), and what is to become of it."""
Make = Callable[[Path], object]


def refused(make: Make, said: str, *, unpack: bool = False) -> Case:
    return {"make": make, "refused": said, "unpack": unpack}


def holds(content: bytes, name: str) -> Make:
    return lambda folder: (folder / name).write_bytes(content)


def link(target: str) -> Make:
    return lambda folder: os.symlink(target, folder / "a.jsonl")


def unix_socket(folder: Path) -> str:
    here = socket.socket(socket.AF_UNIX)
    os.chdir(folder)  # the path of a socket must be short
    here.bind("a.jsonl")
    here.close()
    return str(folder / "a.jsonl")


def script(folder: Path) -> str:
    (folder / "set.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    return str(folder / "set.py")


def script_in_folder(folder: Path) -> str:
    (folder / "set").mkdir()
    (folder / "set" / "set.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    return str(folder / "set")


def zipped(*names: str, to: str = "a.jsonl", content: bytes = GOOD.encode()) -> Make:
    def make(folder: Path) -> None:
        with zipfile.ZipFile(folder / to, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, content)

    return make


def tarred(kind: bytes, target: str) -> Make:
    """An archive of one member that is no plain file."""

    def make(folder: Path) -> None:
        with tarfile.open(folder / "a.tar", "w") as archive:
            member = tarfile.TarInfo("a.jsonl")
            member.type, member.linkname = kind, target
            archive.addfile(member)

    return make


def _link_beside(folder: Path) -> str:
    (folder / "real.jsonl").write_text(GOOD)
    os.symlink(folder / "real.jsonl", folder / "a.jsonl")
    return str(folder / "a.jsonl")


def bomb_beside(folder: Path) -> None:
    """128 MiB of zeros before the data: passing them over unpacks them, too."""
    with tarfile.open(folder / "a.tar.gz", "w:gz") as archive:
        for name, content in (("notes.bin", bytes(128 * MIB)), ("a.jsonl", GOOD.encode())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


class Unpickled:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


CASES = {
    # packed
    "a zip named jsonl": refused(zipped("a.jsonl"), "is compressed .zip"),
    "a zip that climbs": refused(zipped("../../a.jsonl", "/etc/passwd"), "is compressed .zip"),
    "a gzip bomb named jsonl": refused(
        lambda folder: (folder / "a.jsonl").write_bytes(gzip.compress(bytes(64 * MIB))), "is compressed .gzip"
    ),
    "a gzip bomb": refused(
        lambda folder: (folder / "a.jsonl.gz").write_bytes(gzip.compress(bytes(128 * MIB))), "a bomb"
    ),
    "a gzip cut short": refused(holds(gzip.compress(GOOD.encode() * 99)[:-20], "a.jsonl.gz"), "broken gzip"),
    "an archive that nobody asked to unpack": refused(zipped("a.jsonl", to="a.zip"), "is an archive"),
    "a zip bomb": refused(
        zipped("a.jsonl", to="a.zip", content=bytes(128 * MIB)), "a bomb", unpack=True
    ),
    "a tar bomb in a file that is not taken": refused(bomb_beside, "a bomb", unpack=True),
    "an archive in an archive": refused(
        zipped("a.zip", to="b.zip"), "a.zip: holds another packed file", unpack=True
    ),
    "an archive's name that climbs": refused(zipped("../a.jsonl", to="a.zip"), "leads out", unpack=True),
    "an archive's absolute name": refused(zipped("/tmp/a.jsonl", to="a.zip"), "leads out", unpack=True),
    "an archive's name that climbs in Windows": refused(
        zipped("..\\a.jsonl", to="a.zip"), "leads out", unpack=True
    ),
    "an archived link": refused(tarred(tarfile.SYMTYPE, "/etc/passwd"), "link or a device", unpack=True),
    "an archived hard link": refused(tarred(tarfile.LNKTYPE, "/etc/passwd"), "link or a device", unpack=True),
    "an archived device": refused(tarred(tarfile.CHRTYPE, ""), "link or a device", unpack=True),
    "a zip cut short": refused(
        lambda folder: (zipped("a.jsonl", to="a.zip")(folder), os.truncate(folder / "a.zip", 60)),
        "broken archive", unpack=True,
    ),
    "a zlib stream": refused(holds(zlib.compress(GOOD.encode() * 99), "a.dat"), "is not any kind of file"),
    # places
    "a link": refused(lambda folder: _link_beside(folder), "is a symbolic link.*name the file it points to"),
    "a link out of its folder": refused(link("../../../../etc/passwd"), "is a symbolic link"),
    "a link to itself": refused(link("a.jsonl"), "is a symbolic link"),
    "a link to nothing": refused(link("absent"), "is a symbolic link"),
    "a pipe": refused(lambda folder: os.mkfifo(folder / "a.jsonl"), "is a device, pipe or socket"),
    "a socket": refused(unix_socket, "is a device, pipe or socket"),
    "a device": refused(lambda folder: "/dev/zero", "is a device"),
    "a missing file": refused(lambda folder: str(folder / "absent.jsonl"), "there is no such file"),
    "a way up in a package": refused(
        lambda folder: "pkg://datatunerx/../../a.jsonl", "is not pkg://module/file"
    ),
    "an encoded way up in a package": refused(
        lambda folder: "pkg://datatunerx/%2e%2e/a.jsonl", "no such file"
    ),
    "an absolute path in a package": refused(lambda folder: "pkg://datatunerx//etc/passwd", "is not pkg://"),
    "a loading script": refused(script, "is a program .*never|none is ever run"),
    "a folder with a loading script": refused(script_in_folder, "is a folder|none is ever run|no data file"),
    "a pickle": refused(holds(pickle.dumps(Unpickled()), "a.pkl"), "none is ever run|binary file"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_packed_or_no_file_is_refused_by_name(name, stated):
    stated(CASES[name])
