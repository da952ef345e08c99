import errno
import os
import subprocess
import sys

import pytest

from datatunerx import storage
from datatunerx.storage import DiskFull, Missing, Refused, TooLarge


def test_what_is_written_is_read_back_and_leaves_nothing_else(tmp_path):
    uri = (tmp_path / "a" / "b" / "plan.json").as_uri()
    storage.write_atomic(uri, b"one")
    storage.write_atomic(uri, b"two")
    assert storage.read_bytes(uri) == b"two"
    assert os.listdir(tmp_path / "a" / "b") == ["plan.json"]


def test_an_object_store_does_the_same():
    root = "memory://store-test"
    storage.write_atomic(f"{root}/runs/1/plan.json", b"one")
    assert storage.read_bytes(f"{root}/runs/1/plan.json") == b"one"
    assert storage.read_tail(f"{root}/runs/1/plan.json", 2) == b"ne"
    assert storage.list_dir(f"{root}/runs") == ["1"]
    with pytest.raises(TooLarge):
        storage.read_bytes(f"{root}/runs/1/plan.json", limit=2)
    with pytest.raises(Refused):
        storage.delete_tree(f"{root}/runs", under=f"{root}/runs")
    with pytest.raises(Refused):
        storage.delete_tree(f"{root}/runs-2", under=f"{root}/runs")
    storage.delete_tree(f"{root}/runs/1", under=f"{root}/runs")
    assert not storage.exists(f"{root}/runs/1/plan.json")
    with pytest.raises(Missing):
        storage.read_bytes(f"{root}/runs/1/plan.json")


def test_a_missing_object_is_named(tmp_path):
    with pytest.raises(Missing, match="nothing-here"):
        storage.read_bytes(str(tmp_path / "nothing-here"))
    assert storage.list_dir(str(tmp_path / "nothing-here")) == []


def test_an_object_larger_than_expected_is_not_cut(tmp_path):
    storage.write_atomic(str(tmp_path / "x"), b"12345")
    assert storage.read_bytes(str(tmp_path / "x"), limit=5) == b"12345"
    with pytest.raises(TooLarge):
        storage.read_bytes(str(tmp_path / "x"), limit=4)


def test_the_tail_of_a_short_object_is_all_of_it(tmp_path):
    storage.write_atomic(str(tmp_path / "x"), b"12345")
    assert storage.read_tail(str(tmp_path / "x"), 2) == b"45"
    assert storage.read_tail(str(tmp_path / "x"), 99) == b"12345"


def test_a_file_is_synced_before_its_name_and_its_folder_after(tmp_path, monkeypatch):
    calls = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "rename", lambda a, b: (calls.append("rename"), rename(a, b)))
    storage.write_atomic(str(tmp_path / "x"), b"1")
    assert calls[0].endswith(".part") and calls[1:] == ["rename", str(tmp_path)]


def test_a_folder_is_published_synced_and_only_once(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
    )
    first, second, final = tmp_path / "t1", tmp_path / "t2", tmp_path / "models" / "digest"
    for folder, text in ((first, "one"), (second, "two")):
        (folder / "inner").mkdir(parents=True)
        (folder / "inner" / "weights").write_text(text)
    assert storage.publish_dir(first, final)
    assert {str(first / "inner" / "weights"), str(first), str(final.parent)} <= set(synced)
    assert not storage.publish_dir(second, final)
    assert (final / "inner" / "weights").read_text() == "one" and not second.exists()


def test_a_full_disk_is_named_and_leaves_the_old_object(tmp_path, monkeypatch):
    uri = str(tmp_path / "x")
    storage.write_atomic(uri, b"old")

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="no space left"):
        storage.write_atomic(uri, b"new")
    assert storage.read_bytes(uri) == b"old" and os.listdir(tmp_path) == ["x"]


def test_only_what_lies_strictly_below_is_deleted(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "runs" / "1", outside, tmp_path / "root2"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("kept")
    (root / "link").symlink_to(outside)
    for uri in (root, tmp_path, outside, tmp_path / "root2", root / "link" / "file", "/", "file:///"):
        with pytest.raises(Refused):
            storage.delete_tree(str(uri), under=str(root))
    with pytest.raises(Refused):
        storage.delete_tree(f"{root.as_uri()}/runs/%2e%2e/%2e%2e/outside", under=root.as_uri())
    storage.delete_tree(str(root / "runs"), under=str(root))
    assert not (root / "runs").exists() and (outside / "file").read_text() == "kept"


def test_a_link_is_deleted_and_not_what_it_points_to(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "runs").mkdir(parents=True)
    outside.mkdir()
    (outside / "file").write_text("kept")
    (root / "link").symlink_to(outside)
    (root / "runs" / "link").symlink_to(outside)
    storage.delete_tree(str(root / "link"), under=str(root))
    storage.delete_tree(str(root / "runs"), under=str(root))
    assert os.listdir(root) == [] and (outside / "file").read_text() == "kept"


def test_deleting_twice_is_harmless(tmp_path):
    storage.write_atomic(str(tmp_path / "root" / "x"), b"")
    for _ in range(2):
        storage.delete_tree(str(tmp_path / "root" / "x"), under=str(tmp_path / "root"))
    storage.delete_tree(str(tmp_path / "root" / "never" / "was"), under=str(tmp_path / "root"))


def test_free_space_is_known_before_the_folder_exists(tmp_path):
    assert storage.free_bytes(str(tmp_path / "not" / "yet")) > 0


def test_local_use_does_not_import_fsspec():
    code = "import sys, datatunerx.storage as s; s.exists('/tmp'); sys.exit('fsspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
