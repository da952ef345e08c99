"""Products with weights that never change, and the few other pieces of a decoder written for frozen weights.

On a CPU in float32 the weights are laid out once for oneDNN, for the product forward and for the product
back: on processors where the BLAS torch is built with does not use the widest registers this more than
doubles the speed of a step (docs/log.md), and a row's result does not depend on how many rows are beside it.

Shapes: T rows of the stream, D width in, O width out.
"""

from typing import Any

import torch
from torch import Tensor, nn

_pack = torch.ops.mkldnn._reorder_linear_weight
_packed_linear = torch.ops.mkldnn._linear_pointwise


def takes_onednn(tensor: Tensor) -> bool:
    """Whether products with this tensor go through oneDNN; by kind, never by timing, so that runs repeat."""
    return (
        tensor.device.type == "cpu" and tensor.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    )


def product(x_TD: Tensor, w_OD: Tensor) -> Tensor:
    """x @ w.T for a small weight that changes at every step."""
    if takes_onednn(x_TD):
        out: Tensor = _packed_linear(x_TD, w_OD, None, "none", [], "")
        return out
    return x_TD @ w_OD.T


class FrozenWeight:
    """One frozen weight and its bias, laid out for speed. Each layout is made when first needed."""

    def __init__(self, weight_OD: Tensor, bias_O: Tensor | None = None) -> None:
        self.weight_OD = weight_OD
        self.bias_O = bias_O
        self._onednn = takes_onednn(weight_OD)
        self._ahead: Tensor | None = None
        self._back: Tensor | None = None

    def ahead(self, x_TD: Tensor) -> Tensor:
        """x @ w.T + bias, [T, O]."""
        if not self._onednn:
            return nn.functional.linear(x_TD, self.weight_OD, self.bias_O)
        if self._ahead is None:
            self._ahead = _pack(self.weight_OD)
        out: Tensor = _packed_linear(x_TD, self._ahead, self.bias_O, "none", [], "")
        return out

    def back(self, grad_TO: Tensor) -> Tensor:
        """grad @ w, [T, D]: the gradient for the input."""
        if not self._onednn:
            return grad_TO @ self.weight_OD
        if self._back is None:
            self._back = _pack(self.weight_OD.T.contiguous())
        out: Tensor = _packed_linear(grad_TO, self._back, None, "none", [], "")
        return out


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = scale.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, scale, weight)
        # the same rounding as the module this stands in for: back to the narrow type before the weight
        out: Tensor = (wide * scale).to(x.dtype).mul_(weight)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        x, scale, weight = ctx.saved_tensors
        g = grads[0] * weight
        wide, g = (x.float(), g.float()) if x.dtype in (torch.float16, torch.bfloat16) else (x, g)
        along = (g * wide).sum(-1, keepdim=True).mul_(scale.pow(3)).div_(-x.shape[-1])
        return g.mul_(scale).addcmul_(wide, along).to(x.dtype), None, None


_rms_norm: Any = _RmsNorm.apply


class FrozenRmsNorm(nn.Module):
    """x / rms(x) * weight, with a gradient for x only."""

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        super().__init__()
        self.weight = weight
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _rms_norm(x, self.weight, self.epsilon)
        return out


class _SiluTimes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return nn.functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        d_up = nn.functional.silu(gate).mul_(grads[0])
        d_gate = torch.ops.aten.silu_backward(grads[0] * up, gate)
        return d_gate, d_up


_silu_times: Any = _SiluTimes.apply


def silu_times(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, keeping only its two inputs for the way back."""
    out: Tensor = _silu_times(gate, up)
    return out
