import pytest

from datatunerx.storage import Refused, join, local_path

CLIMBING = [
    "/data/../etc/passwd", "file:///data/../etc", "file:///data/%2e%2e/etc", "file:///data/%2E%2e/etc",
    "file:///data/%252e%252e/etc", "file:///data/..%2fetc", "file:///data/..%5cetc", "/data/%2e%2e/etc", "s3://bucket/../other",
    "file:///data/..",
]  # fmt: skip


@pytest.mark.parametrize("uri", CLIMBING)
def test_a_uri_that_climbs_is_refused(uri):
    with pytest.raises(Refused):
        local_path(uri)


@pytest.mark.parametrize(
    "uri", ["data/file", "./data", "file:data", "file://host/data", "s3://bucket/x", "/a\0b", "/a\nb"]
)
def test_a_uri_that_is_no_place_on_this_machine_is_refused_by_name(uri):
    with pytest.raises(Refused, match="data|bucket|control"):
        local_path(uri)


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/passwd", "file:///etc", "~root", "%2e%2e/x", "", "\\\\host\\x"]
)
def test_a_name_cannot_leave_its_root(name):
    with pytest.raises(Refused):
        join("file:///data", name)


def test_plain_paths_and_file_uris_name_the_same_place(tmp_path):
    place = tmp_path / "with space and ü %"
    assert local_path(place.as_uri()) == local_path(str(place)) == place


def test_a_name_with_dots_in_it_is_a_name():
    assert join("file:///data", "a..b", "..c/...") == "file:///data/a..b/..c/..."
