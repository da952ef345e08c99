"""Cross-entropy on the rows that carry loss, in chunks, with the gradient made on the way.

Logits of a whole stream would be the largest tensor of a step (a vocabulary of 49,152 against a width of
576); here only the rows with a label meet the head, and never more than a chunk of them at a time.

Shapes: N rows with loss, D width, V vocabulary.
"""

import torch
from torch import Tensor

from datatunerx.modeling.frozen import FrozenWeight

CHUNK_ROWS = 128


@torch.no_grad()
def nll_and_gradient(
    head: FrozenWeight, hidden_ND: Tensor, labels_N: Tensor, weights_N: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Negative log-likelihood of each row's label, and the gradient of sum(weights * nll) for `hidden_ND`.

    Without weights only the first is computed. The nll is float32 or wider.
    """
    nll_N = torch.empty(len(labels_N), device=hidden_ND.device, dtype=_wide(hidden_ND.dtype))
    grad_ND = None if weights_N is None else torch.empty_like(hidden_ND)
    for start in range(0, len(labels_N), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        labels = labels_N[rows, None]
        scores = head.ahead(hidden_ND[rows])
        wide = scores.to(nll_N.dtype)
        wide = wide.log_softmax(-1)
        nll_N[rows] = wide.gather(1, labels)[:, 0].neg_()
        if grad_ND is not None and weights_N is not None:
            weights = weights_N[rows, None].to(wide.dtype)
            share = wide.exp_()
            share.scatter_add_(1, labels, torch.full_like(weights, -1.0))
            grad_ND[rows] = head.back(share.mul_(weights).to(hidden_ND.dtype))
    return nll_N, grad_ND


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
