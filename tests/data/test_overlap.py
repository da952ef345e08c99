"""The report says which rows repeat others, and which held-out rows training has seen."""

import random
import subprocess
import sys

import pytest

from datatunerx.data import Conversation, inspect
from datatunerx.data.languages import language
from datatunerx.data.overlap import HeldOut, Signed, signed
from datatunerx.resources.enums import Split
from datatunerx.resources.material import AutoSplit

WORDS = ["order", "parcel", "refund", "password", "invoice", "account", "login", "delay", "broken", "charge"]


def text(seed: int, words: int = 60) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words)) + f" {seed}"


def overlap(files):
    found = inspect(files).report.overlap
    assert found is not None
    return found


def test_exact_and_near_copies_across_splits_are_counted_with_their_places(dataset, write_rows, chat_row):
    train = [chat_row(text(n), "yes") for n in range(40)] + [chat_row(text(3), "yes")]
    test = [
        chat_row(text(7), "yes"),  # exactly what train says
        chat_row(text(5) + " please", "yes"),  # nearly
        chat_row(text(9).upper().replace(" ", "  "), "yes"),  # the same but for case and spaces
        chat_row(text(1000), "yes"),  # of the same words, yet another
    ]
    files = dataset(write_rows(train), splits={Split.TEST: [write_rows(test, "test.jsonl")]})
    found = overlap(files)
    assert (found.duplicates, found.held_out, found.compared) == (2, 4, 4)
    assert (found.leaked, found.near) == (1, 2)
    first, second = (place.split(" ~ ") for place in found.where)
    assert first[0].endswith("test.jsonl:2") and first[1].endswith("train.jsonl:6")
    assert second[0].endswith("test.jsonl:3") and second[1].endswith("train.jsonl:10")


def test_near_copies_are_found_in_chinese(dataset, write_rows, chat_row):
    said = "我上周在你们网站订购的耳机到现在还没有发货，请帮我查询一下订单的状态，谢谢。" * 3
    train, test = (
        [chat_row(said, "好的"), chat_row("退货政策是什么？", "七天无理由退货。")],
        [chat_row(said + "急", "好的")],
    )
    files = dataset(write_rows(train), splits={Split.VALIDATE: [write_rows(test, "v.jsonl")]})
    found = overlap(files)
    assert (found.leaked, found.near) == (0, 1)


def test_a_split_that_is_made_holds_no_exact_copy_but_may_hold_near_ones(dataset, write_rows, chat_row):
    rows = [chat_row(text(n) + tail, "yes") for n in range(50) for tail in ("", "", " please")]
    found = overlap(dataset(write_rows(rows), auto_split=AutoSplit(validate_=0.2, test=0.2)))
    assert (found.duplicates, found.leaked, found.held_out, found.compared) == (50, 0, 60, 60)
    assert 15 <= found.near <= 60


def test_without_held_out_rows_there_is_nothing_to_leak(dataset, write_rows, chat_row):
    found = overlap(dataset(write_rows([chat_row("a", "b")] * 3)))
    assert found.dump() == {"duplicates": 2, "heldOut": 0, "leaked": 0, "near": 0, "compared": 0, "where": []}


