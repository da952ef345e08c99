"""Far files come once, whole, and as they are; whatever goes wrong is said with the URI and a fix."""

import hashlib
import json
import random
import threading
from pathlib import Path

import pytest

from datatunerx.storage import (
    Changed,
    Forbidden,
    Missing,
    Refused,
    TooLarge,
    Unreachable,
)
from datatunerx.storage import (
    fetch as fetching,
)
from datatunerx.storage.fetch import copy_at, fetch
from datatunerx.storage.remote import Credentials, listed, matching

NOBODY = Credentials()
BYTES = random.Random(1).randbytes(3 << 20)


def the(uri: str, credentials: Credentials = NOBODY):
    [file] = listed(uri, credentials)
    return file


@pytest.fixture(autouse=True)
def at_once(monkeypatch) -> None:
    monkeypatch.setattr(fetching, "WAIT_SECONDS", 0.001)


def test_a_file_is_fetched_once_for_its_etag(site, tmp_path: Path) -> None:
    site.files["/a.jsonl"], site.etags["/a.jsonl"] = b"one", '"1"'
    first = fetch(the(f"{site.url}/a.jsonl"), tmp_path)
    again = fetch(the(f"{site.url}/a.jsonl"), tmp_path)
    assert (first.folder / "a.jsonl").read_bytes() == b"one" and first == again
    assert len(site.asked) == 3  # looked at, fetched, looked at

    site.files["/a.jsonl"], site.etags["/a.jsonl"] = b"two", '"2"'
    other = fetch(the(f"{site.url}/a.jsonl"), tmp_path)
    assert (other.folder / "a.jsonl").read_bytes() == b"two"
    assert (first.folder / "a.jsonl").read_bytes() == b"one"


def test_a_file_without_a_version_is_fetched_each_time(site, tmp_path: Path) -> None:
    site.files["/a"] = b"one"
    first = fetch(the(f"{site.url}/a"), tmp_path)
    site.files["/a"] = b"two"
    assert (fetch(the(f"{site.url}/a"), tmp_path).folder / "a").read_bytes() == b"two"
    assert (first.folder / "a").read_bytes() == b"one"


def test_a_broken_fetch_goes_on_where_it_stopped(site, tmp_path: Path) -> None:
    site.files["/a"], site.etags["/a"], site.cut_after["/a"] = BYTES, '"1"', 1 << 20
    copy = fetch(the(f"{site.url}/a"), tmp_path)
    assert (copy.folder / "a").read_bytes() == BYTES
    ranges = [asked.get("range") for _, asked in site.asked if "range" in asked]
    assert ranges == ["bytes=1048576-", "bytes=2097152-"]
    assert all(asked.get("if-range") == '"1"' for _, asked in site.asked if "range" in asked)


def test_what_a_killed_fetch_has_left_is_used(site, tmp_path: Path) -> None:
    site.files["/a"], site.etags["/a"] = BYTES, '"1"'
    file = the(f"{site.url}/a")
    part = tmp_path / f".{fetching.key_of(file.uri, file.version, fetching.MODE_AS_IS)}.part"
    part.mkdir()
    (part / "raw").write_bytes(BYTES[:1000])
    copy = fetch(file, tmp_path)
    assert (copy.folder / "a").read_bytes() == BYTES
    assert site.asked[-1][1]["range"] == "bytes=1000-"
    assert not list(tmp_path.glob(".*"))


