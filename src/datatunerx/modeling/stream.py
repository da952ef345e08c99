"""The token stream of one pass: sequences end to end, no padding, each adapter's rows contiguous."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from datatunerx.modeling.adapters import Adapter

if TYPE_CHECKING:
    from datatunerx.modeling.cache import RowCache
    from datatunerx.modeling.stack import Batch


@dataclass(frozen=True)
class Segment:
    """Rows `start` to `stop` of the stream, which go through one adapter."""

    adapter: Adapter
    start: int
    stop: int
    dropout_seed: int | None = None
    """Seeds this segment's dropout; None leaves the adapter's inputs whole."""


@dataclass(frozen=True)
class Stream:
    """What one pass computes. Positions restart with every sequence."""

    ids_T: Tensor
    positions_T: Tensor
    lengths: tuple[int, ...]
    segments: tuple[Segment, ...]
    cache: "RowCache | None" = field(default=None, repr=False)
    batches: "tuple[Batch, ...]" = field(default=(), repr=False)
    """Rows that pass through several adapters at once, in no segment; only where nothing is learnt."""

    @property
    def tokens(self) -> int:
        return int(self.ids_T.shape[0])


@dataclass(frozen=True)
class Part:
    """Sequences that go through one adapter (None: the base alone)."""

    adapter: Adapter | None
    rows: Sequence[Tensor]
    """Token ids of each sequence, int32 or int64."""
    dropout_seed: int | None = None


EVEN = 32
"""Twice the widest vector of float32 a CPU has."""


def filler(parts: Sequence[Part]) -> list[Part]:
    """A part that rounds a stream up to `EVEN` rows.

    Vector loops leave a tail to scalar code, which rounds differently. Without a tail, a row's numbers are
    the same to the last bit whatever shares its stream, so a job's bytes do not depend on its neighbours.
    """
    short = -sum(len(row) for part in parts for row in part.rows) % EVEN
    return [Part(None, [torch.zeros(short, dtype=torch.long)])] if short else []


def pack(parts: Sequence[Part], device: torch.device | str = "cpu") -> Stream:
    """One stream out of the parts, in their order."""
    rows = [row for part in parts for row in part.rows]
    ids = torch.cat(list(rows)).to(device=device, dtype=torch.long)
    positions = torch.cat([torch.arange(len(row)) for row in rows]).to(device)
    segments, at = [], 0
    for part in parts:
        stop = at + sum(len(row) for row in part.rows)
        if part.adapter is not None:
            segments.append(Segment(part.adapter, at, stop, part.dropout_seed))
        at = stop
    return Stream(ids, positions, tuple(len(row) for row in rows), tuple(segments))
