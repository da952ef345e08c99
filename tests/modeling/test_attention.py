"""Attention written out as products is the attention of torch's own kernel."""

import pytest
import torch

from datatunerx.modeling import attention

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
