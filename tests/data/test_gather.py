"""URIs become files of this machine: patterns spelt out, packed files unpacked within limits, hubs listed."""

import gzip
import io
import json
import tarfile
import threading
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pytest

from datatunerx.data import DataError, content_digest, inspect, read_rows
from datatunerx.data import unpack as unpacking
from datatunerx.data.gather import gather, recall, remember
from datatunerx.data.hub_files import split_named
from datatunerx.resources.enums import Split
from datatunerx.resources.material import AutoSplit
from datatunerx.runs.plan import DataFiles
from datatunerx.storage import PrivatePlace, refuse_private
from datatunerx.storage.remote import Credentials


def lines(*names: str) -> bytes:
    return b"".join(
        json.dumps({"prompt": f"say {name}", "completion": name}).encode() + b"\n" for name in names
    )


@pytest.fixture
def here(tmp_path: Path):
    """Gathers URIs of the train split."""

    def gathered(*uris: str, credentials: Credentials | None = None, **more: object) -> DataFiles:
        files = DataFiles(
            name="d", splits={Split.TRAIN: list(uris)}, auto_split=AutoSplit(validate=0, test=0), **more
        )
        return gather(files, tmp_path / "store", tmp_path / "uploads", credentials)

    return gathered


def rows_of(files: DataFiles) -> list[str]:
    return [row.value.messages[-1]["content"] for row in read_rows(files, Split.TRAIN)]


def test_a_plain_file_is_read_where_it_lies(here, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines("a"))
    files = here(str(tmp_path / "a.jsonl"))
    assert files.copies == {} and not (tmp_path / "store").exists()


def test_a_pattern_stands_for_its_files_in_order(here, tmp_path: Path) -> None:
    for name in ("2", "1", "3"):
        (tmp_path / f"part-{name}.jsonl").write_bytes(lines(name))
    (tmp_path / "part-9.jsonl").symlink_to(tmp_path / "part-1.jsonl")
    files = here(str(tmp_path / "part-*.jsonl"))
    assert rows_of(files) == ["1", "2", "3"]
    assert rows_of(here((tmp_path / "part-*.jsonl").as_uri())) == ["1", "2", "3"]
    (tmp_path / "[x].jsonl").write_bytes(lines("x"))
    assert rows_of(here(str(tmp_path / "[x].jsonl"))) == ["x"]


def test_packed_files_are_read_under_their_own_name(here, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(
        gzip.compress(lines("a")) + gzip.compress(lines("b") + b"{broken\n")
    )
    (tmp_path / "c.jsonl.zst").write_bytes(pa.Codec("zstd").compress(lines("c"), asbytes=True))
    files = here(str(tmp_path / "a.jsonl.gz"), str(tmp_path / "c.jsonl.zst"))
    report = inspect(files).report
    assert (report.read, report.kept) == (4, 3)
    assert report.reasons[0].where == [f"{tmp_path}/a.jsonl.gz:3"]
    first = files.copies
    assert here(str(tmp_path / "a.jsonl.gz"), str(tmp_path / "c.jsonl.zst")).copies == first


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "*.jsonl", "link/a.jsonl"])
def test_every_local_file_is_checked_and_an_upload_is_not_the_servers_own(tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    uploads = home / "data" / "uploads"
    for folder in (home, uploads / "ns" / "id"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "a.jsonl").write_bytes(lines("a"))
        (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines("a")))
        (folder / "link").symlink_to(folder)
    places = partial(refuse_private, home=home, uploads=uploads)

    def gathered(uri: str) -> DataFiles:
        files = DataFiles(name="d", splits={Split.TRAIN: [uri]}, auto_split=AutoSplit(validate=0, test=0))
        return gather(files, tmp_path / "store", uploads, check_place=places)

    for uri in (f"{home}/{name}", f"file://{home}/{name}"):
        with pytest.raises(PrivatePlace, match=r"home/a\.jsonl(\.gz)?, which is the server's own"):
            gathered(uri)
    assert rows_of(gathered(f"{uploads}/ns/id/{name}")) == ["a"]
    assert rows_of(gathered(f"upload://ns/id/{name}")) == ["a"]


@pytest.mark.parametrize("uri", ["/proc/self/environ", "file:///proc/1/environ", "/dev/fd/../../sys/x"])
def test_what_the_kernel_tells_is_no_data(uri: str) -> None:
    with pytest.raises(PrivatePlace, match="where no data is"):
        refuse_private(Path(uri.removeprefix("file://")), uri, None)


def test_a_training_finds_what_the_inspection_gathered(here, tmp_path: Path) -> None:
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(lines("a")))
    files = here(str(packed))
    digest = content_digest(files)
    remember(files, digest, tmp_path / "store")
    plan = DataFiles(name="d", splits={Split.TRAIN: [str(packed)]}, digest=digest)
    packed.unlink()  # what was inspected is what is trained on
    assert rows_of(recall(plan, tmp_path / "store")) == ["a"]
    Path(files.copies[str(packed)].removeprefix("file://")).unlink()
    with pytest.raises(DataError, match="are gone from .*inspected again"):
        recall(plan, tmp_path / "store")


