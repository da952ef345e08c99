"""Real worker processes that serve: models come and go, and none of what goes wrong takes the rest along."""

import json
import os
import signal
import stat
import sys
import threading
import time
from pathlib import Path

import openai
import pytest
import torch
from openai import OpenAI

from datatunerx.modeling.adapters import AdapterShape, make_adapter
from datatunerx.modeling.base import load_base
from datatunerx.modeling.peft_format import WEIGHTS, adapter_files
from datatunerx.resources.enums import Engine, RunType
from datatunerx.runs import ServedModel, ServedModels, ServePlan
from datatunerx.runs.plan import identified
from datatunerx.storage import write_atomic
from datatunerx.training import checkpoints
from datatunerx.worker.vllm import command

SAY = [{"role": "user", "content": "say red"}]
GREEDY = {"messages": SAY, "temperature": 0, "max_tokens": 12}
BOMB = "{% for m in messages %}{{ m.content }}<|im_end|>{% if 'boom' in m.content %}"
BOMB += (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}{% endfor %}"
)


@pytest.fixture
def adapter(room):
    """Saves an adapter as training does, and gives it as a model to serve."""
    base = load_base(room.model_dir)

    def make(name: str, seed: int = 1, rank: int = 4, **fields) -> ServedModel:
        made = make_adapter(name, AdapterShape(rank=rank), base.widths, seed=seed)
        drawn = torch.randn(made.flat.shape, generator=torch.Generator().manual_seed(seed))
        made.flat.copy_(drawn * 0.3)
        folder = room.root / "artifacts" / name
        saved = checkpoints.save(folder, 1, adapter_files(made, "tiny"))
        told = {
            "adapter_uri": saved.path.as_uri(), "adapter_digest": saved.digest,
            "base_digest": room.model.digest,
        }  # fmt: skip
        return ServedModel(name=name, **told | fields)

    return make


def plan_of(room, *models: ServedModel, **settings):
    part = ServePlan(model=room.model, models=list(models), **{"precision": "float32"} | settings)
    return identified(RunType.SERVE, room.root_uri, {"serve": part})


def serving(room, plan, wanted=lambda state: True):
    """What the run says of itself, once it serves as wanted."""
    found = room.wait_for(plan, lambda event: event.type == "serving" and wanted(event.serving))
    return found[-1].serving


def client_of(room, plan) -> OpenAI:
    url = serving(room, plan).url  # the token is written before
    token = (room.folder(plan) / "serve.token").read_text()
    return OpenAI(base_url=url, api_key=token, max_retries=0, timeout=60)


def say(client: OpenAI, model: str, **more) -> str:
    return client.chat.completions.create(model=model, **GREEDY | more).choices[0].message.content


def put_models(room, plan, *models: ServedModel) -> None:
    data = ServedModels(models=list(models)).model_dump_json(by_alias=True, exclude_none=True)
    write_atomic(f"{plan.output_uri}/models.json", data.encode())


BASE = ServedModel(name="tiny")


