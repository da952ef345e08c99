"""What is printed from plain objects: tables, descriptions, comparisons, the doctor's findings."""

from datetime import UTC, datetime, timedelta

import pytest
import yaml

from datatunerx.cli.compare import Compared, comparison, results_of
from datatunerx.cli.describe import describe
from datatunerx.cli.doctor import package, packages
from datatunerx.cli.documents import scalar
from datatunerx.cli.text import age, aligned, as_yaml, duration, number, percent, table_cells
from datatunerx.resources import Scoring

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
TABLE = {
    "columnDefinitions": [{"name": "Name"}, {"name": "Score"}, {"name": "Why", "priority": 1}],
    "rows": [
        {"cells": ["a", 0.9123456, "x"], "object": {"metadata": {"namespace": "n"}}},
        {"cells": ["bb", None, ""]},
    ],
}


def test_a_table_shows_wide_columns_only_when_asked():
    assert table_cells(TABLE) == [["NAME", "SCORE"], ["a", "0.9123"], ["bb", "<none>"]]
    assert table_cells(TABLE, wide=True)[0] == ["NAME", "SCORE", "WHY"]
    assert [row[0] for row in table_cells(TABLE, namespaces=True)] == ["NAMESPACE", "n", ""]
    assert aligned(table_cells(TABLE)) == ["NAME   SCORE", "a      0.9123", "bb     <none>"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0002, "0.0002"), (2e-5, "2e-05"), (0.5, "0.5"), (3.0, "3"), (0.0, "0"), (12.34567, "12.3457")],
)
def test_a_number_is_as_short_as_it_can_be(value, shown):
    assert number(value) == shown


def test_a_missing_score_is_a_dash_and_never_zero():
    assert percent(None) == "-" and percent(0.0) == "0.0%"
    missing = {"exact-match": {"whyMissing": "no references"}}
    scoring = Scoring.parse(
        {"spec": {"model": {"name": "a"}, "dataset": "d"}, "status": {"metrics": missing}}
    )
    assert results_of({"status": {"phase": "Succeeded"}}, scoring)["exact-match"] == "- (no references)"


def test_times_are_told_in_their_two_largest_units():
    def ago(**since):
        return age((NOW - timedelta(**since)).isoformat(), NOW)

    assert [ago(seconds=5), ago(seconds=65), ago(hours=25), ago(days=2)] == ["5s", "1m5s", "1d1h", "2d"]
    assert age(None, NOW) == "<unknown>"
    assert [duration(s) for s in (None, 5, 65, 3661)] == ["-", "0:05", "1:05", "1:01:01"]


def test_printed_yaml_is_read_back_unchanged_by_readers_of_1_1_and_of_1_2():
    body = {"a": "2e-4", "b": 2e-5, "c": "yes", "d": "two\nlines", "e": ["x", 1], "f": "中文"}
    assert yaml.safe_load(as_yaml([body])) == body
    assert "'2e-4'" in as_yaml([body]) and scalar("'2e-4'") == "2e-4"


def test_what_kubectl_would_read_as_a_boolean_is_quoted_and_nothing_is_an_alias():
    shared = {"n": "y", "on": "no"}
    text = as_yaml([{"a": shared, "b": shared}])
    assert text.count("'n': 'y'") == 2 and text.count("'on': 'no'") == 2
    assert "&" not in text and "*" not in text


def test_a_description_cuts_long_lists_and_says_so():
    body = {
        "kind": "Finetune",
        "metadata": {"name": "f"},
        "spec": {},
        "status": {"checkpoints": list(range(100))},
    }
    page = describe(body, [], NOW)
    assert "60 more; see -o yaml" in page and "Events:     none" in page


def test_warnings_of_a_report_stand_by_themselves():
    report = {"kept": 9, "warnings": ["no row went to the test split", "few rows"]}
    body = {"kind": "Dataset", "metadata": {"name": "d"}, "spec": {}, "status": {"report": report}}
    assert "\nWarnings:\n  no row went to the test split\n  few rows\n" in describe(body, [], NOW)
    report["warnings"] = []
    assert "Warnings:" not in describe(body, [], NOW)


def test_a_comparison_shows_only_what_differs_and_every_result():
    columns = [
        Compared("a", {"lora.rank": 8, "seed": 1, "lora.targets": ["q"]}, {"score": "0.5"}),
        Compared("b", {"lora.rank": 16, "seed": 1, "lora.targets": ["q"], "epochs": 2.0}, {"score": "-"}),
    ]
    assert comparison(columns) == [
        ["", "a", "b"], ["lora.rank", "8", "16"], ["epochs", "-", "2"], ["score", "0.5", "-"],
    ]  # fmt: skip


def test_the_doctor_names_what_is_missing_or_of_the_wrong_age_and_what_that_turns_off():
    assert package("rich", ">=1", None).status == "ok"
    absent = package("no-such-package-here", ">=1", "train")
    assert (absent.status, absent.advice) == (
        "missing",
        "turns off training; pip install 'datatunerx[train]'",
    )
    old = package("torch", ">=999", "train")
    assert (
        old.status == "missing"
        and "too old (needs >=999)" in old.found
        and "turns off training" in old.advice
    )
    assert "too new" in package("rich", "<2", None).found


def test_the_doctor_looks_at_every_package_we_ask_for():
    names = {finding.subject for finding in packages()}
    assert {"torch", "typer", "transformers", "cryptography", "sacrebleu"} <= names
    assert not names & {"pytest", "trl"}
