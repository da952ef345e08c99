"""Manifests are read as YAML 1.2, bounded, and refused by file and line."""

from pathlib import Path

import pytest

from datatunerx.cli.documents import load, parse, scalar
from datatunerx.cli.errors import BadInput

HERE = Path()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4), ("1E5", 1e5), (".5", 0.5), ("1.", 1.0), ("-3", -3), ("010", 10), ("0x10", 16),
        ("0o17", 15), ("true", True), ("yes", "yes"), ("on", "on"), ("12:30", "12:30"),
        ("2026-01-31", "2026-01-31"), ("'2e-4'", "2e-4"), ("1_000", "1_000"), ("cosine", "cosine"),
    ],
)  # fmt: skip
def test_numbers_are_those_of_yaml_1_2(text, value):
    [document] = parse(f"a: {text}", "x.yaml", HERE)
    assert document.body == {"a": value}
    assert type(document.body["a"]) is type(value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\na: 2", "x.yaml:2: not YAML: the key 'a' stands twice"),
        ("a:\n  b: [", "x.yaml:2: not YAML"),
        ("a: .nan", "nan is not a finite number"),
        ("a: 1e999", "inf is not a finite number"),
        ("a: &a [*a]", "too large or too deeply nested"),
        ("1: 2", "a key must be text"),
        ("!!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("[1]", "expected an object"),
        ("a: " + "9" * 5000, "a number of 5000 digits"),
        ("{a: " * 2000 + "1" + "}" * 2000, "nested too deeply"),
    ],
)
def test_what_is_not_a_manifest_is_refused_with_its_place(text, told):
    with pytest.raises(BadInput, match="x.yaml") as caught:
        parse(text, "x.yaml", HERE)
    assert told in str(caught.value)


def test_a_few_lines_of_aliases_do_not_unfold_into_gigabytes():
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(BadInput, match="once its aliases are followed"):
        parse("\n".join(lines), "bomb.yaml", HERE)


def test_a_folder_is_read_in_order_of_names_and_a_file_may_hold_many(tmp_path):
    (tmp_path / "b.yaml").write_text("kind: B\n---\nkind: C\n---\n")
    (tmp_path / "a.json").write_text('{"kind": "List", "items": [{"kind": "A"}]}')
    (tmp_path / "notes.txt").write_text("not a manifest")
    assert [d.body["kind"] for d in load([str(tmp_path)])] == ["A", "B", "C"]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    with pytest.raises(BadInput, match=r"latin.yaml:2: not UTF-8"):
        load([str(tmp_path / "latin.yaml")])
    with pytest.raises(BadInput, match="none.yaml: cannot be read: No such file"):
        load([str(tmp_path / "none.yaml")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no .yaml, .yml or .json file"):
        load([str(tmp_path / "empty")])


def test_a_setting_is_one_value():
    assert [scalar(t) for t in ("8", "2e-4", "true", "cosine", "[1]", "{")] == [
        8,
        2e-4,
        True,
        "cosine",
        "[1]",
        "{",
    ]