def archive(tmp_path: Path, members: dict[str, bytes], name: str = "a.zip") -> str:
    path = tmp_path / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for member, data in members.items():
                packed.writestr(member, data)
    else:
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as packed:
            for member, data in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                packed.addfile(info, io.BytesIO(data))
    return str(path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_an_archive_is_refused_unless_asked_for(here, tmp_path: Path, name: str) -> None:
    uri = archive(tmp_path, {"x/1.jsonl": lines("1"), "x/2.jsonl": lines("2"), "README": b"hi"}, name)
    with pytest.raises(DataError, match=r"is an archive.*set spec\.unpack"):
        here(uri)
    files = here(uri, unpack=True)
    assert rows_of(files) == ["1", "2"]
    assert files.splits[Split.TRAIN] == [f"{uri}!x/1.jsonl", f"{uri}!x/2.jsonl"]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"../out.jsonl": b"x"}, "leads out of it"),
        ({"/etc/out.jsonl": b"x"}, "leads out of it"),
        ({"a\\..\\..\\out.jsonl": b"x"}, "leads out of it"),
        ({"in.zip": b"PK"}, "another packed file"),
        ({"a.py": b"import os"}, "no data file"),
        ({"a.jsonl": b"\0" * (2 << 20)}, "bomb"),
    ],
)
def test_an_archive_that_means_harm_is_refused(here, tmp_path: Path, monkeypatch, members, said) -> None:
    monkeypatch.setattr(unpacking, "FREE_BYTES", 1 << 20)
    for name in ("a.zip", "a.tar.gz"):
        with pytest.raises(DataError, match=said):
            here(archive(tmp_path, members, name), unpack=True)
    assert not [path for path in tmp_path.rglob("*out.jsonl")]
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_links_in_an_archive_are_refused(here, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as packed:
        link = tarfile.TarInfo("a.jsonl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)
    with pytest.raises(DataError, match="a link or a device"):
        here(str(tmp_path / "a.tar"), unpack=True)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_a_bomb_and_a_broken_file_are_refused(here, tmp_path: Path, monkeypatch, name: str) -> None:
    monkeypatch.setattr(unpacking, "FREE_BYTES", 1 << 20)
    data = b"\0" * (4 << 20)
    bomb = gzip.compress(data) if name.endswith("gz") else pa.Codec("zstd").compress(data, asbytes=True)
    (tmp_path / name).write_bytes(bomb)
    with pytest.raises(DataError, match="a bomb"):
        here(str(tmp_path / name))
    for broken in (bomb[: len(bomb) // 2], b"not packed at all", b""):
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(DataError, match="broken|empty inside"):
            here(str(tmp_path / name))
    assert not list((tmp_path / "store").iterdir())


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("{tmp}/x-*.jsonl", "takes no file"),
        ("{tmp}/none.jsonl.gz", "no such file"),
        ("nowhere://a/b.jsonl", "nowhere:// is not known"),
        ("upload://ns/../../etc/passwd", "climbs"),
        ("upload://ns/id/none.jsonl", "no such file"),
        ("http://127.0.0.1:9/a.jsonl", "cannot be reached"),
        ("s3://bucket", "is not s3://bucket/key"),
    ],
)
def test_what_is_not_there_names_uri_and_fix(here, tmp_path: Path, uri: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        here(uri.format(tmp=tmp_path))
    assert error.value.fix and error.value.file


def test_an_upload_is_read_under_its_uri(here, tmp_path: Path) -> None:
    (tmp_path / "uploads/default/1").mkdir(parents=True)
    (tmp_path / "uploads/default/1/a b.jsonl").write_bytes(lines("a") + b"{\n")
    files = here("upload://default/1/a b.jsonl")
    assert inspect(files).report.reasons[0].where == ["upload://default/1/a b.jsonl:2"]


class Hub:
    """A small hub: Hugging Face's API and ModelScope's over the same files."""

    COMMIT = "c" * 40

    def __init__(self, files: dict[str, bytes], token: str = "") -> None:
        hub, self.files, self.asked = self, files, []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked.append(self.path)
                sent = f"{self.headers.get('Authorization')} {self.headers.get('Cookie')}"
                allowed = not token or token in sent
                found = hub.answer(urlsplit(self.path)) if allowed else None
                code = 200 if found is not None else 404 if allowed else 401
                self.send_response(code)
                self.send_header("Content-Length", str(len(found or b"")))
                self.end_headers()
                self.wfile.write(found or b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, url) -> bytes | None:
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        path = url.path
        if path in ("/api/datasets/org/set", "/api/datasets/org/set/revision/v1"):
            return json.dumps({"id": "org/set", "sha": self.COMMIT, "siblings": []}).encode()
        if path == f"/api/datasets/org/set/tree/{self.COMMIT}":
            made = [
                {"type": "file", "path": name, "size": len(data), "oid": f"oid-{len(data)}"}
                for name, data in self.files.items()
            ]
            return json.dumps(made).encode()
        if path.startswith(f"/datasets/org/set/resolve/{self.COMMIT}/"):
            return self.files.get(path.split(self.COMMIT + "/")[1])
        if path == "/api/v1/datasets/org/set/repo/tree":
            made = [{"Path": name, "Type": "blob", "Size": len(data)} for name, data in self.files.items()]
            return json.dumps({"Code": 200, "Data": {"Files": made}}).encode()
        if path == "/api/v1/datasets/org/set/repo":
            return self.files.get(query["FilePath"])
        return None


@pytest.fixture
def hub():
    hubs: list[Hub] = []

    def make(files: dict[str, bytes], token: str = "") -> Hub:
        hubs.append(Hub(files, token))
        return hubs[-1]

    yield make
    for each in hubs:
        each.server.shutdown()
        each.server.server_close()


FILES = {
    "README.md": b"# set", "set.py": b"raise SystemExit", "data/train-00000.jsonl": lines("1"),
    "data/train-00001.jsonl": lines("2"), "data/test-00000.jsonl": lines("t"),
}  # fmt: skip


@pytest.mark.parametrize("scheme", ["hf", "modelscope"])
def test_a_repository_gives_each_split_its_files_and_runs_nothing(hub, tmp_path: Path, scheme: str) -> None:
    place = hub(FILES)
    uri = f"{scheme}://datasets/org/set"
    wanted = DataFiles(
        name="d", splits={Split.TRAIN: [f"{uri}@v1" if scheme == "hf" else uri], Split.TEST: [uri]}
    )
    files = gather(wanted, tmp_path / "store", tmp_path, Credentials(endpoint=place.url))
    assert [row.value.messages[-1]["content"] for row in read_rows(files, Split.TRAIN)] == ["1", "2"]
    assert [row.value.messages[-1]["content"] for row in read_rows(files, Split.TEST)] == ["t"]
    assert not any(asked.endswith("set.py") for asked in place.asked)
    fetched = len(place.asked)
    gather(wanted, tmp_path / "store", tmp_path, Credentials(endpoint=place.url))
    assert not any("resolve" in asked or "FilePath" in asked for asked in place.asked[fetched:])


@pytest.mark.parametrize("scheme", ["hf", "modelscope"])
def test_a_file_or_pattern_of_a_repository_is_taken_as_named(hub, here, scheme: str) -> None:
    who = Credentials(endpoint=hub(FILES).url)
    assert rows_of(here(f"{scheme}://datasets/org/set/data/test-00000.jsonl", credentials=who)) == ["t"]
    assert rows_of(here(f"{scheme}://datasets/org/set/data/t*.jsonl", credentials=who)) == ["t", "1", "2"]
    with pytest.raises(DataError, match="is a folder"):
        here(f"{scheme}://datasets/org/set/data", credentials=who)
    with pytest.raises(DataError, match="none of the repository's 5 files"):
        here(f"{scheme}://datasets/org/set/none.jsonl", credentials=who)


@pytest.mark.parametrize("scheme", ["hf", "modelscope"])
def test_a_repository_with_a_script_alone_is_refused(hub, here, scheme: str) -> None:
    who = Credentials(endpoint=hub({"set.py": b"raise SystemExit", "README.md": b""}).url)
    with pytest.raises(DataError, match="loading script and no data files; scripts are never run"):
        here(f"{scheme}://datasets/org/set", credentials=who)


@pytest.mark.parametrize("scheme", ["hf", "modelscope"])
def test_a_private_repository_needs_the_right_token(hub, here, scheme: str) -> None:
    url = hub(FILES, token="hub-token").url
    held = Credentials({"token": "hub-token"}, url, "hub")
    assert rows_of(here(f"{scheme}://datasets/org/set/data/test-00000.jsonl", credentials=held)) == ["t"]
    with pytest.raises(DataError, match="may not be read.*Secret hub"):
        here(f"{scheme}://datasets/org/set", credentials=Credentials({"token": "wrong"}, url, "hub"))
    with pytest.raises(DataError, match="cannot be reached"):
        here(f"{scheme}://datasets/org/set", credentials=Credentials({}, "http://127.0.0.1:9", "hub"))


def test_split_names_are_words_and_not_letters() -> None:
    named = {"data/train-0.parquet": Split.TRAIN, "val.jsonl": Split.VALIDATE, "dev/x.csv": Split.VALIDATE,
             "test_1.json": Split.TEST, "contest.jsonl": None, "trainer.csv": None}  # fmt: skip
    assert {path: split_named(path) for path in named} == named
