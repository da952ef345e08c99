"""What this machine can run on at once: one slot per GPU, or one for the CPU."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

CPU = "cpu"
INSPECT_SLOTS = 2
"""Inspections need no device; so many may run beside the rest."""

_KEPT = {
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH",
    "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY",
    "NO_PROXY", "XDG_CACHE_HOME",
}  # fmt: skip
_KEPT_PREFIXES = ("LC_", "HF_", "HUGGINGFACE_", "NVIDIA_", "NCCL_", "TORCH_", "PYTORCH_")


def slots(gpus: int | None) -> list[str]:
    """Names of the device slots; `gpus` None counts the GPUs that are here and visible."""
    names = _visible_gpus() if gpus is None else [str(number) for number in range(gpus)]
    return names or [CPU]


def environment(base: Mapping[str, str], held: list[str], num_slots: int) -> dict[str, str]:
    """A worker's environment: what it needs of the server's, its devices, and its share of the cores."""
    kept = {
        name: value
        for name, value in base.items()
        if name.upper() in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    threads = str(max(1, num_cores() // num_slots))
    return kept | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        # Threads that spin long while they wait for one another took training from 200 to 8 tokens/s on two
        # cores that had other work too; threads that sleep at once lose a third on free ones (docs/log.md).
        "GOMP_SPINCOUNT": "2000",
        "CUDA_VISIBLE_DEVICES": ",".join(name for name in held if name != CPU),
        "PYTHONUNBUFFERED": "1",
        "TQDM_DISABLE": "1",  # a log is read line by line
        "PYTHONSAFEPATH": "1",  # a file named torch.py in the working folder is not our torch
    }


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _visible_gpus() -> list[str]:
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in (part.strip() for part in chosen.split(",")) if name and name != "-1"]
    found = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted((match[1] for match in found if match), key=int)