@pytest.mark.slow
def test_models_come_and_go_while_the_worker_answers_and_bad_ones_say_why(room, adapter):
    good, stranger, damaged = adapter("good"), adapter("stranger", base_digest="0" * 64), adapter("damaged")
    other = adapter("other", adapter_digest="0" * 64)
    file = Path(damaged.adapter_uri.removeprefix("file://")) / WEIGHTS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    plan = plan_of(room, BASE, good, stranger, damaged, other)
    worker = room.start(plan)

    states = {state.name: state for state in serving(room, plan).models}
    assert {name for name, state in states.items() if state.ready} == {"tiny", "good"}
    assert states["stranger"].reason == "BaseMismatch"
    assert states["damaged"].reason == "DamagedAdapter" and WEIGHTS in states["damaged"].message
    assert states["other"].reason == "AdapterChanged"

    with client_of(room, plan) as client:
        before = say(client, "tiny"), say(client, "good")
        assert before[0] != before[1]
        with pytest.raises(openai.NotFoundError, match="BaseMismatch"):
            say(client, "stranger")

        put_models(room, plan, BASE, adapter("late", seed=9), good)
        serving(room, plan, lambda state: any(one.name == "late" and one.ready for one in state.models))
        assert say(client, "late") not in before
        assert (say(client, "tiny"), say(client, "good")) == before

        put_models(room, plan, BASE)
        serving(room, plan, lambda state: len(state.models) == 1)
        with pytest.raises(openai.NotFoundError, match="served are: tiny"):
            say(client, "good")

        write_atomic(f"{plan.output_uri}/models.json", b"{not json")
        room.wait_for(plan, lambda event: event.type == "warning" and "models.json" in event.message)
        assert say(client, "tiny") == before[0]

    beat = room.wait_for(plan, lambda e: e.type == "heartbeat" and e.serving and e.serving.completed >= 6)
    assert beat[-1].serving.last_request == pytest.approx(time.time(), abs=60)
    room.say(plan, verb="stop", job="")
    assert worker.wait(30) == 0
    assert room.result(plan).reason == "Stopped"


@pytest.mark.slow
def test_the_token_is_for_its_owner_only_and_nobody_sees_it_elsewhere(room):
    plan = plan_of(room, BASE)
    worker = room.start(plan)
    url = serving(room, plan).url

    path = room.folder(plan) / "serve.token"
    token = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert url.startswith("http://127.0.0.1:")
    for place in (f"/proc/{worker.pid}/cmdline", f"/proc/{worker.pid}/environ"):
        assert token.encode() not in Path(place).read_bytes()
    for file in room.folder(plan).iterdir():
        assert file == path or token not in file.read_text()
    with (
        OpenAI(base_url=url, api_key="guessed", max_retries=0) as thief,
        pytest.raises(openai.AuthenticationError),
    ):
        say(thief, "tiny")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="libgomp tells which threads compute together")
def test_one_thread_of_a_worker_has_all_its_cores_and_no_other_computes_with_helpers(room, adapter):
    """More helpers than cores sleep between any two products, and a step takes twice as long."""
    wide = adapter("wide", rank=64)  # large enough that whoever reads it would take helpers for it
    plan = plan_of(room, BASE, wide)
    told = {"OMP_DISPLAY_AFFINITY": "TRUE", "OMP_AFFINITY_FORMAT": "team %i %n %N"}
    room.start(plan, OMP_NUM_THREADS="2", **told)

    with client_of(room, plan) as client:
        client.completions.create(model="wide", prompt=["red " * 25] * 16, max_tokens=2)

    # whoever begins to compute with another says so in the worker's log: thread, place in the team, its size
    teams = [line.split()[1:] for line in room.log(plan).splitlines() if line.startswith("team ")]
    leaders = {thread for thread, place, size in teams if (place, size) == ("0", "2")}
    assert len(leaders) == 1, teams


@pytest.mark.slow
def test_a_worker_that_nobody_asks_ends_well(room):
    plan = plan_of(room, BASE, idle_seconds=1.0)

    code, result = room.run(plan)

    assert (code, result.phase, result.reason) == (0, "Succeeded", "Idle")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["keep", "discard", "signal"])
def test_a_stop_lets_answers_end_or_breaks_them_off_as_it_says(room, how):
    # a template without an end of turn of its own would be refused, so the answer is one of many
    plan = plan_of(room, BASE, max_rows=1)
    worker = room.start(plan)
    heard: list[object] = []

    def ask() -> None:
        with client_of(room, plan) as client:
            try:
                many = client.chat.completions.create(
                    model="tiny", messages=SAY, temperature=2, max_tokens=110, n=16, seed=3
                )
                heard.append(len(many.choices))
            except openai.APIError as error:
                heard.append(error)

    serving(room, plan)
    asking = threading.Thread(target=ask)
    asking.start()
    room.wait_for(plan, lambda event: event.serving is not None and event.serving.rows == 1)
    os.kill(worker.pid, signal.SIGTERM) if how == "signal" else room.say(plan, verb="stop", job="", mode=how)
    asking.join(60)

    assert worker.wait(30) == 0
    assert room.result(plan).reason == "Stopped"
    if how == "keep":
        assert heard == [16]
    else:
        assert isinstance(heard[0], openai.APIError)
        assert "about to stop" in str(heard[0])


