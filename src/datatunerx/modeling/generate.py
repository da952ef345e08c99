"""Answers to many prompts at once, each through its own adapter, and the likelihood of given answers.

Prompts pass without padding; then every unfinished row passes one token at a time over a cache. Rows are
taken in batches that fit the cache, shortest prompts first, so that rows of a batch differ little in length.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from datatunerx.modeling.adapters import Adapter
from datatunerx.modeling.base import Base
from datatunerx.modeling.cache import RowCache
from datatunerx.modeling.loss import nll_and_gradient
from datatunerx.modeling.stream import Part, Stream, pack

CACHE_TOKENS = 16_384
PASS_TOKENS = 2_048
"""Tokens of one pass without a way back."""


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


@torch.no_grad()
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
    answers: dict[int, Answer] = {}
    for batch in _batches(prompts, how.max_new_tokens, cache_tokens):
        answers.update(_Batch(base, prompts, batch, frozenset(stop_ids), how, on_token).run())
    return [answers[index] for index in range(len(prompts))]


def _batches(prompts: Sequence[Prompt], new: int, cache_tokens: int) -> Iterator[list[int]]:
    empty = next((i for i, prompt in enumerate(prompts) if len(prompt.ids) == 0), None)
    if empty is not None:
        raise ValueError(f"prompt {empty} has no token")
    batch: list[int] = []
    for index in sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids)):
        if batch and (len(batch) + 1) * (len(prompts[index].ids) + new) > cache_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


class _Batch:
    """The rows that are answered together."""

    def __init__(
        self,
        base: Base,
        prompts: Sequence[Prompt],
        batch: list[int],
        stop_ids: frozenset[int],
        how: Decoding,
        on_token: OnToken | None,
    ) -> None:
        self.base, self.prompts, self.stop_ids, self.how, self.on_token = (
            base,
            prompts,
            stop_ids,
            how,
            on_token,
        )
        adapters = {id(prompts[i].adapter): n for n, i in enumerate(batch)}
        self.rows = sorted(batch, key=lambda i: adapters[id(prompts[i].adapter)])
        """Index of the prompt of each row of the cache; rows of one adapter lie together."""
        self.answers: dict[int, list[int]] = {i: [] for i in batch}
        self.finish: dict[int, str] = {}
        self.cache = RowCache(len(batch), max(len(prompts[i].ids) for i in batch) + how.max_new_tokens)
        self.random = {i: torch.Generator().manual_seed(how.seed * 1_000_003 + i) for i in batch}

    def run(self) -> dict[int, Answer]:
        tokens = self._take(self._fill())
        while self._leave():
            kept = torch.tensor([tokens[index] for index in self.rows])
            tokens = self._take(self._step(kept))
        return {i: Answer(ids, self.finish[i]) for i, ids in self.answers.items()}

    def _fill(self) -> Tensor:
        """Pass the prompts; logits [B, V] after the last token of each."""
        logits, first = [], 0
        while first < len(self.rows):
            count, tokens = 0, 0
            for index in self.rows[first:]:
                tokens += len(self.prompts[index].ids)
                if count and tokens > PASS_TOKENS:
                    break
                count += 1
            rows = self.rows[first : first + count]
            self.cache.begin_fill(first)
            hidden = self.base.pass_through(self._stream(rows, [self.prompts[i].ids for i in rows]))
            lengths = torch.tensor([len(self.prompts[i].ids) for i in rows])
            self.cache.seen_B[first : first + count] = lengths
            logits.append(self.base.head.ahead(hidden[(lengths.cumsum(0) - 1).to(hidden.device)]))
            first += count
        return torch.cat(logits)

    def _step(self, tokens_B: Tensor) -> Tensor:
        """Pass one token of each row; logits [B, V]."""
        self.cache.begin_step()
        stream = self._stream(self.rows, tokens_B[:, None].tolist(), self.cache.seen_B)
        hidden = self.base.pass_through(stream)
        self.cache.seen_B += 1
        return self.base.head.ahead(hidden)

    def _stream(self, rows: list[int], ids: Sequence[Sequence[int]], at: Tensor | None = None) -> Stream:
        pairs = list(zip(rows, ids, strict=True))
        parts = [
            Part(self.prompts[group[0][0]].adapter, [torch.as_tensor(row) for _, row in group])
            for group in (
                list(g) for _, g in groupby(pairs, key=lambda pair: id(self.prompts[pair[0]].adapter))
            )
        ]
        packed = pack(parts, self.base.device)
        positions = packed.positions_T if at is None else at.to(self.base.device)
        return Stream(packed.ids_T, positions, packed.lengths, packed.segments, self.cache)

    def _take(self, logits_BV: Tensor) -> dict[int, int]:
        """Choose each row's next token; note the rows that have ended."""
        chosen = dict(zip(self.rows, self._choose(logits_BV), strict=True))
        for index, token in chosen.items():
            if index in self.finish:
                continue
            if token in self.stop_ids:
                self.finish[index] = "stop"
                continue
            self.answers[index].append(token)
            if self.on_token is not None:
                self.on_token(index, token)
            if len(self.answers[index]) >= self.how.max_new_tokens:
                self.finish[index] = "length"
        return chosen

    def _choose(self, logits_BV: Tensor) -> list[int]:
        if self.how.temperature == 0:
            greedy: list[int] = logits_BV.argmax(-1).tolist()
            return greedy
        shares, order = (logits_BV.double() / self.how.temperature).softmax(-1).sort(-1, descending=True)
        sums = shares.cumsum(-1)
        sums = sums.masked_fill(sums - shares >= self.how.top_p, 0).cummax(-1).values
        draws = torch.stack([torch.rand((), generator=self.random[i], dtype=torch.double) for i in self.rows])
        at = (sums < draws.to(sums.device)[:, None] * sums[:, -1:]).sum(-1, keepdim=True)
        sampled: list[int] = order.gather(1, at)[:, 0].tolist()
        return sampled

    def _leave(self) -> bool:
        """Let ended rows go once they are a quarter of the cache; False when none is left."""
        going = [n for n, index in enumerate(self.rows) if index not in self.finish]
        if 0 < len(going) <= 0.75 * len(self.rows):
            self.cache.keep(torch.tensor(going))
            self.rows = [self.rows[n] for n in going]
        return bool(going)


@dataclass(frozen=True)
class Likelihood:
    """How likely the labelled tokens of a row are: exp(nll / tokens) is its perplexity."""

    nll: float
    """Sum over the row's labels."""
    tokens: int


@torch.no_grad()
def log_likelihood(
    base: Base, rows: Sequence[tuple[Adapter | None, Sequence[int], Sequence[int]]]
) -> list[Likelihood]:
    """Of each (adapter, ids, labels); a label of -100 is not counted, label t belongs to token t."""
    found: dict[int, Likelihood] = {}
    order = sorted(range(len(rows)), key=lambda i: id(rows[i][0]))
    while order:
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
