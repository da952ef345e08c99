"""A job that gets no better ends, leaves its best, and holds nobody up."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from datatunerx.resources.enums import Metric
from datatunerx.runs import EarlyStop, MeasurePlan
from datatunerx.training import checkpoints

SCORE = MeasurePlan(metrics=[Metric.EXACT_MATCH])
STILL = {"learning_rate": 1e-12, "scheduler": "constant", "eval_every": 2, "max_steps": 30}
"""A job that cannot learn."""


@pytest.fixture
def make_stopping(make_job, make_rows):
    def make(name, *, patience=2, min_delta=0.0, score=None, **parameters):
        job = make_job(name, validate=make_rows(3, seed=9), **parameters)
        return replace(job, early_stop=EarlyStop(patience=patience, min_delta=min_delta, score=score))

    return make


@pytest.fixture
def scores():
    """What a job's answers are worth at its evaluations, one after the other; notes who was asked together."""

    class Scores:
        asked = []

        def __init__(self):
            self.of, self.asked = {}, []

        def __call__(self, adapters, look_up):
            self.asked.append(sorted(adapters))
            look_up()
            return {name: self.of[name].pop(0) for name in adapters}

    return Scores()


def in_file(folder, step):
    return load_file(checkpoints.checkpoint_path(folder, step) / "adapter_model.safetensors")


def state(folder, step=None):
    found = checkpoints.latest(folder).path if step is None else checkpoints.checkpoint_path(folder, step)
    return json.loads((found / "trainer_state.json").read_bytes())


def steps_of(folder):
    return [one.step for one in checkpoints.whole(folder)]


def test_a_job_that_gets_no_better_ends_and_its_neighbour_trains_on_as_if_alone(
    make_base, make_stopping, make_job, watched, tmp_path
):
    base = make_base()
    alone = watched.run(base, [make_job("other", max_steps=30)])["other"].adapter.flat.clone()
    job = make_stopping("still", min_delta=1e-6, **STILL)

    trained = watched.run(base, [job, make_job("other", folder=tmp_path / "beside", max_steps=30)])

    outcome = trained["still"].outcome
    assert (outcome.phase, outcome.reason) == ("Succeeded", "StoppedEarly")
    assert (outcome.step, outcome.steps) == (6, 30)  # best at 2, no better at 4 and 6
    best = state(tmp_path / "still")["bestStep"]
    assert outcome.checkpoint.step == best in (2, 4, 6)
    assert "stopped early at step 6 of 30: 2 evaluations in a row" in outcome.message
    assert f"best at step {best}: {outcome.checkpoint.eval_loss:.4g}" in outcome.message
    assert trained["other"].outcome.step == 30 and trained["other"].outcome.reason == ""
    assert torch.equal(trained["other"].adapter.flat, alone)


def test_the_room_of_a_job_that_has_ended_goes_to_the_others_at_once(
    make_base, make_stopping, make_job, watched
):
    still = make_stopping("still", patience=1, **(STILL | {"batch_size": 16}))
    ticks = []

    watched.run(
        make_base(), [still, make_job("other", max_steps=12)], capacity=100_000,
        poll_commands=lambda: ticks.append(None) or (),
    )  # fmt: skip

    assert len(ticks) == 12, "nobody's step waited for a job that had left"
    assert [e.step for e in watched.of_type("job")][-1] == 12
