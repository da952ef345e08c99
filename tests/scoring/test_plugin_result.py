"""A plugin's result: finite numbers with their n, or nothing."""

import json

import pytest

from datatunerx.scoring import read_result
from datatunerx.scoring.plugin_result import PluginResultError


def read(document, num_rows=3):
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_result("polite", data, num_rows)


def test_rows_values_and_reasons_are_taken():
    found = read(
        {
            "scores": {
                "score": {"rows": [1, None, 0.5]},
                "cost": {"value": 3, "low": 2, "high": 4.5, "n": 7, "higherIsBetter": False},
                "tone": {"missing": "no dictionary"},
            }
        }
    )
    assert found.marks["polite"].values == [1.0, None, 0.5]
    cost = found.values["polite/cost"]
    assert (cost.value, cost.low, cost.high, cost.n, cost.higher_is_better) == (3.0, 2.0, 4.5, 7, False)
    assert found.values["polite/tone"].value is None
    assert found.values["polite/tone"].why_missing == "no dictionary"


@pytest.mark.parametrize(
    ("document", "named"),
    [
        (b"", "JSON"), (b"{", "JSON"), (b'{"scores": {"a": {"value": NaN, "n": 3}}}', "value"),
        (b'{"scores": {"a": {"value": 1e999, "n": 3}}}', "value"), ([], ""), ({}, "scores"),
        ({"scores": {}}, "scores"), ({"scores": {"a": {}}}, "scores.a"), ({"scores": {"a": 0.5}}, "scores.a"),
        ({"scores": {"a": {"value": "0.5", "n": 3}}}, "scores.a.value"),
        ({"scores": {"a": {"value": True, "n": 3}}}, "scores.a.value"),
        ({"scores": {"a": {"value": 0.5}}}, "needs n"), ({"scores": {"a": {"value": 0.5, "n": 0}}}, "n"),
        ({"scores": {"a": {"value": 5, "low": 1, "high": 2, "n": 3}}}, "low <= value <= high"),
        ({"scores": {"a": {"value": 5, "low": 1, "n": 3}}}, "both low and high"),
        ({"scores": {"a": {"value": 5, "n": 3, "rows": [1, 2, 3]}}}, "rows and value"),
        ({"scores": {"a": {"rows": [1, 2]}}}, "2 marks for 3 predictions"),
        ({"scores": {"a": {"rows": [1, 2, "3"]}}}, "scores.a.rows"),
        ({"scores": {"a/b": {"rows": [1, 2, 3]}}}, "scores"),
        ({"scores": {"a": {"rows": [1, 2, 3], "x": 1}}}, "x"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_by_plugin_and_field(document, named):
    with pytest.raises(PluginResultError, match="plugin polite") as refused:
        read(document)
    assert named in str(refused.value)
