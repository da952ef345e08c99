"""What each step sees and how fast it learns."""

import pytest
import torch

from datatunerx.resources.training import TrainingParameters
from datatunerx.training import capacity
from datatunerx.training.capacity import SIZES, knee, tick_capacity
from datatunerx.training.schedule import is_due, learning_rate, plan_course, save_interval


def parameters(**settings):
    return TrainingParameters.model_validate(settings)


def test_every_epoch_sees_every_row_once_in_an_order_of_its_own():
    course = plan_course(parameters(batch_size=2, gradient_accumulation=2, epochs=2, seed=5), 10)

    assert (course.steps, course.steps_per_epoch) == (6, 3)
    first, second = (
        [row for step in steps for row in course.rows_of(step)] for steps in ((0, 1, 2), (3, 4, 5))
    )
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert [len(course.rows_of(step)) for step in range(3)] == [4, 4, 2]


def test_another_seed_is_another_order():
    orders = {tuple(plan_course(parameters(seed=seed, batch_size=20), 20).rows_of(0)) for seed in range(5)}

    assert len(orders) == 5


@pytest.mark.parametrize(("epochs", "steps"), [(1, 3), (0.5, 2), (0.01, 1), (2.5, 8)])
def test_parts_of_an_epoch_are_rounded_up_to_steps(epochs, steps):
    assert plan_course(parameters(batch_size=4, epochs=epochs), 10).steps == steps


def test_max_steps_wins_over_epochs_and_goes_round():
    course = plan_course(parameters(batch_size=4, epochs=1, max_steps=7), 10)

    assert course.steps == 7
    assert course.epoch_after(6) == 2.0
    assert len(course.rows_of(6)) == 4


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="no row to learn from"):
        plan_course(parameters(), 0)


def test_the_rate_rises_in_the_warm_up_then_follows_the_scheduler():
    def rates(scheduler):
        p = parameters(learning_rate=1.0, warmup_ratio=0.2, scheduler=scheduler)
        return [learning_rate(p, step, 10) for step in range(10)]

    assert rates("constant") == pytest.approx([1 / 3, 2 / 3, *[1.0] * 8])
    assert rates("linear")[2:] == pytest.approx([1 - n / 8 for n in range(8)])
    assert rates("cosine")[6] == pytest.approx(0.5)
    assert rates("cosine")[2] == pytest.approx(1.0)


def test_ten_checkpoints_unless_told_otherwise_and_always_one_at_the_end():
    assert save_interval(parameters(), 95) == 10
    assert save_interval(parameters(), 3) == 1
    assert save_interval(parameters(save_every=7), 95) == 7
    assert [step for step in range(1, 11) if is_due(step, 4, 10)] == [4, 8, 10]
    assert [step for step in range(1, 11) if is_due(step, 0, 10)] == [10]


def test_the_knee_is_the_last_width_that_paid_and_no_wider_one_is_tried():
    speeds, asked = {256: 1000, 512: 1500, 1024: 1550, 2048: 4000}, []

    def speed(size):
        asked.append(size)
        return speeds[size]

    assert knee((256, 512, 1024, 2048), speed) == 512
    assert asked == [256, 512, 1024]


def test_no_wider_tick_is_tried_where_a_narrow_one_takes_long():
    assert knee((256, 512), lambda size: size / 2) == 256


@pytest.mark.parametrize(("room", "found"), [(1024, 1024), (100, SIZES[0])])
def test_where_memory_ends_widening_ends_and_the_figure_is_not_kept(
    make_base, tmp_path, monkeypatch, room, found
):
    def speed(_, size):
        if size > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return float(size**2)

    monkeypatch.setattr(capacity, "_speed", speed)

    assert tick_capacity(make_base(), tmp_path) == found
    assert list(tmp_path.iterdir()) == []


def test_a_figure_that_cannot_be_kept_costs_a_warning_and_not_the_run(
    make_base, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(capacity, "_speed", lambda _, size: 1000.0)
    (tmp_path / "file").touch()

    assert tick_capacity(make_base(), tmp_path / "file" / "cache") == SIZES[0]
    assert "not remembered" in capsys.readouterr().out
    assert tick_capacity(make_base(), tmp_path / "cache") == SIZES[0]
    assert (tmp_path / "cache" / "tick-capacity.json").exists()
