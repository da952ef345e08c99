"""What was interrupted goes on as if it had not been."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from datatunerx.modeling import generate
from datatunerx.runs.commands import Command, Verb
from datatunerx.training import checkpoints

SETTINGS = {
    "lora": {"rank": 3, "dropout": 0.1},
    "max_steps": 9,
    "save_every": 3,
    "gradient_accumulation": 2,
    "scheduler": "linear",
}


def files(folder):
    last = checkpoints.latest(folder)
    return {p.name: p.read_bytes() for p in last.path.iterdir() if p.name != checkpoints.MANIFEST}


@pytest.mark.parametrize("from_step", [3, 6])
def test_a_resumed_job_ends_with_the_very_bytes_of_the_uninterrupted_one(
    make_base, make_job, make_rows, watched, tmp_path, from_step
):
    """Weights, optimizer and metric history; the second half is beside a job the first half never saw,
    in wider ticks."""
    validate = make_rows(3, seed=9)
    jobs = [make_job("a", validate=validate, keep_checkpoints=9, **SETTINGS)]
    watched.run(make_base(), jobs)
    whole = files(tmp_path / "a")
    for checkpoint in checkpoints.whole(tmp_path / "a"):
        if checkpoint.step > from_step:
            shutil.rmtree(checkpoint.path)

    trained = watched.run(make_base(), [make_job("other"), *jobs], capacity=1000)

    assert trained["a"].outcome.phase == "Succeeded"
    assert files(tmp_path / "a") == whole


def test_a_suspended_job_goes_on_from_where_it_was(make_base, make_job, watched, tmp_path):
    watched.run(make_base(), [make_job("a", **SETTINGS)])
    whole = files(tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    asked = iter([[], [], [], [Command(verb=Verb.SUSPEND, job="a")]])

    first = watched.run(make_base(), [make_job("a", **SETTINGS)], poll_commands=lambda: next(asked, []))
    second = watched.run(make_base(), [make_job("a", **SETTINGS)])

    assert first["a"].outcome.phase == "Suspended"
    assert 0 < first["a"].outcome.step < 9
    assert second["a"].outcome.phase == "Succeeded"
    assert files(tmp_path / "a") == whole


@pytest.mark.parametrize("at_step", [3, 9])
def test_a_wish_to_leave_in_an_evaluation_is_heard_between_two_passes_and_changes_no_number(
    make_base, make_job, make_rows, watched, tmp_path, monkeypatch, at_step
):
    monkeypatch.setattr(generate, "PASS_TOKENS", 16)  # so that an evaluation has several passes
    jobs = [make_job("a", validate=make_rows(8, seed=9), keep_checkpoints=9, **SETTINGS)]
    looks = []
    watched.run(make_base(), jobs, leaving=lambda: bool(looks.append(None)))
    whole, losses = files(tmp_path / "a"), watched.values("a", "evalLoss")
    shutil.rmtree(tmp_path / "a")
    before = at_step // 3 - 1  # evaluations that come to their end
    second_look = len(looks) // 3 * before + 2
    looks.clear()

    def leaving():
        looks.append(None)
        return len(looks) >= second_look

    def asked():
        return [Command(verb=Verb.SUSPEND, job="a")] if len(looks) >= second_look else []

    first, second = type(watched)(), type(watched)()
    left = first.run(make_base(), jobs, leaving=leaving, poll_commands=asked)["a"].outcome
    assert len(looks) == second_look + 1, "one more look, before the sample prompts, and no more passes"
    taken_up = second.run(make_base(), jobs)["a"].outcome

    assert (left.phase, left.step, left.checkpoint.step) == ("Suspended", at_step, at_step)
    assert first.values("a", "evalLoss") == losses[:before]
    assert second.values("a", "evalLoss") == losses[before:]
    assert taken_up.phase == "Succeeded"
    if at_step < 9:
        assert files(tmp_path / "a") == whole


def test_a_job_that_had_ended_is_not_trained_again(make_base, make_job, watched, tmp_path):
    watched.run(make_base(), [make_job("a")])
    before = len(watched.values("a", "loss"))

    trained = watched.run(make_base(), [make_job("a")])

    assert trained["a"].outcome.phase == "Succeeded"
    assert len(watched.values("a", "loss")) == before


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(make_base, make_job, watched, tmp_path):
    watched.run(make_base(), [make_job("a", keep_checkpoints=9, **SETTINGS)])
    weights = tmp_path / "a" / "step-00000009" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    assert checkpoints.latest(tmp_path / "a").step == 6


def test_a_damaged_checkpoint_is_written_anew_when_the_resumed_job_comes_to_its_step(
    make_base, make_job, watched, tmp_path
):
    watched.run(make_base(), [make_job("a", keep_checkpoints=9, **SETTINGS)])
    whole = files(tmp_path / "a")
    weights = tmp_path / "a" / "step-00000009" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    trained = watched.run(make_base(), [make_job("a", keep_checkpoints=9, **SETTINGS)])

    assert trained["a"].outcome.checkpoint.step == 9
    assert files(tmp_path / "a") == whole
    warned = [event.message for event in watched.of_type("warning")]
    assert [said for said in warned if said.startswith("the checkpoint of step 9 is damaged")] != []


def test_other_parameters_in_the_same_folder_are_refused_by_name(make_base, make_job, watched, tmp_path):
    watched.run(make_base(), [make_job("a", **SETTINGS)])

    other = make_job("a", **(SETTINGS | {"learning_rate": 0.5}))
    trained = watched.run(make_base(), [other, make_job("b")])

    assert trained["a"].outcome.phase == "Failed"
    assert "learningRate" in trained["a"].outcome.message
    assert trained["b"].outcome.phase == "Succeeded"


def test_an_adapter_to_start_from_must_have_the_shape_the_job_asks_for(
    make_base, make_job, watched, tmp_path
):
    watched.run(make_base(), [make_job("first", lora={"rank": 3})])
    start = checkpoints.latest(tmp_path / "first").path

    jobs = [
        replace(make_job("alike", lora={"rank": 3}), start_from=start),
        replace(make_job("wider", lora={"rank": 5, "targets": ["q_proj"]}), start_from=start),
    ]
    trained = watched.run(make_base(), jobs)

    assert trained["alike"].outcome.phase == "Succeeded"
    assert (trained["wider"].outcome.phase, trained["wider"].outcome.reason) == ("Failed", "CannotResume")
    assert "lora.rank is 5 and there 3" in trained["wider"].outcome.message
    assert "lora.targets is ('q_proj',) and there ('down_proj'," in trained["wider"].outcome.message


def test_a_broken_adapter_to_start_from_fails_its_job_alone(make_base, make_job, watched, tmp_path):
    watched.run(make_base(), [make_job("first")])
    start = checkpoints.latest(tmp_path / "first").path
    (start / "adapter_model.safetensors").write_bytes(b"no tensors")

    trained = watched.run(make_base(), [replace(make_job("a"), start_from=start), make_job("b")])

    assert (trained["a"].outcome.phase, trained["a"].outcome.reason) == ("Failed", "UnreadableAdapter")
    assert trained["b"].outcome.phase == "Succeeded"


def test_the_history_in_a_checkpoint_is_what_was_told(make_base, make_job, watched, tmp_path):
    watched.run(make_base(), [make_job("a", **SETTINGS)])

    state = json.loads(files(tmp_path / "a")["trainer_state.json"])

    told = [point["values"]["loss"] for point in state["history"] if "loss" in point["values"]]
    assert told == watched.values("a", "loss")
    assert torch.isfinite(torch.tensor(told)).all()
