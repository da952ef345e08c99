"""How many tokens a tick should hold: the knee of tokens per second for this device, model and precision.

Measured once by widening streams of made-up rows, and remembered in a small file. On a 2-core CPU it is about
one job's step; on a large GPU it is thousands of tokens.
"""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from datatunerx.modeling.adapters import AdapterShape, make_adapter
from datatunerx.modeling.base import Base
from datatunerx.modeling.stream import Part, pack

SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
WORTH = 1.08
"""A wider tick must be this much faster to be worth its memory."""
ROW_TOKENS = 128
SLOW_SECONDS = 1.5
"""A pass that takes this long keeps the device busy whatever its width; wider ones are not tried."""


def knee(sizes: tuple[int, ...], tokens_per_second: Callable[[int], float]) -> int:
    """The last size that was worth its width; stops asking at the first that is not, or is slow."""
    best_size, best_speed = sizes[0], tokens_per_second(sizes[0])
    for size in sizes[1:]:
        if best_size / best_speed > SLOW_SECONDS:
            break
        speed = tokens_per_second(size)
        if speed < best_speed * WORTH:
            break
        best_size, best_speed = size, speed
    return best_size


def tick_capacity(base: Base, cache: Path) -> int:
    """Tokens per tick for this base on this device: remembered under `cache`, or measured now."""
    path = cache / "tick-capacity.json"
    key = _key(base)
    known = _known(path)
    if key not in known:
        _speed(base, SIZES[0])  # the first pass lays out the weights
        known[key] = knee(SIZES, lambda size: _speed(base, size))
        cache.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}.{os.getpid()}")
        hidden.write_text(json.dumps(_known(path) | {key: known[key]}, indent=1, sort_keys=True))
        os.replace(hidden, path)
    return known[key]


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