def test_a_file_that_changes_between_two_pieces_is_refused(site, tmp_path: Path) -> None:
    site.files["/a"], site.etags["/a"] = BYTES, '"1"'
    file = the(f"{site.url}/a")
    site.etags["/a"] = '"2"'
    with pytest.raises(Changed, match="changed while it was fetched"):
        fetch(file, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_no_copy_is_joined_of_two_contents_where_only_dates_tell_them_apart(site, tmp_path: Path) -> None:
    early, late = "Mon, 01 Jun 2026 00:00:00 GMT", "Tue, 02 Jun 2026 00:00:00 GMT"
    site.files["/a"], site.changed["/a"], site.cut_after["/a"] = BYTES, early, 1 << 20
    copy = fetch(the(f"{site.url}/a"), tmp_path / "unchanged")
    assert (copy.folder / "a").read_bytes() == BYTES
    assert [asked["if-range"] for _, asked in site.asked if "range" in asked] == [early, early]

    file = the(f"{site.url}/a")
    part = tmp_path / f".{fetching.key_of(file.uri, file.version, fetching.MODE_AS_IS)}.part"
    part.mkdir()
    (part / "raw").write_bytes(BYTES[:1000])
    site.files["/a"], site.changed["/a"] = bytes(len(BYTES)), late
    with pytest.raises(Changed, match="changed while it was fetched"):
        fetch(file, tmp_path)


def test_a_file_without_a_version_is_fetched_from_its_start_after_a_break(site, tmp_path: Path) -> None:
    site.files["/a"], site.cut_after["/a"] = BYTES, 1 << 20
    with pytest.raises(Unreachable, match="broke off"):
        fetch(the(f"{site.url}/a"), tmp_path)
    assert not [asked for _, asked in site.asked if "range" in asked]


def test_bytes_that_never_come_end_as_unreachable(site, tmp_path: Path) -> None:
    site.files["/a"], site.etags["/a"], site.cut_after["/a"] = BYTES, '"1"', 0
    with pytest.raises(Unreachable, match="broke off"):
        fetch(the(f"{site.url}/a"), tmp_path)
    assert copy_at(tmp_path) is None


def test_two_at_once_fetch_once(site, tmp_path: Path) -> None:
    site.files["/a"], site.etags["/a"] = BYTES, '"1"'
    file = the(f"{site.url}/a")
    copies: list[object] = []
    threads = [threading.Thread(target=lambda: copies.append(fetch(file, tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(copies) == 4 and len(set(map(str, copies))) == 1
    assert len(site.asked) == 2  # looked at once, fetched once


def test_a_copy_that_lost_bytes_is_fetched_again(site, tmp_path: Path) -> None:
    site.files["/a"], site.etags["/a"] = b"whole", '"1"'
    copy = fetch(the(f"{site.url}/a"), tmp_path)
    (copy.folder / "a").write_bytes(b"who")
    assert (fetch(the(f"{site.url}/a"), tmp_path).folder / "a").read_bytes() == b"whole"


def test_more_than_is_wanted_is_refused_before_it_comes(site, tmp_path: Path) -> None:
    site.files["/a"] = b"0123456789"
    with pytest.raises(TooLarge, match="10 bytes, at most 5"):
        fetch(the(f"{site.url}/a"), tmp_path, max_bytes=5)
    assert len(site.asked) == 1


def test_more_than_fits_on_the_disk_is_refused_with_both_numbers(site, tmp_path: Path, monkeypatch) -> None:
    site.files["/a"] = b"0123456789"
    monkeypatch.setattr(fetching, "SPARE_BYTES", 1 << 60)
    with pytest.raises(TooLarge, match="needs 10 bytes on this disk and 0 are free"):
        fetch(the(f"{site.url}/a"), tmp_path)


def test_progress_is_told_with_bytes_and_speed(site, tmp_path: Path) -> None:
    site.files["/a"] = BYTES
    told: list[tuple[int, int | None]] = []
    fetch(the(f"{site.url}/a"), tmp_path, on_progress=lambda here, whole, speed: told.append((here, whole)))
    assert told[-1] == (len(BYTES), len(BYTES))


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (404, Missing, "no such file"),
        (403, Forbidden, "no Secret"),
        (401, Forbidden, "401"),
        (503, Unreachable, "trouble"),
    ],
)
def test_a_refusal_says_what_to_do(site, status, error, said) -> None:
    site.files["/a"], site.status["/a"] = b"x", status
    with pytest.raises(error, match=said):
        the(f"{site.url}/a")


def test_a_host_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="check the address"):
        the("http://127.0.0.1:9/a")
    with pytest.raises(Unreachable, match="no host of that name"):
        the("http://nowhere.invalid/a")


def test_a_token_goes_to_its_host_and_not_along_a_redirect(site, tmp_path: Path) -> None:
    site.files["/a"], site.token = b"x", "s3cret"
    held = Credentials({"token": "s3cret"}, name="web")
    assert fetch(the(f"{site.url}/a", held), tmp_path).names == ["a"]
    assert "s3cret" not in repr(held) + repr(the(f"{site.url}/a", held))
    with pytest.raises(Forbidden, match="Secret web"):
        the(f"{site.url}/a", Credentials({"token": "other"}, name="web"))
    elsewhere = site.url.replace("127.0.0.1", "localhost")
    site.redirects["/moved"] = f"{elsewhere}/a"
    with pytest.raises(Forbidden):
        the(f"{site.url}/moved", held)
    assert "authorization" not in site.asked[-1][1]


def test_redirects_are_few_and_stay_on_the_web(site) -> None:
    for n in range(10):
        site.redirects[f"/{n}"] = f"{site.url}/{n + 1}"
    site.files["/4"] = site.files["/10"] = b"x"
    with pytest.raises(Refused, match="more than 5 redirects"):
        the(f"{site.url}/0")
    assert the(f"{site.url}/6").size == 1
    site.redirects["/file"] = "file:///etc/passwd"
    with pytest.raises((Refused, Unreachable)):
        the(f"{site.url}/file")
    site.redirects["/cloud"] = "http://169.254.169.254/latest/meta-data"
    with pytest.raises(Refused, match="link-local"):
        the(f"{site.url}/cloud")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://169.254.169.254/latest", "link-local"),
        ("http://127.0.0.1:1/*.jsonl", "lists no files"),
        ("http://me:pass@127.0.0.1:1/a", "must not hold a password"),
        ("ftp://host/a", "ftp:// is not known"),
        ("s3://bucket", "is not s3://bucket/key"),
        ("hf://name", "is not of the form"),
        ("s3://bucket/a/../b", "climbs"),
    ],
)
def test_a_uri_that_cannot_be_read_is_refused_before_anybody_is_asked(uri, said) -> None:
    with pytest.raises(Refused, match=said) as refused:
        the(uri)
    assert "pass@" not in str(refused.value)


