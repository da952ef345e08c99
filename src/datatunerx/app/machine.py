"""What this machine offers to trainings, for the controllers to plan with. Asks no training library."""

import shutil
import subprocess
from dataclasses import dataclass

import psutil

from datatunerx.compute.devices import CPU, slots
from datatunerx.resources.enums import Precision

CPU_SHARE = 0.6
"""Of the host's memory; the rest is for the system, the server and the tokenised data."""
GPU_SHARE = 0.9
UNKNOWN_GPU_BYTES = 8 << 30
QUERY_SECONDS = 10


@dataclass(frozen=True)
class Machine:
    devices: int
    """Runs that may train at the same time."""
    memory_bytes: int
    """Of one device."""
    precision: Precision
    """What `auto` means here."""
    gpus: int


def machine(gpus: int | None) -> Machine:
    """`gpus` None counts those that are there; without one the CPU is the device."""
    names = slots(gpus)
    if names == [CPU]:
        return Machine(1, int(psutil.virtual_memory().total * CPU_SHARE), Precision.FLOAT32, 0)
    return Machine(len(names), int(_gpu_bytes() * GPU_SHARE), Precision.BFLOAT16, len(names))


def _gpu_bytes() -> int:
    """Memory of the smallest GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return UNKNOWN_GPU_BYTES
    query = [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=QUERY_SECONDS, check=True).stdout
        return min(int(line) << 20 for line in said.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return UNKNOWN_GPU_BYTES
