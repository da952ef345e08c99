"""Whatever a client does, it gets an error in OpenAI's shape, and the others get their answers."""

import asyncio
import socket

import httpx
import openai
import pytest
from openai import AsyncOpenAI

TOKEN = "a-token-of-the-tests"
SAY = [{"role": "user", "content": "say red"}]


def still_serves(client) -> bool:
    # greedy: a drawn answer may end before its first token
    answer = client.chat.completions.create(model="base", messages=SAY, max_tokens=3, temperature=0)
    return answer.usage.completion_tokens > 0


def test_an_unknown_model_is_told_which_there_are(client):
    with pytest.raises(openai.NotFoundError, match="served are: base, one, two") as caught:
        client.chat.completions.create(model="gpt-4", messages=SAY)

    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


def test_too_long_a_prompt_is_refused_with_the_numbers(client):
    long = [{"role": "user", "content": "x" * 500}]
    with pytest.raises(openai.BadRequestError, match=r"has 5\d\d tokens, and the context is 128") as caught:
        client.chat.completions.create(model="base", messages=long)

    assert caught.value.code == "context_length_exceeded"
    assert still_serves(client)


def test_a_million_tokens_are_as_many_as_the_context_leaves_and_the_answer_says_so(client):
    answer = client.chat.completions.create(model="base", messages=SAY, max_tokens=1_000_000, temperature=0)

    told = answer.datatunerx
    assert told["maxTokens"] == 128 - answer.usage.prompt_tokens
    assert answer.usage.completion_tokens <= told["maxTokens"]
    assert "1,000,000 was lowered" in told["notes"][0]


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        (b"{", None, "not JSON"),
        (b"[]", None, "JSON object"),
        (b'{"model": NaN}', None, "not JSON"),
        (b"\xff\xfe", None, "not JSON"),
        (b"[" * 100_000, None, "not JSON"),
        ({"max_tokens": "5"}, "max_tokens", "valid integer"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": True}, "max_tokens", "valid integer"),
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": "hello"}, "messages", "valid list"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role", "'system'"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "valid"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages.0.content", "text",
        ),
        ({"n": 1000}, "n", "less than or equal to 64"),
        ({"stop": [1]}, "stop", "valid string"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format", "not supported"),
        ({"temprature": 1}, "temprature", "not a parameter"),
        ({"top_logprobs": 3}, "top_logprobs", "needs logprobs"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, None, ""),
    ],
)  # fmt: skip
def test_a_bad_request_names_what_is_wrong_with_it(served, client, body, param, said):
    import json

    if isinstance(body, dict):
        body = json.dumps({"model": "base", "messages": SAY} | body).encode()
    with served.http() as http:
        answer = http.post("/v1/chat/completions", content=body)

    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert said in error["message"]
    if param:
        assert error["param"].startswith(param)
    assert still_serves(client)


def test_token_ids_that_are_no_words_are_refused(client):
    for ids in ([[999_999]], [[-1]]):
        with pytest.raises(openai.BadRequestError, match="token ids are from 0 to"):
            client.completions.create(model="base", prompt=ids)
    with pytest.raises(openai.BadRequestError, match="no token"):
        client.completions.create(model="base", prompt="")
    assert still_serves(client)


def test_a_body_without_end_is_cut_off(served, client):
    with served.http() as http:
        answer = http.post("/v1/chat/completions", content=(b"x" * 65536 for _ in range(200)))

    assert answer.status_code == 413
    assert still_serves(client)


def test_nothing_but_the_pulse_is_told_without_the_token(served):
    root = served.url.removesuffix("/v1")
    for path in ("/v1/models", "/metrics", "/nothing"):
        assert httpx.get(root + path).status_code == 401
        assert httpx.get(root + path, headers={"authorization": "Bearer wrong"}).status_code == 401
    assert httpx.get(root + "/health").json() == {"status": "ok"}


def test_a_path_that_is_not_there_is_answered_in_the_same_shape(served):
    with served.http() as http:
        assert http.get("/v1/nothing").json()["error"]["code"] == "not_found"
        assert http.get("/v1/chat/completions").status_code == 405


async def test_two_hundred_clients_that_vanish_free_their_rows(serve, patient_base):
    served = serve(base=patient_base, cache_tokens=1 << 22)

    async def vanish(client: AsyncOpenAI, n: int) -> None:
        stream = n % 2 == 0
        asked = client.chat.completions.create(
            model=["base", "one"][n % 2],
            messages=SAY,
            max_tokens=20_000,
            stream=stream,
            temperature=1,
            seed=n,
            logprobs=True,
        )
        try:
            async with asyncio.timeout(0.3 + n / 200):
                answer = await asked
                if stream:
                    async for _ in answer:
                        pass
        except TimeoutError:
            pass

    async with AsyncOpenAI(base_url=served.url, api_key=TOKEN, max_retries=0, timeout=60) as client:
        await asyncio.gather(*(vanish(client, n) for n in range(200)))

    await asyncio.to_thread(served.wait_until_free)
    with served.client() as client:
        assert still_serves(client)


def test_a_client_that_never_reads_loses_its_row_and_no_one_else_waits(serve, patient_base, monkeypatch):
    monkeypatch.setattr("datatunerx.serving.engine.INBOX_PIECES", 50)
    served = serve(base=patient_base, cache_tokens=1 << 22)
    host, port = served.url.removeprefix("http://").removesuffix("/v1").split(":")
    body = (
        b'{"model": "one", "messages": [{"role": "user", "content": "say red"}], "stream": true, '
        b'"max_tokens": 90000, "logprobs": true, "top_logprobs": 20, "temperature": 1.5, "seed": 1}'
    )
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((host, int(port)))
        deaf.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + TOKEN.encode()
            + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )  # fmt: skip
        served.wait_until_asked()
        with served.client() as client:
            assert still_serves(client)
        served.wait_until_free()
        assert served.service.engine.steps < 90_000


def test_more_than_may_wait_are_told_to_come_back(serve, patient_base):
    served = serve(base=patient_base, max_rows=1, max_waiting=1, cache_tokens=1 << 22)
    with served.client() as client, served.http() as http:
        body = {
            "model": "base",
            "messages": SAY,
            "max_tokens": 20_000,
            "temperature": 1,
            "stream": True,
            "n": 2,
        }
        with http.stream("POST", "/v1/chat/completions", json=body):
            with pytest.raises(openai.RateLimitError) as caught:
                client.chat.completions.create(model="base", messages=SAY)
            assert caught.value.code == "overloaded"
            assert caught.value.response.headers["retry-after"] == "1"
        served.wait_until_free()
        assert still_serves(client)


def test_a_step_that_dies_fails_its_answers_only(served, client, monkeypatch):
    def broken(self):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("datatunerx.modeling.decoding.Decoder.advance", broken)
        with pytest.raises(openai.InternalServerError, match="out of memory"):
            client.chat.completions.create(model="base", messages=SAY)

    assert still_serves(client)
