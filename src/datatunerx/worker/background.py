"""The base model, loaded beside other work: importing torch and reading weights waits mostly for the disk."""

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from datatunerx import storage
from datatunerx.resources.enums import Precision
from datatunerx.runs import ModelFiles

if TYPE_CHECKING:
    from datatunerx.modeling.base import Base

T = TypeVar("T")


def in_background(work: Callable[[], T]) -> "Future[T]":
    """What `work` will return or raise. Its thread holds up nobody who leaves."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, name="load-base", daemon=True).start()
    return future


def check_model(model: ModelFiles, store: Path) -> None:
    """Raises `ModelChanged` if its files are not those that were inspected; `store` is the model store.

    Before anything is read of them: what is made of others must not be cached under this digest.
    """
    from datatunerx.modeling.intact import must_be

    must_be(storage.local_path(model.uri), model.digest, store, model.name)


def load(path: Path, precision: Precision) -> "Base":
    """The base on this run's device: the GPU it was given, else the CPU."""
    import torch

    from datatunerx.modeling.base import load_base

    # Tokenised rows are mapped read-only, and torch only reads them.
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if precision is Precision.AUTO:
        fine = device == "cuda" and torch.cuda.is_bf16_supported()
        precision = Precision.BFLOAT16 if fine else Precision.FLOAT32
    return load_base(path, precision=precision.value, device=device)
