"""A log line is one JSON object: a constant phrase and its facts."""

import json
import logging

import pytest

from datatunerx.telemetry.logging import log_to


@pytest.fixture
def log(tmp_path):
    root = logging.getLogger()
    level = root.level
    handler = log_to(tmp_path / "server.log")
    yield tmp_path / "server.log"
    root.removeHandler(handler)
    root.setLevel(level)
    handler.close()


def test_a_line_has_its_phrase_its_facts_and_on_one_line_its_traceback(log):
    logging.getLogger("x").info("run submitted", extra={"run": "tune-1", "adapters": 4})
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("x").exception("reconcile broke")
    first, second = (json.loads(line) for line in log.read_text().splitlines())
    assert (first["message"], first["run"], first["adapters"], first["level"]) == (
        "run submitted",
        "tune-1",
        4,
        "info",
    )
    assert "ValueError: two\nlines" in second["traceback"]
    assert log.stat().st_mode & 0o077 == 0