SAID = {
    "zh": ["这样不好", "我的订单在哪里？", "我想买 iPhone 15 Pro Max 手机", "好的", "請問如何重設我的密碼？"],
    "en": ["How do I reset my password?", "My order 4711 has not arrived, where is it?", "What is this?"],
    "ja": ["東京は日本の首都です", "パスワードをリセットするにはどうすればよいですか"],
    "ko": ["비밀번호를 어떻게 재설정하나요?"],
    "ru": ["Как мне сбросить пароль?"],
    "de": ["Wie kann ich mein Passwort zurücksetzen?"],
    "und": ["", "12345", "{}", "ok"],
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_languages_are_told(name):
    assert {said: language(said) for said in SAID[name]} == dict.fromkeys(SAID[name], name)


def test_the_language_mix_is_that_of_the_rows(dataset, write_rows, chat_row):
    zh = [chat_row(f"第{n}个订单在哪里？", "已经发货。") for n in range(30)]
    en = [chat_row(f"Where is my order number {n}?", "It has been sent.") for n in range(10)]
    report = inspect(dataset(write_rows(zh + en))).report
    assert [(one.name, one.rows) for one in report.languages] == [("zh", 30), ("en", 10)]


LARGE = """
from pathlib import Path
import sys
from datatunerx.data import Conversation, inspect
from datatunerx.resources.enums import Split
from datatunerx.resources.material import AutoSplit
from datatunerx.runs.plan import DataFiles
splits = {Split.TRAIN: [sys.argv[1]], Split.TEST: [sys.argv[2]]}
found = inspect(DataFiles(name="d", splits=splits, auto_split=AutoSplit(validate_=0))).report
peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
print(found.read, found.overlap.near, peak >> 10)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_train_rows(tmp_path):
    def size(rows: int) -> list[int]:
        for name, of in (("train", range(rows)), ("test", range(0, 2000, 100))):
            lines = (f'{{"prompt": "{text(n, 40)} {name}", "completion": "yes"}}\n' for n in of)
            (tmp_path / name).with_suffix(".jsonl").write_text("".join(lines))
        command = [sys.executable, "-c", LARGE, str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [int(word) for word in done.stdout.split()]

    small, large = size(2000), size(20_000)
    assert (small[1], large[1]) == (20, 20) and large[2] - small[2] < 30


def test_a_held_out_row_that_is_found_is_put_aside(chat_row):
    """Of rows that are all alike each would meet each: that many comparisons never end."""

    def alike(number: int):
        text = "the same long text in every row, but for one number at its very end, as of a form " * 3
        return [(Conversation(chat_row(f"{text} {number}", "yes")["messages"]), f"{number}")]

    index = HeldOut()
    index.add(signed(alike(0)))
    assert index.near(signed(alike(0))) == {}  # an exact copy is none
    assert index.near(signed(alike(1))) == {0: "1"}
    assert index.near(signed(alike(2))) == {}
    assert index.where({0: "1"}) == ["0 ~ 1"]


def test_rows_are_as_near_as_their_runs_of_characters_are_common(chat_row):
    def of(texts: list[str]) -> Signed:
        rows = ((Conversation(chat_row(said, "")["messages"][:1]), "x") for said in texts)
        (block,) = signed(rows)
        return block

    words = text(3, 120).split()
    texts = [" ".join(words[:kept]) for kept in (120, 118, 110, 90, 60, 30)] + [
        "Übung 東京 \U0001f600 ok",
        "ab",
        "abc",
    ]
    block = of(texts)
    runs = [{said[n : n + 5] for n in range(max(1, len(said) - 4))} for said in map(str.casefold, texts)]
    for one, mine in zip(block.minima, runs, strict=True):
        for other, theirs in zip(block.minima, runs, strict=True):
            true = len(mine & theirs) / len(mine | theirs)
            assert abs((one == other).mean() - true) <= 0.15  # three times the deviation of 128 permutations
    assert (of(texts[:1]).minima[0] == block.minima[0]).all()  # whatever stands beside it


def test_held_out_rows_that_say_the_same_are_all_found(chat_row):
    said = text(3, 60)
    rows = [(Conversation(chat_row(said, "yes")["messages"]), f"t:{n}") for n in range(70)]
    index = HeldOut()
    assert index.add(signed([*rows, (Conversation(chat_row(text(9, 60), "no")["messages"]), "t:70")])) == 71
    assert index.near(signed(rows[:1])) == {}
    near = (Conversation(chat_row(said + " please", "yes")["messages"]), "a:1")
    assert index.near(signed([near])) == dict.fromkeys(range(70), "a:1")
    assert index.near(signed([near])) == {}
