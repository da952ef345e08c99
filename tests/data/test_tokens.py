"""Tokens are counted exactly, cut as told, cached by everything they depend on, and mapped from disk."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datatunerx.data import ChatTemplate, DataError, content_digest, questions, tokenise
from datatunerx.data import cache as cache_module
from datatunerx.data import pieces as pieces_module
from datatunerx.data import tokens as tokens_module
from datatunerx.data.digests import file_digest
from datatunerx.resources.enums import Split, TooLong, Untrainable
from datatunerx.resources.material import AutoSplit


@pytest.fixture
def tokenised(tokenizer_dir, tmp_path):
    def make(files: Any, **more: Any) -> Any:
        settings = {
            "tokenizer_dir": tokenizer_dir, "template": None, "cutoff_length": 1000,
            "too_long": TooLong.TRUNCATE, "untrainable": Untrainable.DROP,
            "cache_dir": tmp_path / "cache", "model_digest": "m",
        } | more  # fmt: skip
        return tokenise(files, settings.pop("split", Split.TRAIN), **settings)

    return make


@pytest.fixture
def uneven(chat_row):
    """Rows whose prompts and answers grow: some fit, some are cut, some lose their answer."""
    return [chat_row("why " * (i % 40), "so " * (i % 17 + 1)) for i in range(1, 120)] + [
        chat_row("only a question"), "{broken", chat_row("", "x"),
    ]  # fmt: skip


def counted(path: str, tokenizer_dir: Path, cutoff: int) -> dict[str, Any]:
    """The same numbers by other means: text by hand, tokens one by one with the bare tokenizer."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    found: dict[str, Any] = {
        "read": 0,
        "bad": [],
        "untrainable": [],
        "truncated": 0,
        "lengths": [],
        "trained": 0,
        "cut": 0,
        "ended": 0,
    }
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        found["read"] += 1
        try:
            user, answer = (turn["content"] for turn in json.loads(line)["messages"])
        except ValueError:
            found["bad"].append(number)
            continue
        if not user:
            found["bad"].append(number)
            continue
        prompt = tokenizer.encode(f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n").ids
        said = tokenizer.encode(f"{answer}<|im_end|>").ids
        total = len(prompt) + len(said) + 1  # and the line break after the turn
        trained = max(0, min(len(said), cutoff - len(prompt)))
        if not trained:
            found["untrainable"].append(number)
            continue
        found["truncated"] += total > cutoff
        found["lengths"].append(min(total, cutoff))
        found["trained"] += trained
        found["cut"] += max(0, total - cutoff)
        found["ended"] += trained == len(said)
    return found


@pytest.mark.parametrize("cutoff", [30, 64, 200])
def test_the_report_equals_an_independent_count(
    cutoff, uneven, tokenised, dataset, write_rows, tokenizer_dir
):
    path = write_rows(uneven)
    rows = tokenised(dataset(path), cutoff_length=cutoff)
    expected = counted(path, tokenizer_dir, cutoff)
    report = rows.report

    assert (report.read, report.kept, report.truncated) == (
        expected["read"], len(expected["lengths"]), expected["truncated"],
    )  # fmt: skip
    assert report.dropped == report.read - report.kept == len(expected["bad"]) + len(expected["untrainable"])
    reasons = {entry.reason: entry for entry in report.reasons}
    dropped = reasons.pop("no trained token within cutoffLength", None)
    assert (dropped.count if dropped else 0) == len(expected["untrainable"])
    assert (dropped.where if dropped else []) == [f"{path}:{n}" for n in expected["untrainable"][:20]]
    bad = {place for reason in reasons.values() for place in reason.where}
    assert bad == {f"{path}:{n}" for n in expected["bad"]}
    lengths = sorted(expected["lengths"])
    assert report.tokens is not None
    assert report.tokens.dump() == {
        "p50": lengths[-(-len(lengths) * 50 // 100) - 1],
        "p95": lengths[-(-len(lengths) * 95 // 100) - 1],
        "max": lengths[-1],
        "total": sum(lengths),
        "trained": expected["trained"],
        "rows": len(lengths),
        "turns": len(lengths),
        "turnsEnded": expected["ended"],
    }
    assert report.cut_tokens == expected["cut"]
    below = 0
    for one in report.histogram:
        assert one.rows == sum(below < length <= one.up_to for length in lengths)
        below = one.up_to
    assert sum(one.rows for one in report.histogram) == len(lengths)
    assert rows.lengths.tolist() == expected["lengths"] == [len(ids) for ids, _ in rows]
    assert sum(int((labels != -100).sum()) for _, labels in rows) == expected["trained"]


def test_rows_are_mapped_and_say_where_they_come_from(
    tokenised, dataset, write_rows, chat_row, tokenizer_dir
):
    path = write_rows([chat_row("a", "b"), "{", chat_row("c", "d", "e", "f")])
    rows = tokenised(dataset(path))

    assert len(rows) == 2 and rows.row_numbers == [f"{path}:1", f"{path}:3"]
    assert rows.where(1) == rows.where(-1) == f"{path}:3"
    ids, labels = rows[-1]
    expected = ChatTemplate.load(tokenizer_dir).encode(chat_row("c", "d", "e", "f")["messages"])
    assert isinstance(ids, np.memmap) and ids.dtype == labels.dtype == np.int32
    assert (ids.tolist(), labels.tolist()) == (expected.ids.tolist(), expected.labels.tolist())
    assert not ids.flags.writeable
    with pytest.raises(IndexError):
        rows[2]


def test_rows_longer_than_the_cutoff_are_dropped_if_told_so(tokenised, dataset, write_rows, chat_row):
    path = write_rows([chat_row("a", "b"), chat_row("a", "b " * 99)])
    rows = tokenised(dataset(path), cutoff_length=50, too_long=TooLong.DROP)
    (entry,) = rows.report.reasons
    assert (entry.reason, entry.count, entry.where) == ("longer than cutoffLength", 1, [f"{path}:2"])
    assert (rows.report.kept, rows.report.truncated) == (1, 0)


def test_a_row_longer_than_the_cutoff_is_an_error_if_told_so(tokenised, dataset, write_rows, chat_row):
    path = write_rows([chat_row("a", "b"), chat_row("a", "b " * 99)])
    with pytest.raises(DataError, match=rf"{path}:2: longer than cutoffLength .*2\d\d tokens"):
        tokenised(dataset(path), cutoff_length=50, too_long=TooLong.ERROR)


def test_a_row_without_a_trained_token_is_an_error_if_told_so(tokenised, dataset, write_rows, chat_row):
    path = write_rows([chat_row("a", "b"), chat_row("a " * 99, "b")])
    with pytest.raises(
        DataError, match=rf"{path}:2: no trained token .*its prompt is 2\d\d tokens"
    ) as caught:
        tokenised(dataset(path), cutoff_length=50, untrainable=Untrainable.ERROR)
    assert caught.value.fix.startswith("raise cutoffLength to at least 2")


def test_a_cutoff_that_leaves_no_trained_token_is_refused_with_one_that_does(
    tokenised, dataset, write_rows, chat_row, tokenizer_dir
):
    rows = [chat_row("a " * length, "b") for length in (30, 50, 40)]
    path = write_rows(rows)
    longest = len(ChatTemplate.load(tokenizer_dir).prompt_ids(rows[1]["messages"][:1]))
    with pytest.raises(DataError) as caught:
        tokenised(dataset(path), cutoff_length=20)
    assert str(caught.value) == (
        f"{path}: cutoffLength 20 leaves no trained token in any row; the longest prompt is {longest} "
        f"tokens. Fix: raise cutoffLength to at least {longest + 1}"
    )
    assert tokenised(dataset(path), cutoff_length=longest + 1).report.kept == 3


def test_a_cutoff_shorter_than_every_row_is_refused_when_long_rows_are_dropped(
    tokenised, dataset, write_rows, chat_row
):
    path = write_rows([chat_row("a", "b " * 99)])
    with pytest.raises(
        DataError, match=r"every row is longer than cutoffLength 50; the shortest is \d+ tokens"
    ):
        tokenised(dataset(path), cutoff_length=50, too_long=TooLong.DROP)


def test_a_split_of_bad_rows_is_refused_with_the_first_of_them(tokenised, dataset, write_rows):
    path = write_rows(["{", "[]"])
    with pytest.raises(DataError, match=f"no row of the train split can be used: {path}:1: bad JSON") as told:
        tokenised(dataset(path))
    assert str(told.value).count("Fix: ") == 1 and f"{path}:2: a row is not an object" in str(told.value)


def test_rows_that_the_template_refuses_are_dropped(tokenised, dataset, write_rows, chat_row):
    strict = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    path = write_rows([chat_row("a", "b"), chat_row("a", "b", system="s")])
    report = tokenised(dataset(path), template=strict).report
    assert [(entry.reason, entry.where) for entry in report.reasons] == [
        ("the chat template does not take the row", [f"{path}:2"])
    ]


def test_what_a_template_would_leave_out_of_a_row_is_the_reason_that_is_counted(
    tokenised, dataset, write_rows, chat_row
):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    path = write_rows([chat_row("a", "b"), chat_row("a", "b") | {"tools": tools}])
    report = tokenised(dataset(path)).report
    assert [(entry.reason, entry.where) for entry in report.reasons] == [
        ("chat template: the template does not write tool definitions", [f"{path}:2"])
    ]


UNWANTED = {
    "pairs": ({"prompt": "q", "chosen": "g", "rejected": "b"}, "rejected: .*from pairs.*DPO.*mapTo: chosen"),
    "labels": ({"prompt": "q", "completion": "g", "label": True}, "label: .*from labels.*KTO"),
}


@pytest.mark.parametrize("name", UNWANTED)
def test_answers_that_are_not_wanted_are_not_learnt_by_mistake(name, tokenised, dataset, write_rows):
    row, said = UNWANTED[name]
    with pytest.raises(DataError, match=said):
        tokenised(dataset(write_rows([row])))


def test_the_chosen_answers_alone_are_learnt_when_asked_for(tokenised, dataset, write_rows):
    path = write_rows([{"prompt": "q", "chosen": "good", "rejected": "bad"}])
    pairs = tokenised(dataset(path, features={"completion": "chosen"}))
    plain = tokenised(dataset(write_rows([{"prompt": "q", "completion": "good"}], "plain.jsonl")))
    assert pairs[0][0].tolist() == plain[0][0].tolist()


def test_plain_text_is_learnt_whole_and_asked_nothing(tokenised, dataset, write_rows, tokenizer_dir):
    path = write_rows([{"text": "Once <|im_start|> upon."}])
    ids, labels = tokenised(dataset(path))[0]
    encoder = ChatTemplate.load(tokenizer_dir).encoder
    written = encoder._plain.decode(ids.tolist(), skip_special_tokens=False)
    assert written == "Once <|im_start|> upon.<|im_end|>"
    assert encoder.added["<|im_start|>"] not in ids.tolist()  # what a user wrote is no control token
    assert labels[1:].tolist() == ids[1:].tolist()
    with pytest.raises(DataError, match="plain text asks nothing"):
        questions(dataset(path), Split.TRAIN)


def test_an_answer_that_is_labelled_bad_is_no_reference(dataset, write_rows):
    rows = [{"prompt": "q", "completion": str(i), "label": i > 0} for i in range(2)]
    bad = []
    asked = questions(dataset(write_rows(rows)), Split.TRAIN, on_bad=bad.append)
    assert [one.reference for one in asked] == ["1"] and [one.line for one in bad] == [1]


def test_a_split_without_rows_gives_no_rows(tokenised, dataset, write_rows, chat_row):
    rows = tokenised(dataset(write_rows([chat_row("a", "b")])), split=Split.TEST)
    assert len(rows) == 0 and list(rows) == [] and rows.report.read == 0


def test_progress_is_told_in_rows_and_rows_per_second(tokenised, dataset, write_rows, chat_row, monkeypatch):
    path = write_rows([chat_row("a", "b")] * 10)
    monkeypatch.setattr(pieces_module, "PIECE_BYTES", Path(path).stat().st_size * 4 // 10)
    said: list[tuple[str, int, int]] = []

    def tell(rows: int, speed: float, total: int, doing: str) -> None:
        assert speed > 0
        said.append((doing, rows, total))

    tokenised(dataset(path, rows={Split.TRAIN: 10}), on_progress=tell)
    assert said == [("tokenising", 4, 10), ("tokenising", 8, 10), ("tokenising", 10, 10)]
    said.clear()
    tokenised(dataset(path, auto_split=AutoSplit(validate_=0, test=0.4)), on_progress=tell)
    assert said[:3] == [("dividing the rows of", 4, 10), ("dividing the rows of", 8, 10),
                        ("dividing the rows of", 10, 10)]  # fmt: skip
    assert said[3:] and {doing for doing, _, _ in said[3:]} == {"tokenising"}


def test_files_that_changed_since_their_inspection_are_refused(tokenised, dataset, write_rows, chat_row):
    files = dataset(write_rows([chat_row("a", "b")]))
    files.digest = content_digest(files)
    tokenised(files)
    write_rows([chat_row("a", "c")])
    with pytest.raises(DataError, match="the files of dataset d changed since they were inspected"):
        tokenised(files)


# -- the cache


def test_changing_nothing_hits_the_cache(tokenised, dataset, write_rows, chat_row):
    files = dataset(write_rows([chat_row("a", "b")]))
    first, second = tokenised(files), tokenised(files)
    assert (first.from_cache, second.from_cache) == (False, True)
    assert first.report == second.report and first.row_numbers == second.row_numbers
    assert [part.tolist() for part in first[0]] == [part.tolist() for part in second[0]]


CHANGES: dict[str, Any] = {
    "content": lambda c: c["write"]([c["row"]("a", "c")]),
    "tokenizer": lambda c: {"tokenizer_dir": c["tokenizer"](eos="<|im_end|>")},
    "template": lambda c: {"template": "zephyr"},
    "cutoff": lambda c: {"cutoff_length": 999},
    "too long": lambda c: {"too_long": TooLong.DROP},
    "untrainable": lambda c: {"untrainable": Untrainable.ERROR},
    "model": lambda c: {"model_digest": "n"},
    "masking": lambda c: c["patch"].setattr(tokens_module, "MASKING_VERSION", 99),
    "code": lambda c: c["patch"].setattr(tokens_module, "code_version", lambda: "other"),
    "library": lambda c: c["patch"].setattr(tokens_module, "version", lambda name: "0"),
    "format": lambda c: {"format": "messages"},
    "split": lambda c: {"split": Split.VALIDATE},
}


@pytest.mark.parametrize("change", CHANGES)
def test_changing_any_one_thing_misses_the_cache(
    change, tokenised, dataset, write_rows, chat_row, make_tokenizer, monkeypatch
):
    path = write_rows([chat_row("a", "b")])
    tokenised(dataset(path))
    context = {"write": write_rows, "row": chat_row, "tokenizer": make_tokenizer, "patch": monkeypatch}
    made = CHANGES[change](context)
    if change == "tokenizer":
        document = json.loads((made["tokenizer_dir"] / "tokenizer.json").read_text())
        (made["tokenizer_dir"] / "tokenizer.json").write_text(
            json.dumps(document | {"version": "1.0"}, indent=7)
        )
    more = made if isinstance(made, dict) else {}
    files = dataset(path, format=more.pop("format")) if "format" in more else dataset(path)

    assert not tokenised(files, **more).from_cache
    assert tokenised(files, **more).from_cache


def test_a_split_made_by_another_seed_misses_the_cache(tokenised, dataset, write_rows, chat_row):
    path = write_rows([chat_row(str(i), "b") for i in range(20)])
    tokenised(dataset(path, auto_split=AutoSplit(seed=1)))
    assert not tokenised(dataset(path, auto_split=AutoSplit(seed=2))).from_cache
    assert tokenised(dataset(path, auto_split=AutoSplit(seed=1))).from_cache


def test_the_code_version_is_that_of_the_sources():
    whole = cache_module.code_version()
    assert len(whole) == 64 and whole == cache_module.code_version()


@pytest.mark.parametrize("name", ["ids.bin", "starts.bin", "meta.json"])
def test_a_cache_that_is_not_whole_is_made_again(name, tokenised, dataset, write_rows, chat_row):
    files = dataset(write_rows([chat_row("a", "b")] * 3))
    first = tokenised(files)
    expected = [part.tolist() for part in first[2]]
    damaged = first.folder / name
    damaged.write_bytes(damaged.read_bytes()[:-8])

    again = tokenised(files)

    assert not again.from_cache and [part.tolist() for part in again[2]] == expected
    assert tokenised(files).from_cache


def test_a_build_that_fails_leaves_nothing_behind(tokenised, dataset, write_rows, chat_row, tmp_path):
    files = dataset(write_rows([chat_row("a", "b " * 99)]))
    with pytest.raises(DataError):
        tokenised(files, cutoff_length=50, too_long=TooLong.ERROR)
    assert [path for path in (tmp_path / "cache" / "tokens").iterdir() if path.name != ".lock"] == []


def test_rows_are_published_by_one_rename_after_they_are_synced(
    tokenised, dataset, write_rows, chat_row, monkeypatch
):
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(
        os, "fsync", lambda handle: (done.append(os.readlink(f"/proc/self/fd/{handle}")), fsync(handle))
    )
    monkeypatch.setattr(Path, "rename", lambda self, to: (done.append("rename"), rename(self, to))[1])
    tokenised(dataset(write_rows([chat_row("a", "b")])))
    before = {Path(name).name for name in done[: done.index("rename")]}
    assert before >= {"ids.bin", "labels.bin", "starts.bin", "origins.bin", "meta.json"}
    assert Path(done[-1]).name == "tokens"


RACER = """
import json, sys
from pathlib import Path
from datatunerx.data import tokenise
from datatunerx.resources.enums import Split, TooLong, Untrainable
from datatunerx.runs.plan import DataFiles
path, tokenizer, cache = sys.argv[1:]
files = DataFiles(name="d", splits={Split.TRAIN: [path]})
print("ready", flush=True)
sys.stdin.readline()
rows = tokenise(files, Split.TRAIN, tokenizer_dir=Path(tokenizer), template=None, cutoff_length=100,
    too_long=TooLong.TRUNCATE, untrainable=Untrainable.DROP, cache_dir=Path(cache), model_digest="m")
print(json.dumps([len(rows), sum(int(ids.sum()) for ids, _ in rows), rows.from_cache]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("broken", [False, True])
def test_two_processes_at_once_both_get_whole_rows(broken, write_rows, chat_row, tokenizer_dir, tmp_path):
    path = write_rows([chat_row(f"why {i}", f"so {i}") for i in range(300)])
    command = [sys.executable, "-c", RACER, path, str(tokenizer_dir), str(tmp_path / "cache")]

    def race(count: int) -> list[list[Any]]:
        racers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(count)
        ]
        for racer in racers:
            assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        answers = [json.loads(racer.communicate(timeout=60)[0]) for racer in racers]
        assert [racer.returncode for racer in racers] == [0] * count
        return answers

    if broken:
        ((*expected, _),) = race(1)
        (made,) = [p for p in (tmp_path / "cache" / "tokens").iterdir() if p.name != ".lock"]
        (made / "labels.bin").write_bytes(b"")
    first, second = race(2)
    assert first[:2] == second[:2]
    assert not broken or first[:2] == expected
    (left,) = [p for p in (tmp_path / "cache" / "tokens").iterdir() if p.name != ".lock"]
    assert len(left.name) == 64


FULL = """
import resource, sys
from pathlib import Path
from datatunerx.data import tokenise
from datatunerx.resources.enums import Split, TooLong, Untrainable
from datatunerx.runs.plan import DataFiles
path, tokenizer, cache, room = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(room), resource.RLIM_INFINITY))
try:
    tokenise(DataFiles(name="d", splits={Split.TRAIN: [path]}), Split.TRAIN, tokenizer_dir=Path(tokenizer),
        template=None, cutoff_length=100, too_long=TooLong.TRUNCATE, untrainable=Untrainable.DROP,
        cache_dir=Path(cache))
except OSError as error:
    print(type(error).__name__, sorted(p.name for p in Path(cache, "tokens").iterdir()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("room", [100, 20_000, 40_000])
def test_a_disk_without_room_is_told_and_leaves_nothing_behind(
    room, write_rows, chat_row, tokenizer_dir, tmp_path
):
    path = write_rows([chat_row(f"why {i}", f"so {i}") for i in range(500)])
    command = [sys.executable, "-c", FULL, path, str(tokenizer_dir), str(tmp_path / "cache"), str(room)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "OSError ['.lock']"), done.stderr


# -- questions


def test_a_question_is_everything_before_the_last_answer(dataset, write_rows, chat_row):
    path = write_rows([chat_row("a", "b", "c", "d", system="s"), "{", chat_row("e", "f", "thanks")])
    first, second = questions(dataset(path), Split.TRAIN)
    assert [turn["content"] for turn in first.messages] == ["s", "a", "b", "c"]
    assert (first.reference, first.row) == ("d", f"{path}:1")
    assert (second.messages[-1]["content"], second.reference, second.row) == ("e", "f", f"{path}:3")
    assert len(questions(dataset(path), Split.TRAIN, limit=1)) == 1


def test_bad_rows_among_the_questions_are_told(dataset, write_rows, chat_row):
    bad = []
    questions(dataset(write_rows(["{", chat_row("a", "b"), "["])), Split.TRAIN, on_bad=bad.append)
    assert [problem.line for problem in bad] == [1, 3]


def test_questions_from_files_that_changed_since_they_were_inspected_are_refused(
    dataset, write_rows, chat_row
):
    files = dataset(write_rows([chat_row("a", "b")]))
    files.digest = content_digest(files)
    assert len(questions(files, Split.TRAIN)) == 1
    write_rows([chat_row("a", "c")])
    with pytest.raises(DataError, match="the files of dataset d changed since they were inspected"):
        questions(files, Split.TRAIN)


def test_a_split_without_a_question_in_it_is_refused(dataset, write_rows):
    with pytest.raises(DataError, match="bad JSON"):
        questions(dataset(write_rows(["{"])), Split.TRAIN)


def test_a_question_with_tools_is_asked_with_the_tokens_it_was_trained_on(
    tokenised, dataset, write_rows, tokenizer_dir
):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    called = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
    }
    turns = [{"role": "user", "content": "a"}, called, {"role": "tool", "content": "1"}]
    path = write_rows(
        [{"messages": [*turns, {"role": "assistant", "content": "one"}], "tools": tools},
         {"messages": turns[:2], "tools": tools}]
    )  # fmt: skip
    chat = ChatTemplate.load(tokenizer_dir, "qwen")
    bad = []

    (asked,) = questions(dataset(path), Split.TRAIN, on_bad=bad.append)

    prompt = chat.prompt_ids(asked.messages, asked.tools)
    trained = tokenised(dataset(path), template="qwen")[0][0].tolist()
    assert trained[: len(prompt)] == prompt and "# Tools" in chat.encoder.decode(np.array(prompt))
    assert [(one.line, one.reason) for one in bad] == [(2, "the last answer calls a tool and says nothing")]


def test_a_file_that_has_not_changed_is_not_read_again_for_its_digest(write_rows, chat_row, tmp_path):
    path = Path(write_rows([chat_row("a", "b")]))
    memory = tmp_path / "digests"
    first = file_digest(str(path), memory)
    assert not list(memory.glob("*"))  # it changed just now, and may change again unseen
    old = path.stat().st_mtime - 100
    os.utime(path, (old, old))
    time.sleep(2.1)  # the time at which it was last touched cannot be set
    assert file_digest(str(path), memory) == first and len(list(memory.glob("*"))) == 1
    note = next(memory.glob("*"))
    note.write_text(note.read_text().replace(first, "remembered"))
    assert file_digest(str(path), memory) == "remembered"
    path.write_text(path.read_text().replace("b", "c"))
    os.utime(path, (old, old))  # as it was before, with the same size
    assert file_digest(str(path), memory) not in ("remembered", first)