def test_a_web_page_is_not_a_file(site) -> None:
    site.files["/view"], site.html = b"<html>", {"/view"}
    with pytest.raises(Refused, match="a web page"):
        the(f"{site.url}/view")


def test_promised_bytes_are_held_to_their_hash(site, tmp_path: Path) -> None:
    from dataclasses import replace

    site.files["/a"] = b"x"
    file = the(f"{site.url}/a")
    fetch(replace(file, sha256=hashlib.sha256(b"x").hexdigest()), tmp_path)
    with pytest.raises(Changed, match="SHA-256"):
        fetch(replace(file, sha256="0" * 64), tmp_path)


def test_patterns_stay_in_their_folder_unless_doubled() -> None:
    names = ["a/1.jsonl", "a/b/2.jsonl", "a/3.csv", "a/x[1].jsonl"]
    assert matching(names, "a/*.jsonl") == ["a/1.jsonl", "a/x[1].jsonl"]
    assert matching(names, "a/**/*.jsonl") == ["a/1.jsonl", "a/b/2.jsonl", "a/x[1].jsonl"]
    assert matching(names, "a/[13].*") == ["a/1.jsonl", "a/3.csv"]
    assert matching(names, "a/[!1].*") == ["a/3.csv"]


def test_a_file_may_have_any_name(site, tmp_path: Path) -> None:
    for name in ("meta.json", "files", "raw"):
        site.files[f"/{name}"] = name.encode()
        copy = fetch(the(f"{site.url}/{name}"), tmp_path)
        assert (copy.folder / copy.names[0]).read_bytes() == name.encode()


def test_a_copy_says_where_it_is_from(site, tmp_path: Path) -> None:
    site.files["/a"] = b"x"
    copy = fetch(the(f"{site.url}/a"), tmp_path)
    meta = json.loads((copy.folder.parent / "meta.json").read_text())
    assert (meta["uri"], meta["files"]) == (f"{site.url}/a", {"a": 1})
