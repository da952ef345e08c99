"""The whole journey on the real model: from a manifest to a recommended adapter that PEFT loads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "support-tickets"
pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(900)]
STEPS, ROWS = 6, 4


def dtx(home: Path, *arguments: str, seconds: int = 800) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DTX_HOME": str(home), "DTX_PORT": "0", "COLUMNS": "160"}
    command = [sys.executable, "-m", "datatunerx.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory):
    """The example as it is, but two jobs of a few steps, scored on a few rows."""
    folder = tmp_path_factory.mktemp("example")
    bodies = list(yaml.safe_load_all((EXAMPLE / "experiment.yaml").read_text()))
    experiment = bodies[-1]["spec"]
    experiment["matrix"]["hyperparameters"] = experiment["matrix"]["hyperparameters"][:2]
    experiment["scoring"]["limit"] = ROWS
    shared = next(body for body in bodies if body["metadata"]["name"] == "tickets")
    shared["spec"] |= {"maxSteps": STEPS, "saveEvery": STEPS, "batchSize": 4}
    for body in bodies:
        for subset in body["spec"].get("subsets", []):
            subset["splits"] = {k: [str(EXAMPLE / v) for v in vs] for k, vs in subset["splits"].items()}
    (folder / "experiment.yaml").write_text(yaml.safe_dump_all(bodies))
    home = tmp_path_factory.mktemp("e2e") / "home"
    try:
        done = dtx(home, "demo", "--dir", str(folder))
        assert done.returncode == 0, done.stdout + done.stderr
        yield home, done.stdout
    finally:
        # a worker outlives a demo that was cut off; nobody would ever take this one over
        for process in psutil.process_iter(["cmdline"]):
            if "datatunerx.worker" in (words := process.info["cmdline"] or []) and str(home) in str(words):
                process.kill()


def test_the_demo_ends_with_a_ranking_answers_and_a_way_on(small_demo):
    _, said = small_demo
    assert "support-tickets: ranked by field-accuracy" in said
    assert "smollm2 (untouched base)" in said
    assert said.count("expected") == 3
    assert "PeftModel.from_pretrained" in said and "kubectl --kubeconfig" in said


def test_the_state_stays_and_every_score_has_its_rows_and_interval(small_demo):
    home, _ = small_demo
    server = subprocess.Popen(
        [sys.executable, "-m", "datatunerx.cli", "up", "--port", "0"],
        env={**os.environ, "DTX_HOME": str(home)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None and server.stdout.readline().startswith("dtx serves")
        experiment = json.loads(dtx(home, "get", "fe", "support-tickets", "-o", "json").stdout)
        again = dtx(home, "watch", "support-tickets")
    finally:
        server.terminate()
        server.communicate(timeout=60)
    status = experiment["status"]
    assert status["phase"] == "Succeeded" and len(status["ranking"]) == 3
    for row in status["ranking"]:
        assert row["n"] == ROWS and row["low"] <= row["score"] <= row["high"]
    assert again.returncode == 0 and "untouched base" in again.stdout


def test_peft_loads_the_winner_and_it_changes_the_answer(small_demo):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, said = small_demo
    lines = [line.strip() for line in said.splitlines()]
    base_folder = next(line for line in lines if line.startswith("base = AutoModel")).split("'")[1]
    adapter = next(line for line in lines if line.startswith("model = PeftModel")).split("'")[1]
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    base = AutoModelForCausalLM.from_pretrained(base_folder)
    row = json.loads((EXAMPLE / "test.jsonl").read_text().splitlines()[0])
    question, text = (
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks)
        for messages, asks in ((row["messages"][:-1], True), (row["messages"], False))
    )
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    labels = ids.clone()
    labels[:, : len(tokenizer(question, add_special_tokens=False).input_ids)] = -100
    with torch.no_grad():
        before = base(input_ids=ids, labels=labels).loss
        after = PeftModel.from_pretrained(base, adapter)(input_ids=ids, labels=labels).loss
    assert after < before / 2
