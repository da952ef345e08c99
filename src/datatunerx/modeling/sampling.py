"""Which token comes next: greedy or drawn, for each row by its own settings and its own numbers.

Shapes: B rows of a pass, V words.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

LIKELIEST = 128
"""Words that are sorted at first for a narrow top_p; all are if these do not add up to it."""


class Chooses(Protocol):
    """What decides a row's next token."""

    temperature: float
    """0 is greedy."""
    top_p: float
    random: torch.Generator


class Likely(NamedTuple):
    """How likely a token was, and which were likelier."""

    logprob: float
    top: list[tuple[int, float]]
    """The likeliest tokens with their log probabilities."""


def choose(logits_BV: Tensor, rows: Sequence[Chooses]) -> list[int]:
    """The next token of each row. What a row draws does not depend on the rows beside it."""
    drawn = [n for n, row in enumerate(rows) if row.temperature > 0]
    if not drawn:
        greedy: list[int] = logits_BV.argmax(-1).tolist()
        return greedy
    chosen: list[int] = logits_BV.argmax(-1).tolist() if len(drawn) < len(rows) else [0] * len(rows)
    heat = torch.tensor([rows[n].temperature for n in drawn], dtype=torch.double, device=logits_BV.device)
    shares_BV = (logits_BV[drawn].double() / heat[:, None]).softmax(-1)
    for shares_V, n in zip(shares_BV, drawn, strict=True):
        chosen[n] = _draw(shares_V, rows[n])
    return chosen


def _draw(shares_V: Tensor, row: Chooses) -> int:
    draw = float(torch.rand((), generator=row.random, dtype=torch.double))
    order = None
    if row.top_p < 1:
        shares_V, order = _likeliest(shares_V, row.top_p)
    sums = shares_V.cumsum(-1)
    if order is not None:
        # the likeliest words that together reach top_p, and never none
        sums = sums[: int((sums - shares_V < row.top_p).sum().clamp(min=1))]
    at = int((sums < draw * sums[-1]).sum())
    return at if order is None else int(order[at])


def _likeliest(shares_V: Tensor, enough: float) -> tuple[Tensor, Tensor]:
    """Shares from the highest on, and whose they are: at least as many as add up to `enough`."""
    some, order = shares_V.topk(min(LIKELIEST, len(shares_V)))
    if float(some.sum()) >= enough:
        return some, order
    every, order = shares_V.sort(descending=True)
    return every, order


def likelihoods(logits_BV: Tensor, tokens: Sequence[int], counts: Sequence[int]) -> list[Likely]:
    """How likely each row's token was before temperature, with its `counts[row]` likeliest tokens."""
    logs_BV = logits_BV.float().log_softmax(-1)
    most = max(counts, default=0)
    values, order = logs_BV.topk(most) if most else (logs_BV[:, :0], logs_BV[:, :0].long())
    own = logs_BV.gather(1, torch.tensor(tokens, device=logs_BV.device)[:, None])[:, 0].tolist()
    return [
        Likely(one, list(zip(words[:count], shares[:count], strict=True)))
        for one, words, shares, count in zip(own, order.tolist(), values.tolist(), counts, strict=True)
    ]
