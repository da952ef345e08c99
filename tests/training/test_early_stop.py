"""A job that gets no better ends, leaves its best, and holds nobody up."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from datatunerx.resources.enums import Metric
from datatunerx.runs import EarlyStop, MeasurePlan
from datatunerx.runs.commands import Command, Verb
from datatunerx.training import checkpoints

SCORE = MeasurePlan(metrics=[Metric.EXACT_MATCH])
STILL = {"learning_rate": 1e-12, "scheduler": "constant", "eval_every": 2, "max_steps": 30}
"""A job that cannot learn."""
SHAPE = {"eval_every": 2, "save_every": 3, "max_steps": 20, "keep_checkpoints": 1}


@pytest.fixture
def make_stopping(make_job, make_rows):
    def make(name, *, patience=2, min_delta=0.0, score=None, **parameters):
        job = make_job(name, validate=make_rows(3, seed=9), **parameters)
        return replace(job, early_stop=EarlyStop(patience=patience, min_delta=min_delta, score=score))

    return make


class Scores:
    """What jobs' answers are worth at one evaluation after the other; notes who was asked together."""

    def __init__(self, **of):
        self.of, self.asked = {name: list(values) for name, values in of.items()}, []

    def __call__(self, adapters, look_up):
        self.asked.append(sorted(adapters))
        look_up()
        return {name: self.of[name].pop(0) for name in adapters}


def weights(folder, step):
    return load_file(checkpoints.checkpoint_path(folder, step) / "adapter_model.safetensors")


def state(folder):
    return json.loads((checkpoints.latest(folder).path / "trainer_state.json").read_bytes())


def steps_of(folder):
    return [one.step for one in checkpoints.whole(folder)]


def is_of(trained, folder, step):
    """Whether the adapter that is scored is the one of this checkpoint."""
    saved = weights(folder, step)
    return all(
        torch.equal(saved[f"base_model.model.{layer}.lora_B.weight"], pair.b_RO.detach().T)
        for layer, pair in trained.adapter.pairs.items()
    )


def test_a_job_that_gets_no_better_ends_and_its_neighbour_trains_on_as_if_alone(
    make_base, make_stopping, make_job, watched, tmp_path
):
    base = make_base()
    alone = watched.run(base, [make_job("other", max_steps=30)])["other"].adapter.flat.clone()
    still = make_stopping("still", min_delta=1e-6, **STILL)

    trained = watched.run(base, [still, make_job("other", folder=tmp_path / "beside", max_steps=30)])

    outcome = trained["still"].outcome
    assert (outcome.phase, outcome.reason) == ("Succeeded", "StoppedEarly")
    assert (outcome.step, outcome.steps) == (6, 30)  # measured first at 2, no better at 4 and at 6
    best = state(tmp_path / "still")["bestStep"]
    assert outcome.checkpoint.step == best and is_of(trained["still"], tmp_path / "still", best)
    assert outcome.message == (
        "stopped early at step 6 of 30: 2 evaluations in a row did not better the loss on the validate split "
        f"by more than 1e-06; best at step {best}: {outcome.checkpoint.eval_loss:.4g}"
    )
    assert (trained["other"].outcome.step, trained["other"].outcome.reason) == (30, "")
    assert torch.equal(trained["other"].adapter.flat, alone)


def test_the_room_of_a_job_that_has_ended_goes_to_the_others_at_once(
    make_base, make_stopping, make_job, make_rows, watched
):
    """Its steps fill a pass, so that the neighbour's wait for them as long as it is there."""
    rows = make_rows(4, shortest=30, longest=30)
    still = make_stopping("still", patience=1, min_delta=1, rows=rows, **STILL)
    told = []

    def poll():
        told.append(watched.events[-1].job)
        return ()

    watched.run(make_base(), [make_job("other", rows, max_steps=8), still], capacity=120, poll_commands=poll)

    assert told.count("still") == 4 and told[-8:] != told, "the two took turns, until one had ended"
    assert len(told) == 4 + 8, "and no pass was spent on who was not there any more"


