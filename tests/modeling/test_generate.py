"""Many prompts answered at once get the answers each would get alone."""

import math

import pytest
import torch

from datatunerx.modeling import cache, decoding, stack
from datatunerx.modeling.adapters import AdapterShape, make_adapter
from datatunerx.modeling.generate import Decoding, Prompt, generate, log_likelihood
from datatunerx.modeling.stream import Segment


@pytest.fixture
def adapters(base):
    made = []
    for seed in (1, 2):
        adapter = make_adapter(str(seed), AdapterShape(rank=seed + 1), base.widths, seed=seed)
        adapter.flat.copy_(
            torch.randn(adapter.flat.shape, generator=torch.Generator().manual_seed(seed)) * 0.3
        )
        made.append(adapter)
    return made


@pytest.fixture
def prompts(adapters, make_rows):
    ways = [adapters[0], None, adapters[1]]
    return [Prompt(row.tolist(), ways[n % 3]) for n, row in enumerate(make_rows([3, 9, 1, 14, 6, 6, 2]))]


def test_without_an_adapter_the_answer_is_transformers_own(network, base, make_rows):
    for row in make_rows([3, 11]):
        answer = generate(base, [Prompt(row.tolist())], [], Decoding(15))[0]

        theirs = network.generate(row[None], max_new_tokens=15, do_sample=False, eos_token_id=None)
        assert answer.ids == theirs[0, len(row) :].tolist()
        assert answer.finish == "length"


@pytest.mark.parametrize("cache_tokens", [1, 60, 16_384])
def test_a_row_is_answered_as_if_it_were_alone(base, prompts, cache_tokens):
    alone = [generate(base, [prompt], [5], Decoding(12))[0] for prompt in prompts]

    assert generate(base, prompts, [5], Decoding(12), cache_tokens=cache_tokens) == alone


def test_long_prompts_pass_in_pieces_and_rows_move_to_wider_bands_with_the_same_answers(
    network, base, adapters, make_rows, monkeypatch
):
    monkeypatch.setattr(decoding, "PIECE_TOKENS", 7)
    monkeypatch.setattr(decoding, "PASS_TOKENS", 16)
    monkeypatch.setattr(cache, "NARROWEST", 4)
    rows = [row.tolist() for row in make_rows([30, 3, 17, 8, 41, 5])]

    answers = generate(base, [Prompt(row) for row in rows], [], Decoding(25))
    mixed = generate(
        base, [Prompt(row, way) for row in rows for way in (adapters[0], None)], [], Decoding(25)
    )

    for row, answer in zip(rows, answers, strict=True):
        theirs = network.generate(torch.tensor([row]), max_new_tokens=25, do_sample=False, eos_token_id=None)
        assert answer.ids == theirs[0, len(row) :].tolist()
    assert mixed[1::2] == answers


@pytest.fixture
def crowd(base):
    """The base and six adapters: two ranks, other scales, one that leaves some layers alone."""
    ways = [None]
    for seed in range(6):
        targets = ("q_proj", "down_proj") if seed == 2 else ("all-linear",)
        shape = AdapterShape(rank=3 if seed == 4 else 2, alpha=2.0 + seed, targets=targets)
        ways.append(make_adapter(str(seed), shape, base.widths, seed=seed))
        drawn = torch.randn(ways[-1].flat.shape, generator=torch.Generator().manual_seed(seed))
        ways[-1].flat.copy_(drawn * 0.3)
    return ways


def test_few_rows_of_many_adapters_pass_in_batches_with_the_same_answers(base, crowd, make_rows, monkeypatch):
    lengths = [3, 9, 1, 14, 6, 6, 2, 5, 4, 4, 11]
    prompts = [Prompt(row.tolist(), crowd[n % 7]) for n, row in enumerate(make_rows(lengths))]
    together = generate(base, prompts, [], Decoding(12))

    def one_after_the_other(self, segments):
        return (), tuple(segments)

    monkeypatch.setattr(stack.Stacks, "batches", one_after_the_other)

    assert generate(base, prompts, [], Decoding(12)) == together


