"""Memory: what a training will take, what there is, and how running out of it looks."""

import resource

import psutil
import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Python's and torch's ways to say that an allocation failed."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "not enough memory" in text or "can't allocate memory" in text or "out of memory" in text
    )


def memory_peak(device: torch.device) -> str:
    """The most this process has held, and the limit, for a message."""
    if device.type == "cuda":
        peak, limit = torch.cuda.max_memory_allocated(device), torch.cuda.mem_get_info(device)[1]
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        limit = psutil.virtual_memory().total
    return f"{peak / 2**30:.1f} GiB of {limit / 2**30:.1f} GiB"
