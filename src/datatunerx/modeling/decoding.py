"""Rows that are answered together: any may join or leave between two passes.

A prompt passes in pieces that are always cut at the same places, so that neither a long prompt keeps the
others waiting nor do its numbers depend on them; then its row passes one token at a time over the cache, in
one pass with all others. Rows of one adapter lie together in every pass.

Shapes: B rows of a pass, V words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from datatunerx.modeling.adapters import Adapter
from datatunerx.modeling.base import Base
from datatunerx.modeling.cache import RowCache, Seat, room_for
from datatunerx.modeling.sampling import Likely, choose, likelihoods
from datatunerx.modeling.stack import Stacks, order
from datatunerx.modeling.stream import Segment, Stream

PASS_TOKENS = 2_048
"""Tokens of one pass without a way back."""
PIECE_TOKENS = 512
"""Tokens of a prompt that pass at once."""


@dataclass(eq=False)
class AnswerRow:
    """One answer under way, and how its tokens are chosen."""

    prompt: Sequence[int]
    max_new_tokens: int
    adapter: Adapter | None = None
    """None is the base."""
    stop_ids: frozenset[int] = frozenset()
    temperature: float = 0.0
    top_p: float = 1.0
    random: torch.Generator = field(default_factory=torch.Generator)
    logprobs: int | None = None
    """None tells nothing of likelihoods; n tells the token's own and the n likeliest."""
    ids: list[int] = field(default_factory=list)
    """The answer so far, without its stop token."""
    finish: str | None = None
    """`stop`, or `length` if max_new_tokens ended it."""
    seat: Seat | None = field(default=None, repr=False)
    last: int = 0

    @property
    def room(self) -> int:
        """What of the cache this row may come to take, in tokens."""
        return room_for(len(self.prompt) + self.max_new_tokens)


class Chosen(NamedTuple):
    """A row's next token; None is the stop token that ended it."""

    row: AnswerRow
    token: int | None
    likely: Likely | None


class Decoder:
    """The rows over one base. Not for two threads at a time."""

    def __init__(self, base: Base, cache_tokens: int, max_rows: int | None = None) -> None:
        self.base = base
        self._cache = RowCache()
        self._cache_tokens, self._max_rows = cache_tokens, max_rows
        self._taken = 0
        self._stacks = Stacks(base.dtype, base.device)
        self._filling: list[AnswerRow] = []
        self._going: dict[int, list[AnswerRow]] = {}
        """By adapter."""

    @property
    def rows(self) -> int:
        return len(self._filling) + sum(map(len, self._going.values()))

    def fits(self, row: AnswerRow) -> bool:
        """Whether there is room for the row to its end. An empty decoder takes any."""
        if self.rows == 0:
            return True
        free = self._max_rows is None or self.rows < self._max_rows
        return free and self._taken + row.room <= self._cache_tokens

    def join(self, row: AnswerRow) -> None:
        """Take a row in; its prompt passes with the next calls of `advance`."""
        if not row.prompt:
            raise ValueError("the prompt has no token")
        row.seat = self._cache.seat(len(row.prompt) + 1)
        self._taken += row.room
        self._filling.append(row)

    def leave(self, row: AnswerRow) -> None:
        """Let a row go, whether it has ended or not. One that has gone already is no matter."""
        if row.seat is None:
            return
        self._cache.leave(row.seat)
        row.seat = None
        self._taken -= row.room
        if row in self._filling:
            self._filling.remove(row)
        else:
            group = self._going[id(row.adapter)]
            group.remove(row)
            if not group:
                del self._going[id(row.adapter)]
        if self.rows == 0:
            self._stacks.clear()

    @torch.no_grad()
    def advance(self) -> list[Chosen]:
        """Pass some of what is left of prompts, and one token of each row behind its prompt."""
        groups = sorted(self._going.values(), key=lambda group: order(group[0].adapter))
        going = [row for group in groups for row in group]
        chosen = self._step(going) if going else []
        return chosen + (self._fill() if self._filling else [])

    def _fill(self) -> list[Chosen]:
        pieces: list[tuple[AnswerRow, int]] = []
        left = PASS_TOKENS
        for row in self._filling:
            count = min(PIECE_TOKENS, len(row.prompt) - _seat(row).seen)
            if pieces and count > left:
                break
            pieces.append((row, count))
            left -= count
        pieces.sort(key=lambda piece: order(piece[0].adapter))
        self._cache.begin_fill([(_seat(row), count) for row, count in pieces])
        hidden_TD = self.base.pass_through(self._stream(pieces))
        self._cache.end_fill()
        ends = torch.tensor([count for _, count in pieces]).cumsum(0) - 1
        whole = [n for n, (row, _) in enumerate(pieces) if _seat(row).seen == len(row.prompt)]
        if not whole:
            return []
        done = [pieces[n][0] for n in whole]
        for row in done:
            self._filling.remove(row)
            self._going.setdefault(id(row.adapter), []).append(row)
        return self._take(self.base.head.ahead(hidden_TD[ends[whole].to(hidden_TD.device)]), done)

    def _step(self, rows: list[AnswerRow]) -> list[Chosen]:
        seats = [_seat(row) for row in rows]
        self._cache.begin_step(seats, self.base.device)
        hidden_BD = self.base.pass_through(self._stream([(row, 1) for row in rows]))
        self._cache.end_step(seats)
        return self._take(self.base.head.ahead(hidden_BD), rows)

    def _stream(self, pieces: list[tuple[AnswerRow, int]]) -> Stream:
        ids: list[int] = []
        positions: list[int] = []
        segments: list[Segment] = []
        for row, count in pieces:
            start, seen = len(ids), _seat(row).seen
            ids += row.prompt[seen : seen + count] if seen < len(row.prompt) else [row.last]
            positions += range(seen, seen + count)
            if row.adapter is None:
                continue
            if segments and segments[-1].adapter is row.adapter:
                start = segments.pop().start
            segments.append(Segment(row.adapter, start, len(ids)))
        tensors = torch.tensor([ids, positions]).to(self.base.device)
        lengths = tuple(count for _, count in pieces)
        batches, left = self._stacks.batches(segments)
        return Stream(tensors[0], tensors[1], lengths, left, self._cache, batches)

    def _take(self, logits_BV: Tensor, rows: list[AnswerRow]) -> list[Chosen]:
        """Choose each row's next token; rows that have ended leave."""
        tokens = choose(logits_BV, rows)
        told = [n for n, row in enumerate(rows) if row.logprobs is not None]
        likely: dict[int, Likely] = {}
        if told:
            counts = [rows[n].logprobs or 0 for n in told]
            found = likelihoods(logits_BV[told], [tokens[n] for n in told], counts)
            likely = dict(zip(told, found, strict=True))
        chosen = []
        for n, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            if token in row.stop_ids:
                row.finish = "stop"
            else:
                row.ids.append(token)
                row.last = token
                if len(row.ids) >= row.max_new_tokens:
                    row.finish = "length"
            if row.finish is not None:
                self.leave(row)
            chosen.append(Chosen(row, None if row.finish == "stop" else token, likely.get(n)))
        return chosen


def _seat(row: AnswerRow) -> Seat:
    assert row.seat is not None
    return row.seat
