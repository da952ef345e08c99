"""Linear layers of one frozen base that many adapters share.

The base's product runs once over the whole stream; then every adapter adds `x A^T B * scale` to its own rows.
The gradient of an adapter is added to its flat gradient on the way back; nothing is computed for the frozen
weights, and no gradient flows below the first adapter.

Shapes: T rows of the stream, D width in, O width out, R rank.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from datatunerx.modeling.adapters import Pair
from datatunerx.modeling.frozen import FrozenWeight, product
from datatunerx.modeling.stream import Segment, Stream


class Holder:
    """What the layers of one base look at during a pass."""

    def __init__(self, device: torch.device | str, dtype: torch.dtype) -> None:
        self.stream: Stream | None = None
        self.trigger = torch.zeros((), device=device, dtype=dtype, requires_grad=True)
        """Makes autograd come back through a layer whose input needs no gradient."""


@dataclass(frozen=True)
class _Share:
    """One adapter's share of one layer in one pass."""

    start: int
    stop: int
    scale: float
    pair: Pair
    mask_TD: Tensor | None
    """Already divided by the share kept."""


def _ahead(x_TD: Tensor, weight: FrozenWeight, shares: list[_Share]) -> tuple[Tensor, list[Tensor]]:
    """The layer's output, and what each adapter made of its rows on the way."""
    y_TO = weight.ahead(x_TD)
    downs = []
    for share in shares:
        x = x_TD[share.start : share.stop]
        if share.mask_TD is not None:
            x = x * share.mask_TD
        a, b = _as(x, share.pair.a_RD), _as(x, share.pair.b_RO)
        down_TR = product(x, a)
        y_TO[share.start : share.stop].addmm_(down_TR, b, alpha=share.scale)
        downs.append(down_TR)
    return y_TO, downs


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, trigger: Tensor, weight: FrozenWeight, shares: list[_Share]
    ) -> Tensor:
        y_TO, downs = _ahead(x_TD, weight, shares)
        ctx.save_for_backward(x_TD, *downs)
        ctx.weight, ctx.shares = weight, shares
        return y_TO

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, None, None, None]:
        x_TD, *downs = ctx.saved_tensors
        grad_TO: Tensor = grads[0]
        grad_x = ctx.weight.back(grad_TO) if ctx.needs_input_grad[0] else None
        for share, down_TR in zip(ctx.shares, downs, strict=True):
            rows = slice(share.start, share.stop)
            grad, pair = grad_TO[rows], share.pair
            a, b = _as(grad, pair.a_RD), _as(grad, pair.b_RO)
            grad_down_TR = product(grad, b).mul_(share.scale)
            x = x_TD[rows] if share.mask_TD is None else x_TD[rows] * share.mask_TD
            _add_product(pair.grad_b_RO, down_TR, grad, share.scale)
            _add_product(pair.grad_a_RD, grad_down_TR, x, 1.0)
            if grad_x is None:
                continue
            if share.mask_TD is None:
                grad_x[rows].addmm_(grad_down_TR, a)
            else:
                grad_x[rows].addcmul_(grad_down_TR @ a, share.mask_TD)
        return grad_x, None, None, None


_fused: Any = _Fused.apply


def _as(like: Tensor, weight: Tensor) -> Tensor:
    return weight if weight.dtype == like.dtype else weight.to(like.dtype)


def _add_product(total: Tensor, left_TR: Tensor, right_TX: Tensor, scale: float) -> None:
    """total += scale * left^T right, kept in the adapter's own type."""
    if total.dtype == left_TR.dtype:
        total.addmm_(left_TR.T, right_TX, alpha=scale)
    else:
        total.add_(left_TR.T @ right_TX, alpha=scale)


class FusedLinear(nn.Module):
    """Stands where one linear layer stood."""

    def __init__(self, linear: nn.Linear, name: str, index: int, holder: Holder) -> None:
        super().__init__()
        self.frozen = FrozenWeight(
            linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
        )
        self.name = name
        self.index = index
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._holder = holder

    def forward(self, x: Tensor) -> Tensor:
        stream = self._holder.stream
        x_TD = x.reshape(-1, self.in_features)
        shares = [] if stream is None else self._shares(stream, x)
        if torch.is_grad_enabled():
            trigger = self._holder.trigger if shares else None
            y_TO: Tensor = _fused(x_TD, trigger, self.frozen, shares)
        else:
            y_TO, _ = _ahead(x_TD, self.frozen, shares)
            for batch in () if stream is None else stream.batches:
                batch.add(self.name, x_TD, y_TO)
        return y_TO.view(*x.shape[:-1], self.out_features)

    def _shares(self, stream: Stream, x: Tensor) -> list[_Share]:
        found = []
        for segment in stream.segments:
            pair = segment.adapter.pairs.get(self.name)
            if pair is not None:
                mask = self._mask(segment, x)
                found.append(_Share(segment.start, segment.stop, segment.adapter.scale, pair, mask))
        return found

    def _mask(self, segment: Segment, x: Tensor) -> Tensor | None:
        share = segment.adapter.shape.dropout
        if segment.dropout_seed is None or share == 0:
            return None
        # One seed per micro-batch and layer: what is dropped depends on nothing else in the stream.
        seed = (segment.dropout_seed * 1_000_003 + self.index) % 2**63
        generator = torch.Generator(device=x.device).manual_seed(seed)
        mask = torch.empty(segment.stop - segment.start, self.in_features, device=x.device, dtype=x.dtype)
        return mask.bernoulli_(1 - share, generator=generator).div_(1 - share)
