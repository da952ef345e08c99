"""Keys and values that rows have seen, while they are being answered.

Shapes: B rows, H heads, K heads of keys and values, G = H / K, L longest row, E width of a head.
"""

import torch
from torch import Tensor, nn


class RowCache:
    """One rectangle per layer, allocated when the layer first fills it."""

    def __init__(self, rows: int, longest: int) -> None:
        self.rows = rows
        self.longest = longest
        self.filling = True
        """True while prompts pass, False while each row passes one new token."""
        self.seen_B = torch.zeros(rows, dtype=torch.long)
        """Tokens each row has in the cache; the one being added is not yet counted."""
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._first = 0
        self._open_BL: Tensor | None = None

    def begin_fill(self, first: int) -> None:
        """The prompts that pass next belong to the rows from `first` on."""
        self.filling, self._first = True, first

    def begin_step(self) -> None:
        """Every row passes one token next."""
        self.filling = False
        width = int(self.seen_B.max()) + 1
        device = next(iter(self._keys.values())).device
        self._open_BL = (torch.arange(width) <= self.seen_B[:, None]).to(device)

    def fill(self, layer: int, key_KTE: Tensor, value_KTE: Tensor, lengths: tuple[int, ...]) -> None:
        """Take the keys and values of whole prompts, laid end to end."""
        if layer not in self._keys:
            shape = (self.rows, key_KTE.shape[0], self.longest, key_KTE.shape[2])
            # zeros, not empty: what is masked still passes through the product, and 0 * NaN is NaN
            self._keys[layer], self._values[layer] = key_KTE.new_zeros(shape), value_KTE.new_zeros(shape)
        at = 0
        for row, length in enumerate(lengths, start=self._first):
            self._keys[layer][row, :, :length] = key_KTE[:, at : at + length]
            self._values[layer][row, :, :length] = value_KTE[:, at : at + length]
            at += length

    def attend(
        self,
        layer: int,
        query_HBE: Tensor,
        key_KBE: Tensor,
        value_KBE: Tensor,
        scaling: float | None,
        window: int | None,
    ) -> Tensor:
        """Add each row's token and attend to all it has seen; returns [B, H, E]."""
        assert self._open_BL is not None
        keys, values, rows = self._keys[layer], self._values[layer], torch.arange(self.rows)
        keys[rows, :, self.seen_B] = key_KBE.transpose(0, 1)
        values[rows, :, self.seen_B] = value_KBE.transpose(0, 1)
        open_BL = self._open_BL
        if window is not None:
            at = torch.arange(open_BL.shape[1])
            open_BL = open_BL & (at > self.seen_B[:, None] - window).to(open_BL.device)
        heads, batch, width = query_HBE.shape
        query_BKGE = query_HBE.transpose(0, 1).reshape(batch, keys.shape[1], -1, width)
        out = nn.functional.scaled_dot_product_attention(
            query_BKGE,
            keys[:, :, : open_BL.shape[1]],
            values[:, :, : open_BL.shape[1]],
            attn_mask=open_BL[:, None, None, :].expand(-1, -1, query_BKGE.shape[2], -1),
            scale=scaling,
        )
        return out.reshape(batch, heads, width)

    def keep(self, rows: Tensor) -> None:
        """Forget every row but these, in this order."""
        self.rows, self.seen_B = len(rows), self.seen_B[rows]
        for store in (self._keys, self._values):
            for layer, tensor in store.items():
                store[layer] = tensor[rows.to(tensor.device)]
