"""A model that was edited after its inspection is noticed, by name, and nothing is made of it."""

import os

import pytest

from datatunerx.modeling.intact import ModelChanged, digest, marks, must_be, remember
from datatunerx.storage import sha256_of


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "notes.md"):
        (folder / name).write_text(name)
    remember(folder, digest(folder), marks(folder), tmp_path / "store")
    return folder, digest(folder), tmp_path / "store"


def test_the_files_are_read_again_only_where_they_look_otherwise(model, monkeypatch):
    folder, wanted, store = model
    read = []

    def counted(path):
        read.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr("datatunerx.storage.sha256_of", counted)
    (folder / "notes.md").write_text("no part of the model")
    must_be(folder, wanted, store, "tiny")
    assert read == []
    os.utime(folder / "config.json", (1, 1))
    must_be(folder, wanted, store, "tiny")
    assert len(read) == 3
    must_be(folder, wanted, store, "tiny")
    assert len(read) == 3


@pytest.mark.parametrize("name", ["config.json", "added.json", "tokenizer.json"])
def test_the_file_that_changed_is_named_with_what_to_do(model, name):
    folder, wanted, store = model
    if name == "tokenizer.json":
        (folder / name).unlink()
    else:
        (folder / name).write_text("other")
    with pytest.raises(ModelChanged, match=f"^{name} in .*kubectl annotate llm tiny"):
        must_be(folder, wanted, store, "tiny")


def test_without_a_note_of_the_inspection_the_content_decides(model):
    folder, wanted, store = model
    must_be(folder, wanted, store / "empty", "tiny")
    (folder / "config.json").write_text("other")
    with pytest.raises(ModelChanged, match="^files in "):
        must_be(folder, wanted, store / "other", "tiny")
