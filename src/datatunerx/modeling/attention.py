"""Attention over a packed stream, entered through transformers' table of attention functions.

Each sequence attends to itself only. On a CPU one call per sequence; with a cache, each row's new token
attends to what that row has seen.

Shapes: H heads, K heads of keys and values, T rows of the stream, E width of a head.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from datatunerx.modeling.stream import Stream

NAME = "datatunerx-packed"


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
    if stream.cache is not None:
        stream.cache.fill(layer, key_1KTE[0], value_1KTE[0], stream.lengths)
    outs = [
        _one(query, key, value, scaling, sliding_window)
        for query, key, value in zip(
            query_1HTE.split(stream.lengths, dim=2),
            key_1KTE.split(stream.lengths, dim=2),
            value_1KTE.split(stream.lengths, dim=2),
            strict=True,
        )
    ]
    return torch.cat(outs, dim=2).transpose(1, 2), None


def _one(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None) -> Tensor:
    groups, length = query.shape[1] // key.shape[1], query.shape[2]
    mask = None
    if window is not None and length > window:
        at = torch.arange(length, device=query.device)
        apart = at[:, None] - at[None, :]
        mask = (apart >= 0) & (apart < window)
    return nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=groups > 1
    )


ALL_ATTENTION_FUNCTIONS.register(NAME, packed_attention)
