"""What the caches take is counted as du counts it, and given back whole; what is held stays."""

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from datatunerx.storage import Refused
from datatunerx.storage.inventory import Entry, entries, entry, remove


def du(path: Path) -> int:
    return int(subprocess.run(["du", "-s", "-B1", path], capture_output=True, check=True).stdout.split()[0])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for place in ("cache/tokens/one/ids.bin", "fetched/two/a.jsonl", "models/three/x/model.safetensors",
                  "models/hub/four/model.safetensors", "uploads/team/five/a.jsonl", "fetched/.six.part/raw",
                  "fetched/sets/1.json", "models/marks/1.json", "runs/1/plan.json"):  # fmt: skip
        path = root / place
        path.parent.mkdir(parents=True)
        path.write_bytes(os.urandom(50_000))
    return root


def test_each_thing_that_can_be_made_again_is_listed_once(root: Path) -> None:
    found = {(one.kind, one.name) for one in entries(root)}
    assert found == {
        ("tokens", "one"), ("fetched", "two"), ("model", "three"), ("download", "four"), ("upload", "five"),
        ("unfinished", ".six.part"),
    }  # fmt: skip


def test_removing_gives_back_what_was_said(root: Path) -> None:
    for one in list(entries(root)):
        before = du(root)
        assert remove(one, root) == one.bytes
        assert before - du(root) == one.bytes > 50_000
    assert list(entries(root)) == []
    assert (root / "runs/1/plan.json").exists() and (root / "fetched/sets/1.json").exists()


def test_what_a_worker_holds_stays_and_what_it_read_goes_on_being_readable(root: Path) -> None:
    one = entry(root / "cache/tokens/one", "tokens")
    held = os.open(one.path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    assert remove(one, root) == 0 and (one.path / "ids.bin").exists()
    os.close(held)
    assert remove(one, root) == one.bytes and not one.path.exists()


def test_nothing_outside_the_data_root_is_removed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (root / "fetched" / "link").symlink_to(tmp_path / "mine")
    for path in (tmp_path / "mine", root, root / ".." / "mine"):
        with pytest.raises(Refused, match="nothing was removed"):
            remove(Entry("fetched", path, 1, 0.0), root)
    remove(entry(root / "fetched" / "link", "fetched"), root)
    assert (tmp_path / "mine").is_dir()


def test_bytes_that_another_entry_has_too_are_not_promised(root: Path) -> None:
    os.link(root / "fetched/two/a.jsonl", root / "uploads/team/five/b.jsonl")
    one = entry(root / "fetched/two", "fetched")
    assert one.bytes < 50_000
