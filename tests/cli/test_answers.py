"""Questions from files, comparisons into rows and pairs, what is said of an answer."""

import json

import pytest

from datatunerx.cli.answers import facts, questions_of
from datatunerx.cli.comparisons import keep, list_kept
from datatunerx.cli.errors import BadInput, CommandError
from datatunerx.client.comparisons import CONFIG_MAPS, KEY, LABEL, MAX_BYTES, Comparison, rows


def asked(text):
    return [{"role": "user", "content": text}]


def compared(*answers, messages=None):
    said = [
        {"model": name, "text": text} if text is not None else {"model": name, "error": {"message": "x"}}
        for name, text in answers
    ]
    return {"messages": messages or asked("Why?"), "answers": said}


def comparison(*questions):
    return Comparison(models=["base", "a", "b"], created="2026-01-01T00:00:00Z", questions=list(questions))


def test_a_file_of_lines_is_a_question_a_line(tmp_path):
    file = tmp_path / "q.txt"
    file.write_text("One?\n\nTwo?\n")
    assert questions_of(None, file, "Be short.") == [
        [{"role": "system", "content": "Be short."}, *asked("One?")],
        [{"role": "system", "content": "Be short."}, *asked("Two?")],
    ]


def test_rows_may_be_texts_questions_or_talks_whose_answer_is_left_out(tmp_path):
    file = tmp_path / "q.jsonl"
    talk = [*asked("Hi"), {"role": "assistant", "content": "Hello"}]
    rows = ["One?", {"question": "Two?"}, {"instruction": "Three."}, {"messages": talk}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert questions_of(None, file, None) == [asked(text) for text in ("One?", "Two?", "Three.", "Hi")]


def test_a_break_inside_of_a_text_ends_no_row(tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps("one\u2028and\x85two", ensure_ascii=False) + "\r\n")
    assert questions_of(None, file, None) == [asked("one\u2028and\x85two")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "q.jsonl:2: not JSON"),
        ('{"x": 1}', "q.jsonl:2: write"),
        ('{"messages": ["x"]}', "q.jsonl:2: messages: must be a list of"),
        ('{"messages": [{"content": "x"}]}', "q.jsonl:2: messages: must be a list of"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "q.jsonl:2: messages: .* with a question"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, line, said):
    file = tmp_path / "q.jsonl"
    file.write_text(f'"ok"\n{line}\n')
    with pytest.raises(BadInput, match=said):
        questions_of(None, file, None)


def test_a_question_or_a_file_and_not_both(tmp_path):
    for given in ((None, None), ("q", tmp_path / "f")):
        with pytest.raises(BadInput, match="give a question"):
            questions_of(*given, None)
    with pytest.raises(BadInput, match="No such file"):
        questions_of(None, tmp_path / "none.txt", None)


def test_the_preferred_answer_is_paired_with_each_other_one_that_differs():
    pairs = rows(
        comparison(
            compared(("base", "no"), ("a", "yes"), ("b", "yes")),
            compared(("base", "no"), ("a", "yes"), ("b", "no")),
            compared(("base", "no"), ("a", None), ("b", "x")),
            compared(("base", None), ("a", "yes"), ("b", "maybe")),
        ),
        "pairs",
        "a",
    )
    assert [(p["chosen"], p["rejected"]) for p in pairs] == [("yes", "no"), ("yes", "no"), ("yes", "maybe")]
    assert pairs[0]["prompt"] == "Why?"


def test_a_question_of_several_messages_keeps_them():
    talk = [{"role": "system", "content": "s"}, *asked("q")]
    one = comparison(compared(("base", "no"), ("a", "yes"), messages=talk))
    answer = {"role": "assistant", "content": "yes"}
    assert rows(one, "pairs", "a") == [
        {"prompt": talk, "chosen": [answer], "rejected": [answer | {"content": "no"}]}
    ]
    assert rows(one, "rows", "a") == [{"messages": [*talk, answer]}]


def test_votes_say_what_is_right_and_an_answer_later_in_a_talk_is_paired_with_none():
    first = compared(("base", "no"), ("a", "yes")) | {"vote": "a"}
    none_of_them = compared(("base", "no"), ("a", "yes")) | {"vote": ""}
    later = compared(("base", "no"), ("a", "yes")) | {"vote": "base"}
    later["answers"][0]["messages"] = [*asked("Why?"), {"role": "assistant", "content": "x"}, *asked("And?")]
    one = comparison(first, none_of_them, later)
    assert [(pair["chosen"], pair["rejected"]) for pair in rows(one, "pairs")] == [("yes", "no")]
    assert [row["messages"][-1]["content"] for row in rows(one, "rows")] == ["yes", "no"]
    assert len(rows(one, "rows")[1]["messages"]) == 4


def test_pairs_and_rows_are_read_as_the_data_they_are():
    from datatunerx.data.formats import conversation, layout_of
    from datatunerx.resources.enums import DataFormat

    one = comparison(compared(("base", "no"), ("a", "yes")))
    pair, row = rows(one, "pairs", "a")[0], rows(one, "rows", "a")[0]
    talk = conversation(pair, layout_of(pair, DataFormat.AUTO, {}))
    assert (talk.messages[-1]["content"], talk.rejected[-1]["content"]) == ("yes", "no")
    assert conversation(row, layout_of(row, DataFormat.AUTO, {})).messages[-1]["content"] == "yes"


async def test_a_comparison_too_large_for_an_object_is_refused_with_both_numbers():
    one = comparison(compared(("base", "x" * MAX_BYTES), ("a", "y")))
    with pytest.raises(CommandError, match="900,000"):
        await keep(None, "n", one, "default")


async def test_a_config_map_that_holds_no_comparison_hides_no_other_one(api, capsys):
    await keep(api, "monday", comparison(compared(("base", "x"), ("a", "y"))), "default")
    broken = {"name": "broken", "labels": {LABEL: "true"}}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": broken, "data": {KEY: "{}"}}
    await api.create_raw(CONFIG_MAPS, body, "default")
    with pytest.raises(CommandError, match="ConfigMap broken holds no comparison"):
        await list_kept(api, "default")
    assert "monday" in capsys.readouterr().out


def test_what_made_an_answer_is_on_one_line():
    answer = {
        "text": "x", "seconds": 1.5, "tokens": 30, "tokensPerSecond": 20.04,
        "identity": {"base": "b" * 64, "adapter": None, "template": "t" * 64, "seed": 0},
    }  # fmt: skip
    said = facts({"model": "a", "answer": answer})
    assert said == f"base {'b' * 12}, template {'t' * 12}, seed 0, 1.50 s, 30 tokens, 20 tokens/s"
