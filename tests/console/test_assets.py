"""What others wrote and we ship is what they published: version, licence, digest, all in one manifest."""

import hashlib
import json
from pathlib import Path

import pytest

import datatunerx.console

SHIPPED = Path(datatunerx.console.__file__).parent / "static/vendor"
FOLDERS = [SHIPPED, Path(__file__).parent / "vendor"]


@pytest.mark.parametrize("folder", FOLDERS, ids=["shipped", "tests"])
def test_every_vendored_file_is_in_the_manifest_with_its_digest(folder):
    rows = json.loads((folder / "manifest.json").read_text())
    for row in rows:
        data = (folder / row["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"], row["file"]
        assert row["version"] in row["file"] and row["licence"]
        assert len((folder / row["licenceFile"]).read_text()) > 200
    named = {row["file"] for row in rows} | {row["licenceFile"] for row in rows} | {"manifest.json"}
    assert {path.name for path in folder.iterdir()} == named


def test_a_first_visit_loads_less_than_150_kb():
    static = SHIPPED.parent
    loaded = [
        "console.css",
        "console.js",
        "live.js",
        "icons.svg",
        "logo.svg",
        *(f"vendor/{p.name}" for p in SHIPPED.glob("[hi]*.js")),
    ]
    assert sum((static / name).stat().st_size for name in loaded) < 130_000  # the page itself is some 20 kB
