"""Training beside others is training alone."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from datatunerx.training.lanes import choose, make_window


def weights(trained, name):
    return trained[name].adapter.flat


DIFFERENT = {
    "a": {"lora": {"rank": 2}, "seed": 1, "batch_size": 2},
    "bb": {"lora": {"rank": 5, "alpha": 3, "dropout": 0.2}, "seed": 2, "batch_size": 3, "optimizer": "sgd"},
    "ccc": {
        "lora": {"rank": 4, "targets": ["v_proj", "down_proj"]}, "seed": 3, "gradient_accumulation": 3,
        "scheduler": "linear", "weight_decay": 0.1, "max_grad_norm": 0.05, "max_steps": 9,
    },
}  # fmt: skip


@pytest.fixture
def alone(make_base, make_job, watched, tmp_path):
    def train_alone(dtype, capacity, **more):
        base, found = make_base(dtype), {}
        for name, settings in DIFFERENT.items():
            job = make_job(name, folder=tmp_path / f"alone-{name}-{dtype}-{capacity}", **(settings | more))
            found[name] = weights(watched.run(base, [job], capacity=capacity), name).clone()
        return found

    return train_alone


@pytest.mark.slow
def test_twenty_steps_beside_others_end_with_the_weights_of_twenty_steps_alone(
    make_base, make_job, watched, alone
):
    expected = alone(torch.float64, 100, max_steps=20)

    trained = watched.run(
        make_base(torch.float64),
        [make_job(n, **(s | {"max_steps": 20})) for n, s in DIFFERENT.items()],
        capacity=100,
    )

    for name, flat in expected.items():
        assert torch.allclose(weights(trained, name), flat, rtol=0, atol=1e-9), name


@pytest.fixture
def four_threads():
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(1)


def test_with_several_threads_too_the_bytes_do_not_depend_on_the_neighbours(
    make_base, make_job, make_rows, watched, four_threads, tmp_path
):
    """Threads cut a tensor where they like; what is cut off a vector rounds differently."""
    base = make_base(intermediate_size=200)
    rows = {name: make_rows(10, seed=seed, shortest=31, longest=77) for seed, name in enumerate("abc")}

    def flats(names, folder):
        jobs = [
            make_job(n, rows[n], folder=tmp_path / folder / n, batch_size=5, max_steps=2, learning_rate=0.1)
            for n in names
        ]
        return {n: t.adapter.flat for n, t in watched.run(base, jobs, capacity=1000).items()}

    together = flats("cab", "together")

    for name in rows:
        assert torch.equal(flats(name, "alone")[name], together[name]), name


@pytest.mark.slow
def test_in_float32_the_very_bytes_are_the_same_in_any_order_and_width(
    make_base, make_job, watched, alone, tmp_path
):
    expected = alone(torch.float32, 200)

    for number, order in enumerate(itertools.permutations(DIFFERENT)):
        jobs = [make_job(n, folder=tmp_path / f"{number}-{n}", **DIFFERENT[n]) for n in order]
        trained = watched.run(make_base(), jobs, capacity=200)
        for name, flat in expected.items():
            assert torch.equal(weights(trained, name), flat), (order, name)


def test_a_wider_tick_changes_rounding_only(make_base, alone):
    narrow, wide = alone(torch.float64, 20), alone(torch.float64, 400)

    for name in DIFFERENT:
        assert torch.allclose(narrow[name], wide[name], rtol=0, atol=1e-9), name


def test_one_batch_of_four_is_four_batches_of_one(make_base, make_job, make_rows, watched):
    """Unequal lengths: a mean of means would weigh a short row's tokens more."""
    rows = make_rows(20, shortest=3, longest=40)
    shapes = {"one": (4, 1), "four": (1, 4)}
    jobs = [
        make_job(name, rows, batch_size=b, gradient_accumulation=a, save_every=1000)
        for name, (b, a) in shapes.items()
    ]

    trained = watched.run(make_base(), jobs, capacity=10)

    assert watched.values("one", "loss") == pytest.approx(watched.values("four", "loss"), rel=1e-5)
    assert watched.values("one", "gradNorm") == pytest.approx(watched.values("four", "gradNorm"), rel=1e-5)
    assert torch.allclose(weights(trained, "one"), weights(trained, "four"), rtol=1e-5, atol=1e-6)


