"""How the C library treats the memory of tensors that were freed."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Let glibc hand freed tensors to the next ones; False where there is no glibc.

    By default every tensor above 32 MB is fresh pages from the kernel, and smaller ones are given back as
    soon as the top of the heap is free: a step touched 160,000 pages anew and spent a sixth of its time there
    (docs/log.md).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _KEEP_BYTES)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
