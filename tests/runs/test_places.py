"""The path that a URI names."""

from pathlib import Path

import pytest

from datatunerx.runs.files import path_of


@pytest.mark.parametrize("name", ["/a/b", "/a b/ü", "/a#b", "/a?b=c", "/100%", "/%41"])
def test_what_a_path_writes_as_its_uri_is_read_as_that_path(name):
    assert path_of(Path(name).as_uri()) == path_of(name) == Path(name)


def test_a_name_that_nobody_encoded_is_read_whole():
    assert path_of("file:///a?b=c#d") == Path("/a?b=c#d")


def test_what_lies_elsewhere_has_no_path():
    with pytest.raises(ValueError, match="s3://a/b: is not on this machine"):
        path_of("s3://a/b")
