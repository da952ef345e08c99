"""Memory: what a training will take, what there is, and what it took."""

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from datatunerx.modeling.attention import WRITTEN_OUT
from datatunerx.modeling.base import Base
from datatunerx.modeling.frozen import takes_onednn
from datatunerx.modeling.loss import CHUNK_ROWS

PROCESS_BYTES = 350 << 20
"""An interpreter with torch and transformers loaded."""


@dataclass(frozen=True)
class Estimate:
    """What a fused training takes at its peak, in bytes, to within a quarter."""

    process: int
    base: int
    adapters: int
    passing: int
    """Kept for the way back, by the widest pass."""

    @property
    def total(self) -> int:
        return self.process + self.base + self.adapters + self.passing


def estimate(base: Base, adapter_sizes: Sequence[int], tokens: int, longest: int) -> Estimate:
    """For adapters of so many numbers each, passes of at most `tokens` tokens, rows of at most `longest`."""
    config, item = base.config, base.dtype.itemsize
    weights = sum(wide_in * wide_out for wide_in, wide_out in base.widths.values())
    head = config.vocab_size * config.hidden_size
    # on a CPU: as they lie in the file, and laid out for the product forward and for the product back
    copies = 3 if takes_onednn(base.head.weight_OD) else 1
    return Estimate(
        process=PROCESS_BYTES if base.device.type == "cpu" else 0,
        base=copies * (weights + head) * item,
        # weights, gradient and two moments, and once more while a checkpoint is written
        adapters=sum(7 * size * 4 for size in adapter_sizes),
        passing=tokens * kept_per_token(config, item, _written_out(base, longest))
        + 3 * CHUNK_ROWS * config.vocab_size * 4,
    )


def kept_per_token(config: Any, item: int, weights: int = 0) -> int:
    """Bytes one token leaves behind for the way back, over all layers, with so many attention weights."""
    width, heads = config.hidden_size, config.num_attention_heads
    keys = width * config.num_key_value_heads // heads
    kept = 8 * width + 4 * keys + 4 * config.intermediate_size + heads * weights
    return int(config.num_hidden_layers * item * kept)


def _written_out(base: Base, longest: int) -> int:
    """How many attention weights of one head a token keeps: none where a kernel makes them again."""
    kept = longest <= WRITTEN_OUT and takes_onednn(base.head.weight_OD)
    return longest if kept else 0


def free_bytes(device: torch.device) -> int:
    """What this process can still take, by the machine and by its control group."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    try:
        return min(free, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):  # no such group, or no limit ("max")
        return free


def memory_peak(device: torch.device) -> str:
    """The most this process has held, and the limit, for a message."""
    if device.type == "cuda":
        peak, limit = torch.cuda.max_memory_allocated(device), torch.cuda.mem_get_info(device)[1]
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        limit = psutil.virtual_memory().total
    return f"{in_gib(peak)} of {in_gib(limit)}"


def in_gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
