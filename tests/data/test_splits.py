"""Every row is in exactly one split, the same one each time."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datatunerx.data import Problem, content_digest, inspect, read_rows
from datatunerx.resources.enums import Split
from datatunerx.resources.material import AutoSplit


def said(files, split) -> list[str]:
    return [row.value.messages[0]["content"] for row in read_rows(files, split)]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    texts=st.lists(st.integers(0, 30).map(str), min_size=3, max_size=60),
    shares=st.tuples(st.floats(0.01, 0.6), st.floats(0.01, 0.6)),
    seed=st.integers(0, 2**32 - 1),
)
def test_splits_are_disjoint_whole_and_never_empty(tmp_path, dataset, texts, shares, seed):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"prompt": text, "completion": "x"}) + "\n" for text in texts))
    files = dataset(str(path), auto_split=AutoSplit(validate_=shares[0], test=shares[1], seed=seed))

    parts = {split: said(files, split) for split in Split}

    assert sorted(sum(parts.values(), [])) == sorted(texts)
    sets = [set(part) for part in parts.values()]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    if len(set(texts)) >= 3:
        assert all(parts.values())
    assert inspect(files).report.splits == {split: len(part) for split, part in parts.items() if part}


def test_a_split_has_its_share_and_depends_on_seed_and_content_only(dataset, write_rows):
    rows = [{"prompt": str(i), "completion": "x"} for i in range(200)]
    forward, backward = write_rows(rows, "f.jsonl"), write_rows(rows[::-1], "b.jsonl")

    def parts(path: str, seed: int) -> list[set[str]]:
        files = dataset(path, auto_split=AutoSplit(validate_=0.1, test=0.2, seed=seed))
        return [set(said(files, split)) for split in (Split.TRAIN, Split.VALIDATE, Split.TEST)]

    assert [len(part) for part in parts(forward, 1)] == [140, 20, 40]
    assert parts(forward, 1) == parts(backward, 1) != parts(forward, 2)


def test_a_split_with_files_of_its_own_is_not_made(dataset, write_rows):
    train = write_rows([{"prompt": str(i), "completion": "x"} for i in range(20)])
    test = write_rows([{"prompt": "t", "completion": "x"}], "test.jsonl")
    files = dataset(train, splits={Split.TEST: [test]}, auto_split=AutoSplit(validate_=0.1, test=0.1))
    assert said(files, Split.TEST) == ["t"]
    assert len(said(files, Split.VALIDATE)) == 2 and len(said(files, Split.TRAIN)) == 18


def test_bad_rows_of_a_file_that_is_split_stay_with_train(dataset, write_rows):
    path = write_rows([{"prompt": str(i), "completion": "x"} for i in range(30)] + ["{"])
    files = dataset(path, auto_split=AutoSplit(validate_=0.3, test=0.3))
    bad = {
        split: [r.line for r in read_rows(files, split) if isinstance(r.value, Problem)] for split in Split
    }
    assert bad == {Split.TRAIN: [31], Split.VALIDATE: [], Split.TEST: []}


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_rows_to_split_are_all_trained_on(count, dataset, write_rows):
    files = dataset(
        write_rows([{"prompt": str(i), "completion": "x"} for i in range(count)]), auto_split=AutoSplit()
    )
    assert [len(said(files, split)) for split in (Split.TRAIN, Split.VALIDATE, Split.TEST)] == [count, 0, 0]


def test_the_digest_is_of_bytes_and_of_the_split_they_are_in(dataset, write_rows):
    a, b = write_rows([{"x": 1}], "a.jsonl"), write_rows([{"x": 2}], "b.jsonl")
    same = write_rows([{"x": 1}], "copy.jsonl")
    whole = content_digest(dataset(a, b))
    assert whole == content_digest(dataset(same, b)) and len(whole) == 64
    others = [dataset(b, a), dataset(a), dataset(a, splits={Split.TEST: [b]})]
    assert len({whole, *map(content_digest, others)}) == 4


def grouped(count: int, groups: int, labels: int = 1) -> list[dict]:
    return [
        {"prompt": str(i), "completion": "x", "meta": {"customer": i % groups}, "label": f"l{i % labels}"}
        for i in range(count)
    ]


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    count=st.integers(10, 80), groups=st.integers(3, 30), labels=st.integers(1, 4), seed=st.integers(0, 99)
)
def test_rows_of_one_group_never_fall_on_two_sides(write_rows, dataset, count, groups, labels, seed):
    split = AutoSplit(validate_=0.2, test=0.2, seed=seed, group_by="meta.customer")
    path = write_rows([row | {"label": None} for row in grouped(count, groups, labels)])
    files = dataset(path, auto_split=split, format="prompt-completion")

    customers = {split: {int(text) % groups for text in said(files, split)} for split in Split}

    assert sum(len(found) for found in customers.values()) == min(groups, count)
    assert all(customers.values())
    assert sum(len(said(files, split)) for split in Split) == count


def test_each_stratum_gives_its_share_to_each_split(write_rows, dataset):
    rows = grouped(200, 200, labels=1)
    for number, row in enumerate(rows):
        row["label"] = "rare" if number < 20 else "common"
    files = dataset(
        write_rows(rows), format="prompt-completion",
        auto_split=AutoSplit(validate_=0.1, test=0.2, seed=3, stratify_by="label"),
    )  # fmt: skip
    rare = {split: sum(int(text) < 20 for text in said(files, split)) for split in Split}
    assert rare == {Split.TRAIN: 14, Split.VALIDATE: 2, Split.TEST: 4}
    assert {split: len(said(files, split)) for split in Split} == {
        Split.TRAIN: 140, Split.VALIDATE: 20, Split.TEST: 40,
    }  # fmt: skip
    assert inspect(files).report.splits == {"train": 140, "validate": 20, "test": 40}


def test_many_small_strata_do_not_make_the_splits_larger_than_their_shares(write_rows, dataset):
    rows = grouped(300, 300, labels=100)
    files = dataset(
        write_rows(rows), format="prompt-completion",
        auto_split=AutoSplit(validate_=0.1, test=0.1, stratify_by="label"),
    )  # fmt: skip
    sizes = [len(said(files, split)) for split in (Split.TRAIN, Split.VALIDATE, Split.TEST)]
    assert sizes == [240, 30, 30]


def test_a_row_without_the_key_to_split_by_is_told(write_rows, dataset):
    rows = grouped(20, 5)
    del rows[3]["meta"]
    path = write_rows(rows)
    files = dataset(
        path,
        format="prompt-completion",
        auto_split=AutoSplit(validate_=0.2, test=0.2, group_by="meta.customer"),
    )
    (entry,) = inspect(files).report.reasons
    assert (entry.reason, entry.where) == ("no value to split by", [f"{path}:4"])
