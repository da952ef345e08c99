"""Processes that are surely ours: known by pid, start time and a token in their environment.

A signal goes only to a process that matches. A pid alone says nothing: the kernel gives it out again.
"""

import os
import signal
import sys
from typing import NamedTuple

import psutil

TOKEN = "DTX_RUN_TOKEN"
"""The environment variable that marks a worker and what it starts."""
LINUX = sys.platform == "linux"
_ENVIRONMENT_BYTES = 1 << 20
"""How much of a stranger's environment is read while looking for a token."""


class Seen(NamedTuple):
    """One look at a living process."""

    pid: int
    started: str
    """Start time: with the pid it names one process until the next boot."""
    parent: int
    session: int


def look(pid: int) -> Seen | None:
    """The process as it is now; None if it is gone, or ended and only not yet reaped."""
    if not LINUX:
        return _look_elsewhere(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The name may hold anything, so fields are counted from its closing bracket: state, ppid, pgrp, session.
    fields = text.rpartition(b")")[2].split()
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    # Ticks since boot, unlike a time of day, do not move when the clock is set.
    return Seen(pid, fields[19].decode(), int(fields[1]), int(fields[3]))


def is_ours(pid: int, started: str, token: str) -> bool:
    """Whether this very process is alive and holds our token."""
    seen = look(pid)
    return seen is not None and seen.started == started and holds(pid, token)


def holds(pid: int, token: str) -> bool:
    """Whether the process was started with our token."""
    if not LINUX:
        return _environment_elsewhere(pid).get(TOKEN) == token
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{TOKEN}={token}".encode() in file.read(_ENVIRONMENT_BYTES).split(b"\0")
    except OSError:
        return False


def leader(token: str) -> Seen | None:
    """The living worker that was started with this token, if any: it leads its session."""
    return next((seen for seen in everyone() if seen.session == seen.pid and holds(seen.pid, token)), None)


def family(token: str) -> dict[int, str]:
    """Everyone who belongs to the worker, as pid -> start time.

    Those who hold its token, those in the session of one of them, and the descendants of all these:
    a child that was given a clean environment is still a child.
    """
    processes = everyone()
    members = {seen.pid for seen in processes if holds(seen.pid, token)}
    sessions = set(members)
    grown = True
    while grown:
        found = {seen.pid for seen in processes if seen.parent in members or seen.session in sessions}
        grown = not found <= members
        members |= found
    return {seen.pid: seen.started for seen in processes if seen.pid in members}


def everyone() -> list[Seen]:
    """The living processes of this user."""
    if not LINUX:
        pids = psutil.pids()
    else:
        mine = os.geteuid()
        pids = [
            int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit() and _owner(entry) == mine
        ]
    return [seen for pid in pids if (seen := look(pid))]


def send(pid: int, started: str, number: signal.Signals) -> None:
    """Signal this very process; one that is gone is left in peace, and so is whoever has its pid now."""
    try:
        if not LINUX:
            if is_same(pid, started):
                os.kill(pid, number)
            return
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        # The handle holds the process still: it cannot become another between this look and the signal.
        if is_same(pid, started):
            signal.pidfd_send_signal(handle, number)
    except OSError:
        pass
    finally:
        os.close(handle)


def is_same(pid: int, started: str) -> bool:
    seen = look(pid)
    return seen is not None and seen.started == started


def _owner(entry: os.DirEntry[str]) -> int | None:
    try:
        return entry.stat().st_uid
    except OSError:
        return None


def _look_elsewhere(pid: int) -> Seen | None:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return Seen(pid, repr(process.create_time()), process.ppid(), os.getsid(pid))
    except (psutil.Error, OSError):
        return None


def _environment_elsewhere(pid: int) -> dict[str, str]:
    try:
        return dict(psutil.Process(pid).environ())
    except (psutil.Error, OSError):
        return {}
