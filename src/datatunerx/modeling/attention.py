"""Attention over a packed stream, entered through transformers' table of attention functions.

Each sequence attends to itself only, one call per sequence; with a cache, each row's new token attends to
what that row has seen. Short sequences on a CPU are written out as products, which keeps their weights for
the way back: there torch's own kernel takes two to three times as long (docs/log.md). Where nothing is
learnt, the shortest of one length are attended to in one call.

Shapes: H heads, K heads of keys and values, G = H / K, T rows of the stream, N sequences of one length, L
rows of one sequence, E width of a head.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from datatunerx.modeling.frozen import product, takes_onednn
from datatunerx.modeling.stream import Stream

NAME = "datatunerx-packed"
WRITTEN_OUT = 512
"""Longest sequence whose attention is written out: what it keeps grows with the square of its length."""
TOGETHER = 64
"""Longest sequence that is attended to in one call with others of its length; longer ones gain nothing."""

_Asked = tuple[Tensor, Tensor, Tensor]
"""A sequence's queries [H, L, E], and its keys and values [K, L or more, E]."""


def packed_attention(
    module: nn.Module,
    query_1HTE: Tensor,
    key_1KTE: Tensor,
    value_1KTE: Tensor,
    attention_mask: Tensor | None,
    *,
    stream: Stream,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention of every sequence of the stream; returns [1, T, H, E]."""
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if stream.cache is not None and not stream.cache.filling:
        out = stream.cache.attend(layer, query_1HTE[0], key_1KTE[0], value_1KTE[0], scaling, sliding_window)
        return out[None], None
    keys, values = (x[0].split(stream.lengths, dim=1) for x in (key_1KTE, value_1KTE))
    seen = list(zip(keys, values, strict=True))
    if stream.cache is not None:
        seen = stream.cache.fill(layer, key_1KTE[0], value_1KTE[0])
    scale = query_1HTE.shape[-1] ** -0.5 if scaling is None else scaling
    outs = []
    queries = query_1HTE[0].split(stream.lengths, dim=1)
    sequences = [(query, *one) for query, one in zip(queries, seen, strict=True)]
    for length, alike in groupby(sequences, _length_together):
        if length:
            outs.append(_together(alike, scale, sliding_window))
        else:
            outs += [_sequence(*one, scale, sliding_window) for one in alike]
    return torch.cat(outs)[None], None


def _length_together(sequence: _Asked) -> int:
    """The length of one that goes with its neighbours of that length; 0 for one by itself."""
    query_HLE, key_KLE, _ = sequence
    length = query_HLE.shape[1]
    short = length <= TOGETHER and length == key_KLE.shape[1]
    return length if short and takes_onednn(query_HLE) and not torch.is_grad_enabled() else 0


def _together(alike: Iterable[_Asked], scale: float, window: int | None) -> Tensor:
    """The attention of sequences of one length, end to end, [N L, H, E]."""
    query, key, value = (torch.stack(parts) for parts in zip(*alike, strict=True))
    count, heads, length, width = query.shape
    each = count * key.shape[1]
    query, key, value = (x.view(each, -1, width) for x in (query, key, value))
    mask_LL = _kept_mask(length, window, query.dtype, query.device)
    mask = mask_LL.repeat(query.shape[1] // length, 1).expand(each, -1, -1)
    weights = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=scale).softmax(-1)
    out_NHLE = torch.bmm(weights, value).view(count, heads, length, width)
    return out_NHLE.transpose(1, 2).reshape(-1, heads, width)


def _sequence(
    query_HLE: Tensor, key_KLE: Tensor, value_KLE: Tensor, scale: float, window: int | None
) -> Tensor:
    """The attention of one sequence, [L, H, E]; the queries are those of its last L tokens."""
    whole = query_HLE.shape[1] == key_KLE.shape[1]
    if whole and takes_onednn(query_HLE) and query_HLE.shape[1] <= WRITTEN_OUT:
        out: Tensor = _written_out(query_HLE, key_KLE, value_KLE, scale, window)
        return out
    return _kernel(query_HLE, key_KLE, value_KLE, scale, window).transpose(0, 1)


def _kernel(
    query_HLE: Tensor, key_KLE: Tensor, value_KLE: Tensor, scale: float, window: int | None
) -> Tensor:
    groups, length = query_HLE.shape[0] // key_KLE.shape[0], key_KLE.shape[1]
    mask = None
    if query_HLE.shape[1] < length or (window is not None and length > window):
        mask = _mask(length, window, query_HLE.dtype, query_HLE.device)[-query_HLE.shape[1] :]
    return nn.functional.scaled_dot_product_attention(
        query_HLE[None],
        key_KLE[None],
        value_KLE[None],
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=groups > 1,
    )[0]


class _WrittenOut(torch.autograd.Function):
    """softmax(q k^T * scale + mask) v, one head of keys with its G heads of queries at a time."""

    @staticmethod
    def forward(
        ctx: Any, query_HLE: Tensor, key_KLE: Tensor, value_KLE: Tensor, scale: float, window: int | None
    ) -> Tensor:
        heads, length, width = query_HLE.shape
        groups = heads // key_KLE.shape[0]
        mask_LL = _kept_mask(length, window, query_HLE.dtype, query_HLE.device)
        query_HLE = torch.mul(query_HLE, scale, out=query_HLE.new_empty(query_HLE.shape))
        # rows with gaps between them would fall to oneDNN's slow reference product
        key_KLE, value_KLE = key_KLE.contiguous(), value_KLE.contiguous()
        out_LHE = query_HLE.new_empty(length, heads, width)
        kept = []
        for one, (key_LE, value_LE) in enumerate(zip(key_KLE, value_KLE, strict=True)):
            of = slice(one * groups, (one + 1) * groups)
            scores = product(query_HLE[of].view(-1, width), key_LE)
            scores.view(groups, length, length).add_(mask_LL)
            weights = scores.softmax(-1)
            out_LHE[:, of] = product(weights, value_LE.T).view(groups, length, width).transpose(0, 1)
            kept.append(weights)
        ctx.save_for_backward(query_HLE, key_KLE, value_KLE, *kept)
        ctx.scale = scale
        return out_LHE

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query_HLE, key_KLE, value_KLE, *kept = ctx.saved_tensors
        _, length, width = query_HLE.shape
        groups = len(query_HLE) // len(kept)
        grad_HLE = grads[0].transpose(0, 1).contiguous()
        grad_query, grad_key, grad_value = (torch.empty_like(t) for t in (query_HLE, key_KLE, value_KLE))
        for one, weights in enumerate(kept):
            of = slice(one * groups, (one + 1) * groups)
            grad, query = grad_HLE[of].view(-1, width), query_HLE[of].view(-1, width)
            torch.mm(weights.T, grad, out=grad_value[one])
            grad_scores = torch._softmax_backward_data(
                product(grad, value_KLE[one]), weights, -1, weights.dtype
            )
            grad_query[of] = product(grad_scores, key_KLE[one].T).mul_(ctx.scale).view(-1, length, width)
            torch.mm(grad_scores.T, query, out=grad_key[one])
        return grad_query, grad_key, grad_value, None, None


_written_out: Any = _WrittenOut.apply


def _mask(length: int, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What to add to scores: 0 where a row may look, minus infinity where not."""
    at = torch.arange(length, device=device)
    apart = at[:, None] - at[None, :]
    seen = (apart >= 0) & (apart < (window or length))
    return torch.zeros(length, length, dtype=dtype, device=device).masked_fill_(~seen, float("-inf"))


_kept_mask = lru_cache(maxsize=32)(_mask)
"""Every layer asks for the same ones; none is longer than `WRITTEN_OUT`."""


ALL_ATTENTION_FUNCTIONS.register(NAME, packed_attention)
