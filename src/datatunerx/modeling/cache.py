"""Keys and values that rows have seen, while they are being answered.

Rows come and go at any step. Each sits in a band of rows of like length, a rectangle per layer, and moves to
the next wider band when it has filled its own; so short rows do not pay for a long one beside them, and every
band is attended to in one call.

Shapes: N rows of a band, B rows of a pass, H heads, K heads of keys and values, G = H / K, W tokens of the
longest row of a band, E width of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from datatunerx.modeling.frozen import takes_onednn

NARROWEST = 128
"""Tokens a row of the narrowest band has room for; each further band has room for twice as many."""
FEWEST_TOKENS = 512
"""A band that holds no more than this in all is not made smaller."""


def room_for(tokens: int) -> int:
    """Width of the band in which a row of so many tokens sits."""
    return max(NARROWEST, 1 << max(tokens - 1, 0).bit_length())


@dataclass(eq=False)
class Seat:
    """Where one row sits."""

    band: "_Band"
    at: int
    seen: int = 0
    """Tokens of the row in the cache; those of the pass under way are not yet counted."""


@dataclass(eq=False)
class _Band:
    """Rows with room for `width` tokens each; the seated ones lie first, without gaps."""

    width: int
    seats: list[Seat] = field(default_factory=list)
    stores: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """(layer, 0 for keys or 1 for values) -> [room for rows, K, width, E]."""
    capacity: int = 0

    def sit(self, seat: Seat) -> None:
        if len(self.seats) == self.capacity:
            fewest = max(1, FEWEST_TOKENS // self.width)
            self._resize(max(fewest, self.capacity + 1, self.capacity * 3 // 2))
        seat.band, seat.at = self, len(self.seats)
        self.seats.append(seat)

    def leave(self, seat: Seat) -> None:
        """The last row takes the place that becomes free."""
        last = self.seats.pop()
        if len(self.seats) != seat.at:
            for store in self.stores.values():
                store[seat.at, :, : last.seen] = store[last.at, :, : last.seen]
            last.at = seat.at
            self.seats[last.at] = last
        if not self.seats:
            self.stores, self.capacity = {}, 0
        elif 2 * len(self.seats) <= self.capacity and self.capacity * self.width > FEWEST_TOKENS:
            self._resize(self.capacity * 3 // 4)

    def _resize(self, capacity: int) -> None:
        """Never more than twice what is seated, or FEWEST_TOKENS."""
        for key, old in self.stores.items():
            rows = min(len(self.seats), len(old))
            self.stores[key] = old.new_zeros(capacity, *old.shape[1:])
            self.stores[key][:rows] = old[:rows]
        self.capacity = capacity

    def store(self, layer: int, which: int, like_KTE: Tensor) -> Tensor:
        found = self.stores.get((layer, which))
        if found is None:
            shape = (self.capacity, like_KTE.shape[0], self.width, like_KTE.shape[2])
            # zeros, not empty: what is masked still passes through the product, and 0 * NaN is NaN
            found = self.stores[layer, which] = like_KTE.new_zeros(shape)
        return found


@dataclass
class _Turn:
    """One band's share of a step: N rows pass a token, S rows sit in the band."""

    band: _Band
    at_N: Tensor
    """Rows of the stream."""
    seat_N: Tensor
    seen_N: Tensor
    asks_S: Tensor
    """Row of the stream whose query each seat asks with; a seat that passes nothing asks with the first."""
    open_S: Tensor
    """The last token that each seat may look at."""
    width: int
    masks: dict[int | None, Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """What to add to the scores, [S, 1, 1, W]; the same for every layer with this sliding window."""
        found = self.masks.get(window)
        if found is None:
            apart_SW = self.open_S[:, None] - torch.arange(self.width, device=self.open_S.device)
            shut_SW = (apart_SW < 0) | (apart_SW >= (window or self.width))
            zeros = torch.zeros(shut_SW.shape, dtype=dtype, device=shut_SW.device)
            found = self.masks[window] = zeros.masked_fill_(shut_SW, float("-inf"))[:, None, None]
        return found


class RowCache:
    """The keys and values of every row that is being answered."""

    def __init__(self) -> None:
        self.filling = True
        """True while pieces of prompts pass, False while each row passes one new token."""
        self._bands: dict[int, _Band] = {}
        self._pieces: list[tuple[Seat, int]] = []
        self._turns: list[_Turn] = []

    def seat(self, tokens: int) -> Seat:
        """A place for a row that begins with so many tokens."""
        seat = Seat(self._band(room_for(tokens)), 0)
        seat.band.sit(seat)
        return seat

    def leave(self, seat: Seat) -> None:
        seat.band.leave(seat)

    # -- pieces of prompts

    def begin_fill(self, pieces: Sequence[tuple[Seat, int]]) -> None:
        """What passes next, end to end: so many further tokens of each of these rows."""
        self.filling, self._pieces = True, list(pieces)

    def fill(self, layer: int, key_KTE: Tensor, value_KTE: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Take the pieces' keys and values; returns all that each row has seen by now, [K, L, E] each."""
        seen, start = [], 0
        for seat, count in self._pieces:
            stop = seat.seen + count
            both = []
            for which, new_KTE in enumerate((key_KTE, value_KTE)):
                row = seat.band.store(layer, which, new_KTE)[seat.at]
                row[:, seat.seen : stop] = new_KTE[:, start : start + count]
                both.append(row[:, :stop])
            seen.append((both[0], both[1]))
            start += count
        return seen

    def end_fill(self) -> None:
        """The pass is over: its tokens count."""
        for seat, count in self._pieces:
            seat.seen += count

    # -- one token of each row

    def begin_step(self, seats: Sequence[Seat], device: torch.device) -> None:
        """Row n of the stream is the next token of the row in `seats[n]`."""
        self.filling, self._turns = False, []
        for seat in seats:
            if seat.seen == seat.band.width:
                self._widen(seat)
        rows: dict[int, int] = {id(seat): n for n, seat in enumerate(seats)}
        for band in self._bands.values():
            here = [seat for seat in band.seats if id(seat) in rows]
            if not here:
                continue
            passing = torch.tensor([[rows[id(seat)], seat.at, seat.seen] for seat in here]).to(device)
            at_N, seat_N, seen_N = passing.unbind(1)
            asks_S, open_S = at_N, seen_N
            if len(here) < len(band.seats):  # some rows' prompts are still on their way
                asks_S, open_S = (torch.zeros(len(band.seats), dtype=torch.long, device=device) for _ in "ab")
                asks_S[seat_N], open_S[seat_N] = at_N, seen_N
            width = 1 + max(seat.seen for seat in here)
            self._turns.append(_Turn(band, at_N, seat_N, seen_N, asks_S, open_S, width))

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
        heads, batch, width = query_HBE.shape
        query_BHE = query_HBE.transpose(0, 1)
        key_BKE, value_BKE = key_KBE.transpose(0, 1), value_KBE.transpose(0, 1)
        out_BHE = query_HBE.new_empty(batch, heads, width)
        for turn in self._turns:
            keys, values = (turn.band.store(layer, n, key_KBE) for n in (0, 1))
            keys[turn.seat_N, :, turn.seen_N] = key_BKE[turn.at_N]
            values[turn.seat_N, :, turn.seen_N] = value_BKE[turn.at_N]
            count = len(turn.band.seats)
            query_SKGE = query_BHE[turn.asks_S].view(count, keys.shape[1], -1, width)
            seen = keys[:count, :, : turn.width], values[:count, :, : turn.width]
            out_SKGE = _looked_up(query_SKGE, *seen, turn.mask(window, query_HBE.dtype), scaling)
            out_BHE[turn.at_N] = out_SKGE.reshape(count, heads, width)[turn.seat_N]
        return out_BHE

    def end_step(self, seats: Sequence[Seat]) -> None:
        """The pass is over: its tokens count."""
        for seat in seats:
            seat.seen += 1

    def _band(self, width: int) -> _Band:
        return self._bands.setdefault(width, _Band(width))

    def _widen(self, seat: Seat) -> None:
        """Move a row that has filled its band to the next."""
        old, at = seat.band, seat.at
        wider = self._band(2 * old.width)
        wider.sit(seat)
        for (layer, which), store in old.stores.items():
            wider.store(layer, which, store[0])[seat.at, :, : seat.seen] = store[at, :, : seat.seen]
        old.leave(Seat(old, at, seat.seen))


def _looked_up(
    query_SKGE: Tensor, keys_SKWE: Tensor, values_SKWE: Tensor, mask_S11W: Tensor, scaling: float | None
) -> Tensor:
    """What each seat's queries find. Written out on a CPU, where torch's own kernel takes twice as long."""
    if not takes_onednn(query_SKGE):
        mask = mask_S11W.expand(-1, -1, query_SKGE.shape[2], -1)
        return nn.functional.scaled_dot_product_attention(
            query_SKGE, keys_SKWE, values_SKWE, attn_mask=mask, scale=scaling
        )
    query, keys, values = (x.flatten(0, 1) for x in (query_SKGE, keys_SKWE, values_SKWE))
    mask = mask_S11W.expand(-1, query_SKGE.shape[1], query_SKGE.shape[2], -1).flatten(0, 1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.baddbmm(mask, query, keys.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(-1), values).view(query_SKGE.shape)
