"""How many tokens a tick should hold: the knee of tokens per second for this device, model and precision.

Measured once by widening streams of made-up rows, and remembered in a small file. On a 2-core CPU it is about
one job's step; on a large GPU it is thousands of tokens.
"""

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from datatunerx import storage
from datatunerx.modeling.adapters import AdapterShape, make_adapter
from datatunerx.modeling.base import Base
from datatunerx.modeling.stream import Part, pack
from datatunerx.training.shortage import is_out_of_memory

SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
WORTH = 1.08
"""A wider tick must be this much faster to be worth its memory."""
ROW_TOKENS = 128
SLOW_SECONDS = 1.5
"""A pass that takes this long keeps the device busy whatever its width; wider ones are not tried."""


def knee(sizes: tuple[int, ...], tokens_per_second: Callable[[int], float]) -> int:
    """The last size that was worth its width; stops asking at the first that is not, or is slow.

    A size that does not fit has speed 0. If none fits, the first is returned.
    """
    best_size, best_speed = sizes[0], tokens_per_second(sizes[0])
    for size in sizes[1:]:
        if best_size > SLOW_SECONDS * best_speed:
            break
        speed = tokens_per_second(size)
        if speed < best_speed * WORTH:
            break
        best_size, best_speed = size, speed
    return best_size


def tick_capacity(base: Base, cache: Path) -> int:
    """Tokens per tick for this base on this device: remembered under `cache`, or measured now.

    Never fails a run: where memory ends, the last size that fits is the answer, for this time only.
    """
    path = cache / "tick-capacity.json"
    key = _key(base)
    known = _known(path)
    if key in known:
        return known[key]
    speeds: list[float] = []

    def measured(size: int) -> float:
        speeds.append(_speed_if_it_fits(base, size))
        return speeds[-1]

    measured(SIZES[0])  # the first pass lays out the weights
    found = knee(SIZES, measured)
    if all(speeds):  # memory that is short now says nothing of the next time
        _remember(path, key, found)
    return found


def _remember(path: Path, key: str, found: int) -> None:
    try:
        storage.write_atomic(
            str(path), json.dumps(_known(path) | {key: found}, indent=1, sort_keys=True).encode()
        )
    except OSError as error:  # full or read-only: the next run measures again
        print(f"warning: the measured tokens per tick are not remembered: {error}", flush=True)


def _speed_if_it_fits(base: Base, tokens: int) -> float:
    try:
        return _speed(base, tokens)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return 0.0


def _known(path: Path) -> dict[str, int]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, int) and value > 0}


def _key(base: Base) -> str:
    config = base.config
    shape = f"{config.hidden_size}x{config.intermediate_size}x{config.num_hidden_layers}x{config.vocab_size}"
    device = platform.machine() if base.device.type == "cpu" else torch.cuda.get_device_name(base.device)
    threads = torch.get_num_threads() if base.device.type == "cpu" else 0
    return f"{device}/{threads} threads/{config.model_type} {shape}/{base.dtype}".replace("torch.", "")


def _speed(base: Base, tokens: int) -> float:
    adapter = make_adapter("probe", AdapterShape(), base.widths, seed=0, device=base.device)
    rows = [torch.arange(ROW_TOKENS) % base.config.vocab_size] * (tokens // ROW_TOKENS)
    start = _clock(base.device)
    hidden = base.pass_through(pack([Part(adapter, rows)], base.device))
    hidden.backward(torch.ones_like(hidden))
    return tokens / (_clock(base.device) - start)


def _clock(device: torch.device) -> float:
    """Seconds; on a CPU those it was given, not those that passed: others may be busy just now."""
    if device.type == "cpu":
        return time.process_time() / torch.get_num_threads()
    torch.cuda.synchronize(device)
    return time.perf_counter()
