"""A model as judge, over real HTTP on loopback: marks are read, and what is no mark is missing, never 0."""

import time

import pytest

from datatunerx.resources.finetune import Endpoint, Judge, SecretKeyRef
from datatunerx.scoring import Prediction, ScoringError, judge
from datatunerx.scoring.endpoint import MAX_DEAF, ask, key_problem
from datatunerx.scoring.judge import mark_of, problem, prompt_of

ROWS = [Prediction(n, f"question {n}", f"reference {n}", f"answer {n}") for n in range(6)]


def made(fake_endpoint, **fields):
    return Judge(url=fake_endpoint.url, model="judge-1", **{"retries": 0, "timeout_seconds": 5} | fields)


def test_marks_come_back_in_order_and_the_judge_sees_question_reference_and_answer(fake_endpoint):
    fake_endpoint.script(replies=["Fine. [[7]]"])
    verdicts = judge(made(fake_endpoint, concurrency=1), ROWS, "s3cret")
    assert [v.mark for v in verdicts] == [7.0] * 6 and [v.row for v in verdicts] == list(range(6))
    first = fake_endpoint.asked[0]
    assert first["path"] == "/v1/chat/completions" and first["key"] == "Bearer s3cret"
    assert first["body"]["model"] == "judge-1" and first["body"]["temperature"] == 0
    said = first["body"]["messages"][0]["content"]
    assert all(part in said for part in ("question 0", "reference 0", "answer 0", "from\n1 (not"))


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("[[3]]", 3.0), ("first [[2]], no, [[9.5]]", 9.5), ('{"score": 4}', 4.0), ("[[11]]", None),
        ("seven", None), ("7", None), ('{"score": true}', None), ('{"score": NaN}', None), ("[[-1]]", None),
        ("", None), ('["score"]', None), ("[" * 100_000, None),
    ],
)  # fmt: skip
def test_a_mark_is_read_only_where_one_is_plainly_said_and_on_the_scale(text, mark):
    assert mark_of(text, 1, 10) == mark


def test_braces_in_an_answer_are_no_slots():
    wanted = Judge(url="https://j/v1", model="m", prompt="{answer}|{question}|{other}")
    assert prompt_of(wanted, Prediction(0, "q", "r", "{question}")) == "{question}|q|{other}"


def test_verdicts_that_cannot_be_read_are_missing_and_too_many_of_them_leave_no_score(fake_endpoint):
    fake_endpoint.script(replies=["[[8]]", "I cannot say", "[[6]]"])
    verdicts = judge(made(fake_endpoint, concurrency=1), ROWS, None)
    assert [v.mark for v in verdicts] == [8.0, None, 6.0, 8.0, None, 6.0] and problem(verdicts) is None
    assert all(request["key"] is None for request in fake_endpoint.asked)
    fake_endpoint.script(replies=["no idea"])
    assert "6 of 6 answers have no mark; row 0: no idea" in problem(judge(made(fake_endpoint), ROWS, None))


def test_it_is_asked_again_after_a_busy_moment_and_only_so_often(fake_endpoint):
    fake_endpoint.script(status=503, bad=1)
    assert ask(made(fake_endpoint, retries=1), [[{"role": "user", "content": "a"}]], {}, None)[0].text == "ok"
    assert len(fake_endpoint.asked) == 2
    fake_endpoint.script(status=500)
    reply = ask(made(fake_endpoint, retries=1), [[{"role": "user", "content": "a"}]], {}, None)[0]
    assert reply.text is None and "HTTP 500" in reply.why and "(2 tries)" in reply.why
    assert len(fake_endpoint.asked) == 4


def test_a_refusal_is_not_asked_again_and_never_shows_the_key(fake_endpoint):
    fake_endpoint.script(status=401, echo=True)
    reply = ask(made(fake_endpoint, retries=3), [[{"role": "user", "content": "a"}]], {}, "s3cret")[0]
    assert len(fake_endpoint.asked) == 1 and "HTTP 401" in reply.why
    assert "s3cret" not in reply.why and "***" in reply.why


def test_who_does_not_answer_in_time_is_given_up_and_the_rest_is_not_asked(fake_endpoint):
    fake_endpoint.script(sleep=3)
    start = time.monotonic()
    asked = [[{"role": "user", "content": "a"}]] * 40
    replies = ask(made(fake_endpoint, timeout_seconds=1, concurrency=4), asked, {}, None)
    assert time.monotonic() - start < 8
    assert all(reply.text is None for reply in replies) and len(fake_endpoint.asked) < 2 * MAX_DEAF + 4
    assert "no answer within 1 s" in replies[0].why and "not asked after" in replies[-1].why


def test_no_more_are_under_way_than_asked_for(fake_endpoint):
    fake_endpoint.script(sleep=0.05)
    ask(made(fake_endpoint, concurrency=3), [[{"role": "user", "content": "a"}]] * 20, {}, None)
    assert max(request["most"] for request in fake_endpoint.asked) <= 3


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"choices": []}',
        '{"choices": [{"message": {"content": null}}]}',
        '{"choices": [5]}',
    ],
)
def test_a_reply_that_is_no_completion_is_no_answer(fake_endpoint, raw):
    fake_endpoint.script(raw=raw)
    reply = ask(made(fake_endpoint), [[{"role": "user", "content": "a"}]], {}, None)[0]
    assert reply.text is None and reply.why


def test_a_redirect_is_not_followed(fake_endpoint):
    fake_endpoint.script(redirect=f"{fake_endpoint.url}/elsewhere")
    reply = ask(made(fake_endpoint), [[{"role": "user", "content": "a"}]], {}, "s3cret")[0]
    assert reply.text is None and "HTTP 302" in reply.why and len(fake_endpoint.asked) == 1


@pytest.mark.parametrize(
    ("url", "clear"),
    [
        ("https://judge.example/v1", False), ("http://127.0.0.1:8/v1", False), ("http://localhost/v1", False),
        ("http://judge.example/v1", True), ("http://127.0.0.1.example/v1", True),
        ("http://10.0.0.1/v1", True),
    ],
)  # fmt: skip
def test_a_key_is_sent_in_clear_to_this_machine_only(url, clear):
    endpoint = Endpoint(url=url, model="m", secret_ref=SecretKeyRef(name="key"))
    assert bool(key_problem(endpoint)) is clear
    if clear:
        with pytest.raises(ScoringError, match="in clear"):
            ask(endpoint, [], {}, "k")
