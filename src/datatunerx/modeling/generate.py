"""Answers to many prompts at once, each through its own adapter, and the likelihood of given answers.

Rows are taken in as the cache has room for them, shortest prompts first, so that rows beside one another
differ little in length.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datatunerx.modeling.adapters import Adapter
from datatunerx.modeling.base import Base
from datatunerx.modeling.decoding import PASS_TOKENS, AnswerRow, Decoder
from datatunerx.modeling.loss import nll_and_gradient
from datatunerx.modeling.stream import Part, pack

CACHE_TOKENS = 16_384


@dataclass(frozen=True)
class Prompt:
    """Token ids to be continued, and the adapter that does it (None: the base)."""

    ids: Sequence[int]
    adapter: Adapter | None = None


@dataclass(frozen=True)
class Decoding:
    """How to choose tokens. Temperature 0 is greedy."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """The continuation without its stop token."""

    ids: list[int]
    finish: str
    """`stop`, or `length` if max_new_tokens ended it."""


OnToken = Callable[[int, int], None]
"""Called with the index of a prompt and its next token, in order."""


def generate(
    base: Base,
    prompts: Sequence[Prompt],
    stop_ids: Sequence[int],
    decoding: Decoding | None = None,
    *,
    on_token: OnToken | None = None,
    cache_tokens: int = CACHE_TOKENS,
) -> list[Answer]:
    """Answers in the order of the prompts. A row's answer does not depend on the rows beside it."""
    how = decoding or Decoding()
    empty = next((i for i, prompt in enumerate(prompts) if len(prompt.ids) == 0), None)
    if empty is not None:
        raise ValueError(f"prompt {empty} has no token")
    stops = frozenset(stop_ids)
    rows = [
        AnswerRow(
            prompt.ids, how.max_new_tokens, prompt.adapter, stops, how.temperature, how.top_p,
            torch.Generator().manual_seed(how.seed * 1_000_003 + index),
        )
        for index, prompt in enumerate(prompts)
    ]  # fmt: skip
    numbers = {id(row): index for index, row in enumerate(rows)}
    waiting = deque(sorted(rows, key=lambda row: len(row.prompt)))
    decoder = Decoder(base, cache_tokens)
    while waiting or decoder.rows:
        while waiting and decoder.fits(waiting[0]):
            decoder.join(waiting.popleft())
        for row, token, _ in decoder.advance():
            if on_token is not None and token is not None:
                on_token(numbers[id(row)], token)
    return [Answer(row.ids, row.finish or "length") for row in rows]


@dataclass(frozen=True)
class Likelihood:
    """How likely the labelled tokens of a row are: exp(nll / tokens) is its perplexity."""

    nll: float
    """Sum over the row's labels."""
    tokens: int


@torch.no_grad()
def log_likelihood(
    base: Base,
    rows: Sequence[tuple[Adapter | None, Sequence[int], Sequence[int]]],
    *,
    before_pass: Callable[[], None] = lambda: None,
) -> list[Likelihood]:
    """Of each (adapter, ids, labels); a label of -100 is not counted, label t belongs to token t.

    `before_pass` is called before each pass; what it raises ends the work.
    """
    found: dict[int, Likelihood] = {}
    order = sorted(range(len(rows)), key=lambda i: id(rows[i][0]))
    while order:
        before_pass()
        count, tokens = 0, 0
        for index in order:
            tokens += len(rows[index][1])
            if count and tokens > PASS_TOKENS:
                break
            count += 1
        taken, order = order[:count], order[count:]
        stream = pack([Part(rows[i][0], [torch.as_tensor(rows[i][1])]) for i in taken], base.device)
        labels_T = shifted_labels([torch.as_tensor(rows[i][2]) for i in taken]).to(base.device)
        at = (labels_T >= 0).nonzero()[:, 0]
        hidden = base.pass_through(stream)
        nll, _ = nll_and_gradient(base.head, hidden[at], labels_T[at], None)
        owner = torch.repeat_interleave(torch.arange(count), torch.tensor(stream.lengths))[at.cpu()]
        sums = torch.zeros(count, dtype=torch.double).index_add_(0, owner, nll.cpu().double())
        for n, index in enumerate(taken):
            found[index] = Likelihood(float(sums[n]), int((owner == n).sum()))
    return [found[index] for index in range(len(rows))]


def shifted_labels(labels: Sequence[Tensor]) -> Tensor:
    """Labels of a stream, each moved to the row that predicts it; the last row of a sequence has none."""
    moved = []
    for row in labels:
        shifted = torch.full_like(row, -100, dtype=torch.long)
        shifted[:-1] = row[1:]
        moved.append(shifted)
    return torch.cat(moved)
