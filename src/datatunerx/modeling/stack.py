"""Adapters of one shape side by side, so that a pass with few rows of each takes two products for all.

One adapter after the other costs two small products for each in every layer, and with a row or two of each
these take longer than the base itself. Here each adapter's rows are one matrix of a batch, which meets that
adapter's weights only: nothing is computed twice, and what one adapter holds reaches nobody else.

Shapes: T rows of the stream, N adapters, M rows of each, P of those places taken, D width in, O width out,
R rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from datatunerx.modeling.adapters import Adapter
from datatunerx.modeling.stream import Segment

FEW = 16
"""Rows of one adapter beyond half the mean that are worth filling up the others' places for."""


def order(adapter: Adapter | None) -> tuple[int, tuple[str, ...], int]:
    """By this, adapters of one shape lie together in a pass; the base's rows come first."""
    return (0, (), 0) if adapter is None else (adapter.shape.rank, tuple(adapter.pairs), id(adapter))


class Stack:
    """The matrices of adapters of one shape. Made from their weights as they are now."""

    def __init__(self, adapters: Sequence[Adapter], dtype: torch.dtype) -> None:
        self.adapters = sorted(adapters, key=order)
        self.pairs: dict[str, tuple[Tensor, Tensor]] = {}
        """By layer: A [N, D, R], and B with its adapter's scale [N, R, O]."""
        for layer in self.adapters[0].pairs:
            pairs = [adapter.pairs[layer] for adapter in self.adapters]
            a_NRD = torch.stack([pair.a_RD for pair in pairs])
            b_NRO = torch.stack(
                [pair.b_RO * one.scale for pair, one in zip(pairs, self.adapters, strict=True)]
            )
            # A is not laid out anew: with its rows as they are, products of more than a row or two are faster
            self.pairs[layer] = a_NRD.to(dtype).transpose(1, 2), b_NRO.to(dtype)


class _Places(NamedTuple):
    """Where the rows of a batch stand, if not one adapter's after another's and as many of each."""

    from_NM: Tensor
    """Row of the stream that each place takes; the free places of an adapter take any."""
    at_P: Tensor
    """Rows of the stream that have a place."""
    taken_P: Tensor
    """Their places."""


@dataclass(frozen=True)
class Batch:
    """The rows of one pass that go through one stack."""

    stack: Stack
    rows: slice
    """Of the stream: from the first to the last."""
    places: _Places | None

    def add(self, layer: str, x_TD: Tensor, y_TO: Tensor) -> None:
        """Add to each row of `y_TO` what its adapter makes of the same row of `x_TD`."""
        pair = self.stack.pairs.get(layer)
        if pair is None:
            return
        a_NDR, b_NRO = pair
        count = len(a_NDR)
        if self.places is None:
            down_NMR = torch.bmm(x_TD[self.rows].view(count, -1, x_TD.shape[1]), a_NDR)
            y_TO[self.rows].view(count, -1, y_TO.shape[1]).baddbmm_(down_NMR, b_NRO)
            return
        from_NM, at_P, taken_P = self.places
        x_NMD = x_TD.index_select(0, from_NM).view(count, -1, x_TD.shape[1])
        up_NMO = torch.bmm(torch.bmm(x_NMD, a_NDR), b_NRO)
        y_TO.index_add_(0, at_P, up_NMO.view(-1, y_TO.shape[1]).index_select(0, taken_P))


class Stacks:
    """What is stacked for the passes over one base."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._device = dtype, device
        self._kept: dict[tuple[int, tuple[str, ...]], Stack] = {}
        """By shape."""

    def clear(self) -> None:
        """Nobody is to be answered at present; adapters may be taken away meanwhile."""
        self._kept.clear()

    def batches(self, segments: Sequence[Segment]) -> tuple[tuple[Batch, ...], tuple[Segment, ...]]:
        """What of these passes in batches, and the segments for which that is not worth it.

        The segments are in the order of `order`, one for each adapter.
        """
        found: list[Batch] = []
        left: list[Segment] = []
        for shape, group in groupby(segments, key=lambda one: order(one.adapter)[:2]):
            alike = list(group)
            stack = _covering(self._kept.get(shape), [one.adapter for one in alike], self._dtype)
            self._kept[shape] = stack
            batch = _batch(stack, alike, self._device)
            if batch is None:
                left += alike
            else:
                found.append(batch)
        return tuple(found), tuple(left)


def _covering(before: Stack | None, wanted: list[Adapter], dtype: torch.dtype) -> Stack:
    """A stack of the wanted, and of half as many others: who was asked a moment ago will be asked again."""
    names = {id(adapter) for adapter in wanted}
    held = [] if before is None else before.adapters
    others = [adapter for adapter in held if id(adapter) not in names]
    most = len(wanted) // 2
    if before is not None and len(held) - len(others) == len(wanted) and len(others) <= most:
        return before
    return Stack([*wanted, *others[:most]], dtype)


def _batch(stack: Stack, segments: list[Segment], device: torch.device) -> Batch | None:
    """None where filling up the places of those with fewer rows costs more than it saves."""
    counts = [one.stop - one.start for one in segments]
    rows, adapters, most = sum(counts), len(stack.adapters), max(counts)
    span = slice(segments[0].start, segments[-1].stop)
    if adapters == len(segments) and adapters * most == rows:
        return Batch(stack, span, None)
    if adapters * most > FEW * adapters + rows / 2:
        return None
    place = {id(adapter): n * most for n, adapter in enumerate(stack.adapters)}
    at_P = torch.arange(span.start, span.stop)
    taken_P = torch.cat(
        [torch.arange(n) + place[id(one.adapter)] for n, one in zip(counts, segments, strict=True)]
    )
    from_NM = torch.full((adapters * most,), span.start).index_copy_(0, taken_P, at_P)
    return Batch(stack, span, _Places(*(one.to(device) for one in (from_NM, at_P, taken_P))))