def test_adapters_of_one_shape_are_one_batch_unless_few_have_nearly_all_rows(base, crowd):
    stacks = stack.Stacks(base.dtype, base.device)

    def batches(*counts):
        ways = sorted((crowd[n] for n in (1, 2, 4)), key=stack.order)[: len(counts)]
        ends = [sum(counts[: n + 1]) for n in range(len(counts))]
        parts = [Segment(way, end - n, end) for way, end, n in zip(ways, ends, counts, strict=True)]
        found, left = stacks.batches(parts)
        return [(len(batch.stack.adapters), batch.places is None) for batch in found], len(left)

    assert batches(2, 2, 2) == ([(3, True)], 0)
    assert batches(1, 2, 2) == ([(3, False)], 0)
    assert batches(2, 2) == ([(3, False)], 0)  # the third may come again
    assert batches(2) == ([(1, True)], 0)  # too few to keep others for
    assert batches(90, 1, 1) == ([], 3)


def test_poison_in_one_adapter_reaches_no_answer_of_another(base, crowd, make_rows):
    prompts = [
        Prompt(row.tolist(), way) for n, row in enumerate(make_rows([4, 7, 3])) for way in crowd[: n + 2]
    ]
    whole = generate(base, prompts, [], Decoding(6))

    crowd[1].flat.fill_(float("nan"))

    beside = generate(base, prompts, [], Decoding(6))
    for prompt, before, after in zip(prompts, whole, beside, strict=True):
        assert (before == after) is (prompt.adapter is not crowd[1])


def test_rows_join_and_leave_between_steps_and_no_answer_changes(base, prompts):
    alone = [generate(base, [prompt], [], Decoding(12))[0].ids for prompt in prompts]
    rows = [decoding.AnswerRow(prompt.ids, 12, prompt.adapter) for prompt in prompts]
    decoder, waiting = decoding.Decoder(base, 10_000), list(rows)
    vanishing = rows[2]

    for step in range(60):
        if waiting and step % 2 == 0:
            decoder.join(waiting.pop(0))
        if len(vanishing.ids) == 3:
            decoder.leave(vanishing)
        decoder.advance()

    assert decoder.rows == 0
    assert vanishing.ids == alone[2][:3]
    assert [row.ids for row in rows if row is not vanishing] == alone[:2] + alone[3:]


def test_an_answer_ends_before_its_stop_token_and_the_others_go_on(base, prompts):
    free = generate(base, prompts, [], Decoding(12))
    stop = free[0].ids[4]

    stopped = generate(base, prompts, [stop], Decoding(12))

    for before, after in zip(free, stopped, strict=True):
        at = before.ids.index(stop) if stop in before.ids else 12
        assert after.ids == before.ids[:at]
        assert after.finish == ("stop" if at < 12 else "length")


def test_tokens_are_told_in_order_as_they_come(base, prompts):
    told = {n: [] for n in range(len(prompts))}

    answers = generate(
        base, prompts, [], Decoding(6), on_token=lambda index, token: told[index].append(token)
    )

    assert [told[n] for n in range(len(prompts))] == [answer.ids for answer in answers]


def test_one_seed_draws_the_same_and_another_draws_differently(base, prompts):
    def draw(seed):
        return [
            a.ids for a in generate(base, prompts, [], Decoding(10, temperature=1.0, top_p=0.9, seed=seed))
        ]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_a_narrow_top_p_takes_the_likeliest_token_only(base, prompts):
    greedy = generate(base, prompts, [], Decoding(8))

    assert generate(base, prompts, [], Decoding(8, temperature=0.7, top_p=1e-9)) == greedy


def test_an_empty_prompt_is_refused_by_number(base):
    with pytest.raises(ValueError, match="prompt 1 has no token"):
        generate(base, [Prompt([1]), Prompt([])], [])


def test_the_likelihood_of_a_row_is_transformers_loss_times_its_labels(network, base, make_rows):
    rows = make_rows([5, 30, 2])
    labels = [row.clone() for row in rows]
    labels[1][:20] = -100

    found = log_likelihood(base, [(None, r.tolist(), n.tolist()) for r, n in zip(rows, labels, strict=True)])

    assert [one.tokens for one in found] == [4, 10, 1]
    for row, label, one in zip(rows, labels, found, strict=True):
        theirs = network(row[None], labels=label[None]).loss.item() * one.tokens
        assert math.isclose(one.nll, theirs, rel_tol=1e-5)


def test_a_row_of_one_token_or_without_labels_has_nothing_to_be_likely(base):
    found = log_likelihood(base, [(None, [1], [1]), (None, [1, 2], [-100, -100])])

    assert [(one.nll, one.tokens) for one in found] == [(0.0, 0), (0.0, 0)]