@pytest.mark.parametrize(("seed", "best"), [(9, 8), (1, 4)])
def test_what_is_kept_is_the_best_by_score_and_retention_leaves_it(
    make_base, make_stopping, make_rows, watched, tmp_path, seed, best
):
    """Of two equal scores that with the lower loss: it falls on what is learned, and rises elsewhere."""
    scores = Scores(a=[0.25, 0.75, 0.5, 0.75, 0.5])
    rows = make_rows(3, seed=seed)
    job = make_stopping("a", patience=3, score=SCORE, rows=rows, learning_rate=0.05, **SHAPE)

    trained = watched.run(make_base(), [job], score=scores)

    outcome, folder = trained["a"].outcome, tmp_path / "a"
    losses = watched.values("a", "evalLoss")
    assert (losses[3] < losses[1]) == (best == 8)
    assert (outcome.reason, outcome.step, outcome.checkpoint.step) == ("StoppedEarly", 10, best)
    assert (outcome.checkpoint.score, outcome.checkpoint.eval_loss) == (0.75, losses[best // 2 - 1])
    assert f"exact-match of answers to validate rows; best at step {best}: 0.75" in outcome.message
    assert steps_of(folder) == [best, 10], "the newest and the best, though its step is none to save at"
    assert is_of(trained["a"], folder, best) and not is_of(trained["a"], folder, 10)
    assert watched.values("a", "evalScore") == [0.25, 0.75, 0.5, 0.75, 0.5]


def test_an_equal_score_does_not_prolong_the_waiting(make_base, make_stopping, watched):
    job = make_stopping("a", patience=3, score=SCORE, **SHAPE)
    trained = watched.run(make_base(), [job], score=Scores(a=[0.0] * 9))

    assert trained["a"].outcome.step == 8  # first measured at 2


def test_a_gain_that_is_too_small_is_kept_and_not_waited_on(make_base, make_stopping, watched, tmp_path):
    scores = Scores(a=[0.5, 0.55, 0.6, 0.75, 0.8, 0.85, 0.9])
    job = make_stopping("a", patience=2, min_delta=0.1, score=SCORE, **SHAPE)

    outcome = watched.run(make_base(), [job], score=scores)["a"].outcome

    assert (outcome.step, outcome.checkpoint.step, outcome.checkpoint.score) == (6, 6, 0.6)


def test_an_evaluation_without_a_value_counts_neither_way(make_base, make_stopping, watched):
    scores = Scores(a=[0.5, None, 0.25, None, None, 0.25])
    outcome = watched.run(make_base(), [make_stopping("a", score=SCORE, **SHAPE)], score=scores)["a"].outcome

    assert (outcome.reason, outcome.step, outcome.checkpoint.step) == ("StoppedEarly", 12, 2)


def test_a_job_that_gets_better_to_the_end_takes_every_step(make_base, make_stopping, watched):
    scores = Scores(a=[n / 10 for n in range(10)])
    outcome = watched.run(make_base(), [make_stopping("a", score=SCORE, **SHAPE)], score=scores)["a"].outcome

    assert (outcome.phase, outcome.reason, outcome.step, outcome.checkpoint.step) == ("Succeeded", "", 20, 20)


def test_a_job_that_was_best_before_its_end_leaves_that(make_base, make_stopping, watched, tmp_path):
    scores = Scores(a=[0.1, 0.9, *[0.5] * 8])
    job = make_stopping("a", patience=9, score=SCORE, **SHAPE)

    trained = watched.run(make_base(), [job], score=scores)

    outcome = trained["a"].outcome
    assert (outcome.reason, outcome.step, outcome.checkpoint.step) == ("", 20, 4)
    assert "20 steps" in outcome.message and "best at step 4: 0.9" in outcome.message
    assert is_of(trained["a"], tmp_path / "a", 4)


def test_jobs_that_are_due_together_are_asked_together_and_those_that_have_left_no_more(
    make_base, make_stopping, make_rows, watched
):
    rows = make_rows(8)
    scores = Scores(a=[0.5, 0.1, 0.1], b=[n / 10 for n in range(6)])
    jobs = [make_stopping(name, rows=rows, score=SCORE, **(SHAPE | {"max_steps": 12})) for name in ("a", "b")]

    watched.run(make_base(), [*jobs, make_stopping("c", **SHAPE)], capacity=100_000, score=scores)

    assert scores.asked == [["a", "b"]] * 3 + [["b"]] * 3


@pytest.mark.parametrize("from_step", [3, 6, 8])
def test_a_killed_job_waits_on_as_it_did_and_ends_with_the_very_bytes(
    make_base, make_stopping, watched, tmp_path, from_step
):
    """Killed after any of its checkpoints it counts on: weights, counter and history are the same."""
    folder = tmp_path / "a"
    values = [0.2, 0.6, 0.4, 0.3, 0.5]  # at 2, 4, 6, 8, 10: best at 4
    shape = SHAPE | {"keep_checkpoints": 9}
    job = make_stopping("a", patience=3, score=SCORE, **shape)
    whole = watched.run(make_base(), [job], score=Scores(a=values))["a"].outcome
    content = {p.name: p.read_bytes() for p in checkpoints.latest(folder).path.iterdir()}
    assert (whole.step, whole.checkpoint.step, steps_of(folder)) == (10, 4, [2, 3, 4, 6, 9, 10])
    for one in checkpoints.whole(folder):
        if one.step > from_step:
            shutil.rmtree(one.path)
    came_to = steps_of(folder)[-1]

    again = watched.run(make_base(), [job], score=Scores(a=values[came_to // 2 :]))["a"].outcome

    assert again == whole
    assert {p.name: p.read_bytes() for p in checkpoints.latest(folder).path.iterdir()} == content


def test_a_job_that_had_stopped_early_is_not_trained_again(make_base, make_stopping, watched):
    job = make_stopping("a", min_delta=1, **STILL)
    first = watched.run(make_base(), [job])["a"].outcome
    before = len(watched.values("a", "loss"))

    second = watched.run(make_base(), [job])["a"].outcome

    assert second == first and second.reason == "StoppedEarly"
    assert len(watched.values("a", "loss")) == before


def test_another_measure_is_taken_up_from_a_checkpoint_of_the_first(make_base, make_stopping, watched):
    by_loss = make_stopping("a", patience=9, **SHAPE)
    suspend = iter([[], [], [], [], [Command(verb=Verb.SUSPEND, job="a")]])
    watched.run(make_base(), [by_loss], poll_commands=lambda: next(suspend, []))
    by_score = make_stopping("a", patience=1, score=SCORE, **SHAPE)

    outcome = watched.run(make_base(), [by_score], score=Scores(a=[0.5, 0.25]))["a"].outcome

    assert (outcome.reason, outcome.step, outcome.checkpoint.score) == ("StoppedEarly", 8, 0.5)


def test_a_wish_to_leave_while_answers_are_made_is_heard_and_costs_no_evaluation(
    make_base, make_stopping, watched, tmp_path
):
    job = make_stopping("a", patience=3, score=SCORE, **SHAPE)
    values = [0.5, 0.4, 0.3, 0.2]
    whole = watched.run(make_base(), [job], score=Scores(a=values))["a"].outcome
    shutil.rmtree(tmp_path / "a")
    first, second = type(watched)(), type(watched)()
    scores = Scores(a=values)

    def leaving():
        return len(scores.asked) >= 2  # in the middle of the second evaluation

    def asked():
        return [Command(verb=Verb.SUSPEND, job="a")] if leaving() else []

    left = first.run(make_base(), [job], score=scores, leaving=leaving, poll_commands=asked)["a"].outcome
    again = second.run(make_base(), [job], score=Scores(a=values[1:]))["a"].outcome

    assert (left.phase, left.step) == ("Suspended", 4)
    assert first.values("a", "evalScore") == [0.5] and second.values("a", "evalScore") == [0.4, 0.3, 0.2]
    assert again.model_copy(update={"checkpoint": None}) == whole.model_copy(update={"checkpoint": None})
    assert again.checkpoint.step == whole.checkpoint.step


def test_an_evaluation_that_a_user_asks_for_is_told_and_does_not_count(make_base, make_stopping, watched):
    plain = watched.run(make_base(), [make_stopping("a", min_delta=1, **STILL)])["a"].outcome.step
    told = len(watched.values("a", "evalLoss"))
    asked = iter([[Command(verb=Verb.EVALUATE, job="b")] * 5])

    outcome = watched.run(
        make_base(), [make_stopping("b", min_delta=1, **STILL)], poll_commands=lambda: next(asked, [])
    )["b"].outcome

    assert outcome.step == plain == 6
    assert len(watched.values("b", "evalLoss")) == told + 5


def test_answers_that_do_not_fit_together_are_made_one_job_at_a_time(make_base, make_stopping, watched):
    scores = Scores(a=[0.5, 0.1, 0.1], b=[0.5, 0.1, 0.1])

    def narrow(adapters, look_up):
        if len(adapters) > 1:
            raise MemoryError
        return scores(adapters, look_up)

    jobs = [make_stopping(name, score=SCORE, **SHAPE) for name in ("a", "b")]
    trained = watched.run(make_base(), jobs, capacity=100_000, score=narrow)

    assert [trained[n].outcome.reason for n in "ab"] == ["StoppedEarly"] * 2


def test_answers_that_do_not_fit_at_all_fail_their_job_alone(make_base, make_stopping, make_job, watched):
    def refuse(adapters, look_up):
        raise MemoryError

    jobs = [make_stopping("a", score=SCORE, **SHAPE), make_job("b")]
    trained = watched.run(make_base(), jobs, score=refuse)

    assert (trained["a"].outcome.phase, trained["a"].outcome.reason) == ("Failed", "OutOfMemory")
    assert "lower maxNewTokens" in trained["a"].outcome.message
    assert trained["b"].outcome.phase == "Succeeded"
