"""An exception in two pieces for the user: one word, and one line that says what to do. Never a traceback."""

import os
import resource
import sys

from datatunerx.storage import is_disk_full
from datatunerx.training.shortage import is_out_of_memory

MESSAGE_CHARACTERS = 2000


def explain(error: BaseException, doing: str = "") -> tuple[str, str]:
    """(reason, message) of a failure that happened while `doing`."""
    if is_out_of_memory(error):
        return "OutOfMemory", _out_of_memory(doing)
    if isinstance(error, OSError) and is_disk_full(error):
        return (
            "DiskFull",
            f"no space left on the disk: {error.filename or doing}; free some and start it again",
        )
    if isinstance(error, ModuleNotFoundError):
        return (
            "PackageMissing",
            f"{error.name} is not installed; pip install 'datatunerx[train]' brings what workers need, "
            "and dtx doctor lists what is missing",
        )
    text = " ".join(str(error).split()) or "no more is known; the log has the traceback"
    return type(error).__name__, text[:MESSAGE_CHARACTERS]


def _out_of_memory(doing: str) -> str:
    while_doing = f" while {doing}" if doing else ""
    return (
        f"out of memory{while_doing}: the worker's peak was {_gib(peak_bytes())} of {_gib(limit_bytes())}; "
        "halve batchSize and double gradientAccumulation, lower cutoffLength, or train fewer jobs at once"
    )


def peak_bytes() -> int:
    """Most memory this process has had resident so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def limit_bytes() -> int:
    """Memory this process can have: what its control group allows, or all the machine has."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path) as file:
                limits.append(int(file.read()))
        except (OSError, ValueError):  # another version, or "max"
            continue
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    return min(limits)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
