"""Several adapters side by side as one, for passes in which each has only a few rows.

One adapter after the other costs two small products for each in every layer, and with a row or two of each
these take longer than the base itself. Here all rows pass through all adapters at once, and what is not a
row's own is multiplied by zero on the way.

Shapes: T rows of the stream, D width in, O width out, S ranks of all adapters together.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from datatunerx.modeling.adapters import Adapter
from datatunerx.modeling.frozen import FrozenWeight
from datatunerx.modeling.stream import Segment

WORTH = 4096
"""T x S, for each adapter of a pass, up to which one wide product is faster than small ones for each."""


class Stack:
    """The matrices of several adapters. Made from their weights as they are now."""

    def __init__(self, adapters: Sequence[Adapter], dtype: torch.dtype) -> None:
        self.adapters = tuple(adapters)
        self.rank = sum(adapter.shape.rank for adapter in adapters)
        self.pairs: dict[str, tuple[FrozenWeight, Tensor]] = {}
        """By layer: A stacked [S, D], and B stacked [S, O]."""
        stacked: dict[str, tuple[Tensor, Tensor]] = {}
        self._columns: dict[int, slice] = {}
        at = 0
        for adapter in adapters:
            self._columns[id(adapter)] = slice(at, at := at + adapter.shape.rank)
            for layer, pair in adapter.pairs.items():
                if layer not in stacked:
                    stacked[layer] = (
                        pair.a_RD.new_zeros(self.rank, pair.a_RD.shape[1], dtype=dtype),
                        pair.b_RO.new_zeros(self.rank, pair.b_RO.shape[1], dtype=dtype),
                    )
                for whole, own in zip(stacked[layer], (pair.a_RD, pair.b_RO), strict=True):
                    whole[self._columns[id(adapter)]] = own
        self.pairs = {layer: (FrozenWeight(a_SD), b_SO) for layer, (a_SD, b_SO) in stacked.items()}

    def covers(self, segments: Sequence[Segment]) -> bool:
        return all(id(segment.adapter) in self._columns for segment in segments)

    def scales(self, segments: Sequence[Segment], tokens: int, like: Tensor) -> Tensor:
        """Each row's own adapter's scale in that adapter's columns, zero in all others; [T, S]."""
        own_TS = torch.zeros(tokens, self.rank, dtype=like.dtype)
        for segment in segments:
            own_TS[segment.start : segment.stop, self._columns[id(segment.adapter)]] = segment.adapter.scale
        return own_TS.to(like.device)


def stack_for(
    segments: Sequence[Segment], tokens: int, before: Stack | None, dtype: torch.dtype
) -> Stack | None:
    """A stack for a pass of so many rows, `before` if it will do; None where it is not worth it."""
    wanted = list({id(segment.adapter): segment.adapter for segment in segments}.values())
    most = WORTH * len(wanted)
    if len(wanted) < 2 or tokens * sum(adapter.shape.rank for adapter in wanted) > most:
        return None
    if before is not None:
        if before.covers(segments) and tokens * before.rank <= most:
            return before
        others = [adapter for adapter in before.adapters if all(adapter is not one for one in wanted)]
        if tokens * sum(adapter.shape.rank for adapter in (*wanted, *others)) <= most:
            wanted += others  # who was asked a moment ago will be asked again
    return Stack(wanted, dtype)
