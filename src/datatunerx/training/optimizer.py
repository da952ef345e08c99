"""Optimizer steps over an adapter's one flat tensor."""

from dataclasses import dataclass

import torch
from torch import Tensor

from datatunerx.resources.enums import Optimizer
from datatunerx.resources.training import TrainingParameters


@dataclass
class Moments:
    """What AdamW remembers; SGD leaves both empty."""

    first: Tensor
    second: Tensor
    steps: int = 0


def new_moments(parameters: TrainingParameters, flat: Tensor) -> Moments:
    size = flat if parameters.optimizer is Optimizer.ADAMW else flat[:0]
    return Moments(torch.zeros_like(size), torch.zeros_like(size))


def clip(grad: Tensor, max_norm: float) -> float:
    """Scale the gradient down to `max_norm` (0: leave it); returns its norm before, maybe not finite."""
    norm = float(torch.linalg.vector_norm(grad))
    if 0 < max_norm < norm:
        grad.mul_(max_norm / (norm + 1e-6))
    return norm


@torch.no_grad()
def update(flat: Tensor, grad: Tensor, moments: Moments, parameters: TrainingParameters, rate: float) -> None:
    """One step, in place. Decay is decoupled, as in AdamW, for both optimizers."""
    if parameters.weight_decay:
        flat.mul_(1 - rate * parameters.weight_decay)
    if parameters.optimizer is Optimizer.SGD:
        flat.add_(grad, alpha=-rate)
        return
    moments.steps += 1
    first, second = 1 - parameters.beta1**moments.steps, 1 - parameters.beta2**moments.steps
    moments.first.lerp_(grad, 1 - parameters.beta1)
    moments.second.mul_(parameters.beta2).addcmul_(grad, grad, value=1 - parameters.beta2)
    root = (moments.second.sqrt() / second**0.5).add_(parameters.epsilon)
    flat.addcdiv_(moments.first, root, value=-rate / first)
