"""How running out of memory looks. Without torch: a worker that never loads it explains its failures too."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_WORDS = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "cublas_status_alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Python's and torch's ways to say that an allocation failed."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _WORDS)


def within_memory(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """What `work` returns, or how memory ran out in it. Other errors are raised."""
    try:
        return work(), None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None, error.with_traceback(None)  # its frames hold the tensors that did not fit
