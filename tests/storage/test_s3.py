"""S3 over real HTTP: files and patterns by a Secret's keys; what is wrong is said before a fetch."""

import random
from pathlib import Path

import pytest

from datatunerx.storage import Forbidden, Missing, Refused, Unreachable
from datatunerx.storage.fetch import fetch
from datatunerx.storage.remote import Credentials, listed

KEYS = {"accessKeyId": "someone", "secretAccessKey": "very-secret-value"}


@pytest.fixture
def who(s3) -> Credentials:
    return Credentials(KEYS, endpoint=s3.url, name="bucket")


def test_files_and_patterns_come_with_one_url_and_one_secret(s3, who, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(9 << 20)
    s3.put("data/a/1.jsonl", content)
    s3.put("data/a/2.jsonl", b"two")
    s3.put("data/a/deep/3.jsonl", b"three")
    found = listed("s3://data/a/*.jsonl", who)
    assert [file.uri for file in found] == ["s3://data/a/1.jsonl", "s3://data/a/2.jsonl"]
    copies = [fetch(file, tmp_path) for file in found]
    assert [(copy.folder / copy.names[0]).read_bytes() for copy in copies] == [content, b"two"]
    assert len(listed("s3://data/**/*.jsonl", who)) == 3
    assert "very-secret-value" not in repr(found) + repr(who)


def test_the_endpoint_may_stand_in_the_secret(s3) -> None:
    s3.put("data/a", b"x")
    [file] = listed("s3://data/a", Credentials(KEYS | {"endpoint": s3.url}, name="bucket"))
    assert file.size == 1 and file.version.startswith('"')


def test_another_content_is_another_version(s3, who, tmp_path: Path) -> None:
    s3.put("data/a", b"one")
    [before] = listed("s3://data/a", who)
    copy = fetch(before, tmp_path)
    s3.put("data/a", b"two")
    [after] = listed("s3://data/a", who)
    assert (fetch(after, tmp_path).folder / "a").read_bytes() == b"two"
    assert (copy.folder / "a").read_bytes() == b"one"


def test_a_fetch_goes_on_where_it_stopped(s3, who, tmp_path: Path) -> None:
    from datatunerx.storage.fetch import MODE_AS_IS, key_of

    content = random.Random(2).randbytes(5 << 20)
    s3.put("data/a", content)
    [file] = listed("s3://data/a", who)
    part = tmp_path / f".{key_of(file.uri, file.version, MODE_AS_IS)}.part"
    part.mkdir()
    (part / "raw").write_bytes(content[:12345])
    assert (fetch(file, tmp_path).folder / "a").read_bytes() == content


def test_wrong_credentials_are_named_without_their_values(s3, who) -> None:
    s3.put("data/a", b"x")
    member = s3.member("reader")
    s3.guard()
    with pytest.raises(Forbidden, match="may not be read with Secret bucket") as refused:
        listed("s3://data/*", who)
    assert "very-secret-value" not in str(refused.value)
    # Patterns throughout: the test's store answers 500 to a HEAD that is not allowed; no real one does.
    forged = Credentials(member | {"secretAccessKey": "forged"}, endpoint=s3.url, name="bucket")
    with pytest.raises(Forbidden, match="may not be read with Secret bucket"):
        listed("s3://data/*", forged)
    without_rights = Credentials(member, endpoint=s3.url, name="bucket")
    with pytest.raises(Forbidden, match="Secret bucket"):
        listed("s3://data/*", without_rights)


def test_a_secret_without_keys_is_refused_by_their_names(s3) -> None:
    with pytest.raises(Forbidden, match="must hold accessKeyId and secretAccessKey"):
        listed("s3://data/a", Credentials({"key": "x"}, endpoint=s3.url, name="bucket"))


@pytest.mark.parametrize(
    ("uri", "error", "said"),
    [
        ("s3://data/none", Missing, "no such object"),
        ("s3://nobucket/a", Missing, "no such"),
        ("s3://data/x-*.jsonl", Missing, "takes none of the"),
        ("s3://data/a", Refused, "is a folder; name the objects in it"),
        ("s3://data", Refused, "not s3://bucket/key"),
    ],
)
def test_what_is_not_there_is_said(s3, who, uri, error, said) -> None:
    s3.put("data/a/1.jsonl", b"x")
    with pytest.raises(error, match=said):
        listed(uri, who)


def test_an_endpoint_that_does_not_answer_is_named() -> None:
    who = Credentials(KEYS, endpoint="http://127.0.0.1:9", name="bucket")
    with pytest.raises(Unreachable, match=r"127.0.0.1:9 does not answer; check the endpoint"):
        listed("s3://data/a", who)
    with pytest.raises(Refused, match="no http"):
        listed("s3://data/a", Credentials(KEYS, endpoint="ftp://x", name="bucket"))