@pytest.mark.slow
def test_a_template_bomb_fails_its_own_requests_and_endless_ones_are_not_served(room, adapter):
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    plan = plan_of(room, BASE, adapter("bomb", template=BOMB), adapter("endless", template=endless))
    room.start(plan)

    states = {state.name: state for state in serving(room, plan).models}
    assert (states["bomb"].ready, states["endless"].ready) == (True, False)
    assert "range" in states["endless"].message or "takes more than" in states["endless"].message
    with client_of(room, plan) as client:
        assert say(client, "bomb")
        with pytest.raises(openai.BadRequestError, match="chat template"):
            say(client, "bomb", messages=[{"role": "user", "content": "boom"}])
        assert say(client, "tiny")
        assert say(client, "bomb")


# vLLM: it needs CUDA and was never run here; what it is started with, and how it is looked after, is tested.


def test_vllm_is_started_with_every_adapter_and_no_secret(room, adapter):
    one, two = adapter("one"), adapter("two")
    plan = ServePlan(model=room.model, models=[BASE, one, two], engine=Engine.VLLM, max_rows=7)

    argv = command("/bin/vllm", plan, plan.models, 1234)

    assert argv[:3] == ["/bin/vllm", "serve", str(room.model_dir)]
    told = dict(zip(argv[3:], argv[4:], strict=False))
    assert (told["--host"], told["--port"], told["--max-num-seqs"]) == ("127.0.0.1", "1234", "7")
    assert told["--served-model-name"] == "tiny"
    assert told["--max-lora-rank"] == "8"
    paths = [Path(model.adapter_uri.removeprefix("file://")) for model in (one, two)]
    at = argv.index("--lora-modules")
    assert argv[at + 1 :] == [f"one={paths[0]}", f"two={paths[1]}"]
    assert "--enable-lora" in argv
    assert "--enable-lora" not in command("/bin/vllm", plan, [BASE], 1234)


@pytest.mark.slow
def test_without_vllm_the_result_says_what_to_install(room, tmp_path):
    plan = plan_of(room, BASE, engine=Engine.VLLM)

    code, result = room.run(plan, PATH=str(tmp_path))

    assert code == 1
    assert "datatunerx[vllm]" in result.message


@pytest.mark.slow
def test_a_program_called_vllm_is_looked_after_until_it_is_to_stop(room, tmp_path):
    said = tmp_path / "said.json"
    program = tmp_path / "vllm"
    program.write_text(
        "#!/usr/bin/python3\nimport http.server, json, os, sys\n"
        f"open({str(said)!r}, 'w').write(json.dumps([sys.argv, os.environ['VLLM_API_KEY']]))\n"
        "port = int(sys.argv[sys.argv.index('--port') + 1])\n"
        "http.server.HTTPServer(('127.0.0.1', port), http.server.BaseHTTPRequestHandler).serve_forever()\n"
    )
    program.chmod(0o755)
    plan = plan_of(room, BASE, engine=Engine.VLLM)
    worker = room.start(plan, PATH=f"{tmp_path}:{os.environ['PATH']}")

    url = serving(room, plan).url
    argv, key = json.loads(said.read_text())
    assert argv[argv.index("--port") + 1] in url
    assert key == (room.folder(plan) / "serve.token").read_text()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert room.result(plan).reason == "Stopped"
