"""Serving as a user meets it: dtx up, chat, compare, unloading, a training beside it, kills."""

import json
import os
import signal
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SETTINGS = {"max_tokens": 8, "temperature": 0}


class Asking:
    """What asks a service through the server, with the user's token, as any HTTP client does."""

    def __init__(self, site):
        import ssl

        import yaml

        config = yaml.safe_load((site.home / "kubeconfig").read_text())
        self.server = config["clusters"][0]["cluster"]["server"]
        self.token = config["users"][0]["user"]["token"]
        import base64

        authority = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
        self.tls = ssl.create_default_context(cadata=authority)

    def call(self, path, body=None):
        """(status, document)"""
        where = f"{self.server}/apis/datatunerx.io/v1beta1/namespaces/default/inferenceservices/{path}"
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        asked = urllib.request.Request(where, data=data, headers=headers)
        try:
            with urllib.request.urlopen(asked, context=self.tls, timeout=120) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def ask(self, service, model, text, **settings):
        body = {"model": model, "messages": [{"role": "user", "content": text}], **SETTINGS, **settings}
        return self.call(f"{service}/proxy/v1/chat/completions", body)


def text_of(answer):
    status, document = answer
    assert status == 200, document
    return document["choices"][0]["message"]["content"]


def service(*models, name="talk", **spec):
    refs = [{"kind": kind, "name": model} for kind, model in models]
    return {"kind": "InferenceService", "metadata": {"name": name}, "spec": {"models": refs} | spec}


@pytest.fixture
def trained(site, make, tiny_model, colour_rows):
    """A site with a base and the checkpoint of a training."""
    uri = site.data_file("colours.jsonl", colour_rows)
    site.apply(make.llm(tiny_model.as_uri()), make.dataset(uri), make.group())
    site.apply(make.finetune("ours"))
    site.until(lambda: site.phase("ft", "ours") == "Succeeded", 120, "the training is done")
    listed = json.loads(site.dtx("get", "ckpt", "-o", "json").stdout)["items"]
    site.checkpoint = listed[-1]["metadata"]["name"]
    return site


def serving(site, name="talk"):
    return site.until(lambda: site.phase("isvc", name) == "Running", 60, f"{name} serves")


def serve_workers(site):
    found = []
    for worker in site.workers():
        plan = json.loads(Path(worker.cmdline()[-1].removeprefix("file://")).read_text())
        if "serve" in plan:
            found.append(worker)
    return found


def as_alone(asking, service, model, times):
    """How many of the model's answers in comparisons of all models are what it answers alone."""
    questions = [f"question {n}" for n in range(10)]
    alone = [text_of(asking.ask(service, model, question)) for question in questions]
    same = 0
    for n in range(times):
        messages = [{"role": "user", "content": questions[n % 10]}]
        status, answers = asking.call(
            f"{service}/compare", {"messages": messages, **SETTINGS, "stream": False}
        )
        assert status == 200 and len(answers["answers"]) > 1, answers
        by_model = {one["model"]: one["answer"] for one in answers["answers"]}
        same += by_model[model]["text"] == alone[n % 10]
    return same


def test_chat_and_compare_from_a_training_to_pairs(trained, tmp_path):
    site = trained
    talked = site.dtx(
        "chat", "ours", "--max-tokens", "8", "--temperature", "0", stdin="hello\n/reset\nhello\n"
    )
    assert talked.returncode == 0, talked.stderr
    assert "made InferenceService chat-" in talked.stderr
    first, second = talked.stdout.strip().splitlines()[-2:]
    assert first == second != ""
    assert "no inferenceservices" in site.dtx("get", "isvc").stderr.lower()  # it left nothing behind

    models = f"tiny,{site.checkpoint}"
    done = site.dtx(
        "compare", "--models", models, "What colour?", "--max-tokens", "8", "--save", "monday", "-o", "json"
    )
    assert done.returncode == 0, done.stderr
    compared = json.loads(done.stdout)
    base, ours = compared["questions"][0]["answers"]
    assert base["identity"]["base"] == ours["identity"]["base"] == site.status("llm", "tiny")["digest"]
    assert base["identity"].get("adapter") is None and ours["identity"]["adapter"]
    assert ours["identity"]["adapter"] == site.get("ckpt", site.checkpoint)["spec"]["manifestDigest"]
    assert {"seed", "template"} <= ours["identity"].keys() and ours["seconds"] > 0 and ours["tokens"] > 0

    assert "monday" in site.dtx("comparisons", "list").stdout
    file = tmp_path / "pairs.jsonl"
    site.dtx("comparisons", "export", "monday", "--as", "rows", "--prefer", site.checkpoint, str(file))
    row = json.loads(file.read_text().splitlines()[0])
    assert [m["role"] for m in row["messages"]] == ["user", "assistant"]

    unknown = site.dtx("compare", "--models", "tiny,nobody", "q")
    assert unknown.returncode == 2 and "known are: tiny" in unknown.stderr


def test_an_idle_service_is_unloaded_and_comes_back_with_the_next_request(trained):
    site = trained
    site.apply(service(("LLM", "tiny"), idleSeconds=2))
    serving(site)
    site.until(lambda: site.status("isvc", "talk").get("reason") == "Idle", 90, "it is unloaded")
    assert not serve_workers(site)
    asking = Asking(site)
    assert [m["id"] for m in asking.call("talk/proxy/v1/models")[1]["data"]] == ["tiny"]
    assert not serve_workers(site)  # looking does not load

    assert text_of(asking.ask("talk", "tiny", "hello"))
    status, document = asking.ask("talk", "nobody", "hello")
    assert status == 404 and "it has: tiny" in document["error"]["message"]


def test_a_training_gets_the_device_of_an_idle_service_which_then_waits_for_it(trained, make):
    site = trained
    site.apply(service(("LLM", "tiny")))
    serving(site)
    site.apply(make.group("slow", maxSteps=1_000_000, saveEvery=1_000_000))
    site.apply(make.finetune("beside", "slow"))

    site.until(lambda: site.phase("ft", "beside") == "Running", 60, "the training has the device")
    assert site.status("isvc", "talk")["reason"] == "Yielded" and not serve_workers(site)
    status, document = Asking(site).ask("talk", "tiny", "hello")
    assert status == 503 and "waits for a free device behind Finetune/beside" in document["error"]["message"]
    assert "place 1 in the queue" in document["error"]["message"]

    site.dtx("stop", "ft/beside", "--discard")
    serving(site)
    assert text_of(Asking(site).ask("talk", "tiny", "hello"))


def test_the_base_answers_as_alone_beside_others_and_kills_are_survived(trained):
    site = trained
    site.apply(service(("LLM", "tiny"), ("LLMCheckpoint", site.checkpoint)))
    serving(site)
    before = text_of(Asking(site).ask("talk", site.checkpoint, "hello"))
    assert as_alone(Asking(site), "talk", "tiny", 100) == 100
    worker = serve_workers(site)[0]

    site.kill()
    site.start()
    assert text_of(Asking(site).ask("talk", site.checkpoint, "hello")) == before
    assert [w.pid for w in serve_workers(site)] == [worker.pid]  # adopted, not doubled

    os.kill(worker.pid, signal.SIGKILL)
    started = time.monotonic()
    assert text_of(Asking(site).ask("talk", site.checkpoint, "hello")) == before
    assert time.monotonic() - started < 60
    assert [w.pid for w in serve_workers(site)] != [worker.pid]
