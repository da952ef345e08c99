"""`dtx diff`: which rows two trainings had, as their runs noted them."""

import json

from datatunerx.cli.lineage import _rows_changed
from datatunerx.resources import LLMCheckpoint
from datatunerx.runs.files import rows_uri
from datatunerx.storage import local_path


def trained(root, digest, *rows):
    """A checkpoint below `root`, with a note of the rows it was trained on."""
    path = local_path(rows_uri(str(root / "cache"), digest))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps([f"mark of {row}", row]) for row in rows))
    spec = {"finetune": "t", "llm": "m", "dataset": "d", "step": 1, "dataDigest": digest}
    uri = (root / "artifacts" / "uid" / "step-1").as_uri()
    return LLMCheckpoint.parse({"metadata": {"name": "c"}, "spec": spec | {"uri": uri}})


def test_rows_are_counted_that_both_had_and_shown_that_one_had(tmp_path):
    a, b = trained(tmp_path, "x" * 64, "one", "two"), trained(tmp_path, "y" * 64, "two", "three")
    assert _rows_changed([a, b]) == {"same": 1, "added": ["three"], "removed": ["one"]}
    assert _rows_changed([a, a]) == {"same": 2, "added": [], "removed": []}


def test_what_was_not_noted_is_not_counted(tmp_path):
    a, b = trained(tmp_path, "x" * 64, "one"), trained(tmp_path, "y" * 64, "two")
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file():
            path.unlink()
    assert "is not known here" in _rows_changed([a, b])
    assert _rows_changed([a, a])["same"] is None
