"""The two passes of training: forward and back over a tick, and the loss on rows nobody learns from."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from datatunerx.modeling.base import Base
from datatunerx.modeling.generate import log_likelihood
from datatunerx.modeling.loss import nll_and_gradient
from datatunerx.modeling.stream import Part, filler, pack
from datatunerx.training.lanes import Chunk, Lane, Row


def train_pass(base: Base, tick: Sequence[tuple[Lane, Sequence[Chunk]]]) -> None:
    """Add to every lane's gradient and loss what its chunks give, and count them as passed.

    A lane's loss is the sum over its labels divided by the labels of its own step, whatever else is in the
    tick.
    """
    parts = [_part(lane, chunk) for lane, chunks in tick for chunk in chunks]
    flat = [part for group in parts for part in group]
    hidden = base.pass_through(pack([*flat, *filler(flat)], base.device))
    labels_T = torch.cat([chunk.labels_T for _, chunks in tick for chunk in chunks])
    weights_T = torch.cat(
        [
            torch.full((chunk.tokens,), 1 / max(1, lane.open_window().labels), dtype=torch.float64)
            for lane, chunks in tick
            for chunk in chunks
        ]
    )
    at = (labels_T >= 0).nonzero()[:, 0]
    nll_N = torch.zeros(0, dtype=torch.float64)
    if len(at):
        nll_N = _backward(base, hidden, labels_T, weights_T, at)
    nll_T = torch.zeros(len(labels_T), dtype=torch.float64).index_copy_(0, at, nll_N)
    start = 0
    for lane, chunks in tick:
        window = lane.open_window()
        for chunk in chunks:
            stop = start + chunk.tokens
            window.loss += float((nll_T[start:stop] * weights_T[start:stop]).sum())
            window.passed += 1
            start = stop


def _backward(base: Base, hidden_TD: Tensor, labels_T: Tensor, weights_T: Tensor, at_N: Tensor) -> Tensor:
    """Gradients into the adapters; returns the nll of the rows at `at_N`, float64 on the CPU."""
    at = at_N.to(base.device)
    nll_N, grad_ND = nll_and_gradient(
        base.head,
        hidden_TD.detach()[at],
        labels_T[at_N].to(base.device),
        weights_T[at_N].to(base.device),
    )
    assert grad_ND is not None
    grad_TD = torch.zeros_like(hidden_TD).index_copy_(0, at, grad_ND)
    hidden_TD.backward(grad_TD)
    return nll_N.cpu().double()


def _part(lane: Lane, chunk: Chunk) -> list[Part]:
    if lane.adapter.shape.dropout == 0:
        return [Part(lane.adapter, chunk.ids)]
    # every row by itself: its mask depends on its place in the step only
    seeds = (((lane.job.parameters.seed << 32) + lane.step) * 65_537 + place for place in chunk.places)
    return [
        Part(lane.adapter, [ids], dropout_seed=seed % 2**61)
        for ids, seed in zip(chunk.ids, seeds, strict=True)
    ]


def validation_loss(base: Base, lane: Lane, before_pass: Callable[[], None]) -> float | None:
    """The mean nll of the lane's validate rows."""
    return mean_nll(base, lane, lane.job.validate, before_pass)


def mean_nll(
    base: Base, lane: Lane, rows: Sequence[Row], before_pass: Callable[[], None] = lambda: None
) -> float | None:
    """Mean nll per label token; None if the rows have no label. What `before_pass` raises ends it."""
    asked = [(lane.adapter, ids, labels) for ids, labels in rows]
    found = log_likelihood(base, asked, before_pass=before_pass)
    tokens = sum(one.tokens for one in found)
    return sum(one.nll for one in found) / tokens if tokens else None
