"""A LoRA adapter: its shape, its first weights, and where they lie.

All of an adapter's numbers lie in one flat tensor, its gradient in another; the layers hold views of both. An
optimizer step is then a handful of operations on one tensor, whatever the number of layers.

Shapes: R rank, D width in, O width out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class AdapterShape:
    """What a LoRA adapter looks like; the update is scaled by alpha / rank."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    """Share of the adapter's inputs that are zeroed in a training step."""
    targets: tuple[str, ...] = (ALL_LINEAR,)
    """Names of linear layers (q_proj, layers.0.self_attn.q_proj, ...), or all-linear."""


class UnknownTarget(ValueError):
    """A target names no linear layer of this model."""


@dataclass(frozen=True)
class Pair:
    """Views of one layer's two matrices and of their gradients. B lies transposed."""

    a_RD: Tensor
    b_RO: Tensor
    grad_a_RD: Tensor
    grad_b_RO: Tensor


@dataclass
class Adapter:
    """One named adapter over a base model."""

    name: str
    shape: AdapterShape
    flat: Tensor
    """Every weight, in the order of the layers: A, then B transposed."""
    grad: Tensor
    pairs: dict[str, Pair] = field(repr=False)

    @property
    def scale(self) -> float:
        return self.shape.alpha / self.shape.rank


def resolve_targets(targets: Sequence[str], layers: Sequence[str]) -> list[str]:
    """The layers an adapter changes, in the model's order; a target matches a whole dotted suffix.

    Raises `UnknownTarget` naming what there is.
    """
    if ALL_LINEAR in targets:
        return list(layers)
    for target in targets:
        if not any(_matches(name, target) for name in layers):
            known = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in layers}))
            raise UnknownTarget(f"lora.targets: no linear layer is called {target!r}; this model has {known}")
    return [name for name in layers if any(_matches(name, target) for target in targets)]


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)


def adapter_size(shape: AdapterShape, widths: Mapping[str, tuple[int, int]]) -> int:
    """How many numbers an adapter of this shape holds; `widths` gives (in, out) of every linear layer."""
    return sum(shape.rank * sum(widths[name]) for name in resolve_targets(shape.targets, list(widths)))


def make_adapter(
    name: str,
    shape: AdapterShape,
    widths: Mapping[str, tuple[int, int]],
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Adapter:
    """A new adapter that changes nothing yet: A uniform in +-1/sqrt(D) from its own seed, B zero."""
    names = resolve_targets(shape.targets, list(widths))
    generator = torch.Generator().manual_seed(seed)
    flat = torch.zeros(adapter_size(shape, widths), dtype=dtype)
    adapter = view_adapter(name, shape, {n: widths[n] for n in names}, flat)
    for pair in adapter.pairs.values():
        bound = 1 / math.sqrt(pair.a_RD.shape[1])
        # drawn in float32 whatever the adapter's type, so that one seed is one adapter
        pair.a_RD.copy_(torch.empty(pair.a_RD.shape).uniform_(-bound, bound, generator=generator))
    return view_adapter(name, shape, {n: widths[n] for n in names}, flat.to(device))


def view_adapter(
    name: str, shape: AdapterShape, widths: Mapping[str, tuple[int, int]], flat: Tensor
) -> Adapter:
    """An adapter over numbers that exist; `widths` names exactly the layers it changes."""
    grad = torch.zeros_like(flat)
    pairs, at, rank = {}, 0, shape.rank
    for layer, (wide_in, wide_out) in widths.items():
        middle, end = at + rank * wide_in, at + rank * (wide_in + wide_out)
        a, grad_a = (t[at:middle].view(rank, wide_in) for t in (flat, grad))
        b, grad_b = (t[middle:end].view(rank, wide_out) for t in (flat, grad))
        pairs[layer] = Pair(a, b, grad_a, grad_b)
        at = end
    return Adapter(name, shape, flat, grad, pairs)
