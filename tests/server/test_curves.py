"""Curves that a page asks for all at once."""

import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

from datatunerx.server import curves


def test_charts_that_are_asked_for_at_once_all_have_their_curves(tmp_path):
    asked = SimpleNamespace(
        query={"y": "loss", "jobs": '{"a": {}}'}, number=lambda name: None, flag=lambda name: False
    )
    with ThreadPoolExecutor(8) as threads:
        for number in range(20):
            events = tmp_path / f"{number}" / "events.jsonl"
            events.parent.mkdir()
            event = {"time": 1.0, "type": "metrics", "job": "a", "values": {"loss": 0.5, "learningRate": 0.1}}
            events.write_text("".join(json.dumps(event | {"step": step}) + "\n" for step in range(1, 2000)))

            told = [json.loads(one) for one in threads.map(curves.answer, [events] * 8, [asked] * 8)]

            assert {one["offset"] + one["behind"] for one in told} == {events.stat().st_size}
            assert {end for one in told for end in one["ends"]["a"]["x"]} == {1, 1999}
