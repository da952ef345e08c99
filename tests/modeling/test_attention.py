"""Attention written out as products is the attention of torch's own kernel."""

import pytest
import torch

from datatunerx.modeling import attention
from datatunerx.modeling.stream import Stream

SCALE = 0.125


def attended(length: int, window: int | None, written_out: int, monkeypatch) -> list[torch.Tensor]:
    """The output for one sequence of 6 heads over 2 of keys, and the gradients of all it came from."""
    monkeypatch.setattr(attention, "WRITTEN_OUT", written_out)
    generator = torch.Generator().manual_seed(length)
    # as a model hands them over: heads in front by a transposed view
    made = [torch.randn(length, heads, 16, generator=generator) for heads in (6, 2, 2)]
    leaves = [one.requires_grad_() for one in made]
    out = attention._sequence(*(one.transpose(0, 1) for one in leaves), SCALE, window)
    out.backward(torch.randn(out.shape, generator=generator))
    return [out.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("length", [1, 2, 31, 200])
@pytest.mark.parametrize("window", [None, 8])
def test_written_out_or_by_the_kernel_values_and_gradients_agree(length, window, monkeypatch):
    pairs = zip(
        attended(length, window, 512, monkeypatch), attended(length, window, 0, monkeypatch), strict=True
    )

    for ours, kernels in pairs:
        torch.testing.assert_close(ours, kernels, rtol=1e-4, atol=1e-5)


def test_a_long_sequence_goes_to_the_kernel_which_keeps_no_weights(monkeypatch):
    monkeypatch.setattr(attention, "_written_out", None)

    attended(attention.WRITTEN_OUT + 1, None, attention.WRITTEN_OUT, monkeypatch)


class _Layer(torch.nn.Module):
    layer_idx = 0


def answered(lengths: tuple[int, ...], window: int | None) -> list[torch.Tensor]:
    """What a pass without a way back finds for sequences end to end; the same numbers for each length."""
    drawn = [torch.Generator().manual_seed(length) for length in lengths]
    made = [
        torch.cat(
            [
                torch.randn(length, heads, 16, generator=one)
                for length, one in zip(lengths, drawn, strict=True)
            ]
        )
        for heads in (6, 2, 2)
    ]
    nowhere = torch.zeros(sum(lengths), dtype=torch.long)
    with torch.no_grad():
        out, _ = attention.packed_attention(
            _Layer(), *(one.transpose(0, 1)[None] for one in made), None,
            stream=Stream(nowhere, nowhere, lengths, ()), sliding_window=window,
        )  # fmt: skip
    return list(out[0].split(lengths))


@pytest.mark.parametrize("window", [None, 8])
def test_short_sequences_attended_to_together_find_what_each_finds_alone(window, monkeypatch):
    lengths = (31, 31, 31, 5, 5, attention.TOGETHER + 1, 31)
    together = answered(lengths, window)
    alone = [answered((length,), window)[0] for length in lengths]
    monkeypatch.setattr(attention, "TOGETHER", 0)
    one_by_one = answered(lengths, window)

    for here, there, slow in zip(together, alone, one_by_one, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(here, slow, rtol=1e-4, atol=1e-5)


def test_prompts_of_one_length_are_attended_to_in_one_call(monkeypatch):
    calls = []
    together = attention._together
    monkeypatch.setattr(attention, "_together", lambda *given: calls.append(given) or together(*given))

    answered((40,) * 8, None)

    assert len(calls) == 1
