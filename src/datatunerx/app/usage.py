"""How this machine's devices are used at the moment."""

import platform
import shutil
import subprocess

import psutil

from datatunerx.app.machine import QUERY_SECONDS
from datatunerx.compute.devices import CPU
from datatunerx.console.host import Device

FIELDS = "index,name,memory.total,memory.used,utilization.gpu"


def used(gpus: int) -> tuple[Device, ...]:
    """The GPUs that nvidia-smi tells of; without any the CPU, busy since the last time this was asked."""
    if not gpus:
        memory = psutil.virtual_memory()
        name = platform.processor() or platform.machine()
        busy = psutil.cpu_percent() / 100
        return (
            Device(
                CPU, f"{psutil.cpu_count()} × {name}", memory.total, memory.total - memory.available, busy
            ),
        )
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=QUERY_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse(said)


def parse(said: str) -> tuple[Device, ...]:
    """What nvidia-smi says, a line a GPU; what it does not know is 0."""
    found = []
    for line in said.splitlines():
        index, name, total, here, busy = (part.strip() for part in line.split(","))
        found.append(Device(index, name, _number(total) << 20, _number(here) << 20, _number(busy) / 100))
    return tuple(found)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