def test_the_loss_is_the_mean_over_the_label_tokens_of_the_step(make_base, make_job, make_rows, watched):
    from transformers import LlamaConfig, LlamaForCausalLM

    rows = make_rows(4)
    torch.manual_seed(0)
    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, tie_word_embeddings=True,
        )
    ).eval()  # fmt: skip
    total = count = 0
    for ids, labels in ((torch.tensor(i).long(), torch.tensor(n).long()) for i, n in rows):
        logits = network(ids[None]).logits[0, :-1].detach()
        total += float(
            torch.nn.functional.cross_entropy(logits, labels[1:], reduction="sum", ignore_index=-100)
        )
        count += int((labels[1:] >= 0).sum())

    watched.run(make_base(), [make_job("a", rows, max_steps=1)])

    assert watched.values("a", "loss")[0] == pytest.approx(total / count, rel=1e-5)


def test_poison_ends_its_own_job_and_names_its_rows(make_base, make_job, make_rows, watched, alone):
    """A learning rate that overflows: that job fails, its neighbours keep their very bytes."""
    expected = alone(torch.float32, 200)
    names = [f"train.jsonl:{n}" for n in range(1, 21)]
    bad = make_job("bad", make_rows(20), learning_rate=10, max_grad_norm=0, optimizer="sgd", max_steps=50,
                   weight_decay=10, row_names=names, scheduler="constant", warmup_ratio=0)  # fmt: skip

    trained = watched.run(make_base(), [bad, *(make_job(n, **s) for n, s in DIFFERENT.items())], capacity=200)

    outcome = trained["bad"].outcome
    assert (outcome.phase, outcome.reason) == ("Failed", "NonFiniteLoss")
    assert outcome.message.count("train.jsonl:") == 4
    assert 0 < outcome.step < 50
    assert all(torch.isfinite(torch.tensor(watched.values("bad", "loss"))))
    for name, flat in expected.items():
        assert trained[name].outcome.phase == "Succeeded"
        assert torch.equal(weights(trained, name), flat), name


def test_the_optimizers_are_torchs_own(make_base, make_job, make_rows, watched):
    """AdamW with decay and clipping, step by step, on the gradients the engine found."""
    from datatunerx.resources.training import TrainingParameters
    from datatunerx.training.optimizer import clip, new_moments, update

    for kind, settings in (("adamw", {"weight_decay": 0.1}), ("sgd", {})):
        parameters = TrainingParameters.model_validate({"optimizer": kind, "max_grad_norm": 0.5} | settings)
        generator = torch.Generator().manual_seed(0)
        ours = torch.randn(50, generator=generator, dtype=torch.float64)
        theirs = torch.nn.Parameter(ours.clone())
        optimizer = (
            torch.optim.AdamW([theirs], lr=1e-2, weight_decay=0.1)
            if kind == "adamw"
            else torch.optim.SGD([theirs], lr=1e-2)
        )
        moments = new_moments(parameters, ours)
        for _ in range(5):
            grad = torch.randn(50, generator=generator, dtype=torch.float64)
            theirs.grad = grad.clone()
            norm = torch.nn.utils.clip_grad_norm_([theirs], 0.5)
            optimizer.step()
            assert clip(grad, 0.5) == pytest.approx(float(norm))
            update(ours, grad, moments, parameters, 1e-2)
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)


def test_chunks_hold_every_row_once_and_stay_near_the_capacity(make_rows):
    rows = make_rows(30, longest=40)
    numbers = list(range(29, -1, -1))

    for capacity in (1, 50, 100, 10_000):
        window = make_window(rows, numbers, capacity)
        assert [row for chunk in window.chunks for row in chunk.rows] == numbers
        assert all(chunk.rows for chunk in window.chunks)
        if capacity in (50, 100):
            assert max(chunk.tokens for chunk in window.chunks) < 2 * capacity
    assert len(make_window(rows, numbers, 10_000).chunks) == 1


def test_a_tick_takes_the_longest_remaining_job_first_and_fills_up_with_the_others(make_rows):
    rows = make_rows(12, shortest=10, longest=10)

    def lane(name, remaining, count, capacity=1000):
        window = make_window(rows, range(count), capacity)
        return SimpleNamespace(name=name, remaining=remaining, open_window=lambda: window)

    lanes = [
        lane("short", 10, 2),
        lane("long", 99, 3),
        lane("middle", 50, 6),
        lane("cut", 20, 4, capacity=20),
    ]

    def chosen(capacity):
        return [(one.name, sum(chunk.tokens for chunk in chunks)) for one, chunks in choose(lanes, capacity)]

    assert chosen(5) == [("long", 30)]
    assert chosen(60) == [("long", 30), ("cut", 20)]
    assert chosen(1000) == [("long", 30), ("middle", 60), ("cut", 40), ("short", 20)]
