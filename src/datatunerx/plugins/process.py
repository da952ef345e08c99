"""Asking a plugin something: its code runs in a process of its own, within a time and a memory."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from datatunerx.plugins.manager import PluginError
from datatunerx.plugins.scoring import CALL, MAX_RESULT, RESULT
from datatunerx.resources.material import PluginLimits
from datatunerx.runs.plan import MakeDataPlan, PluginCall
from datatunerx.runs.result import PluginFacts

ANSWER_BYTES = 4 << 20
DESCRIBE_SECONDS = 60.0
"""Loading a plugin to see what it is takes no longer than this."""
Heard = Callable[[Mapping[str, Any]], None]


def describe(plugin: PluginCall) -> PluginFacts:
    """What the plugin is. Raises PluginError."""
    limits = plugin.limits.model_copy(
        update={"timeout_seconds": min(plugin.limits.timeout_seconds, DESCRIBE_SECONDS)}
    )
    request = {"do": "describe", **_of(plugin)}
    return PluginFacts.model_validate(_asked(plugin.name, request, limits)["facts"])


def make(
    plan: MakeDataPlan, split: str, files: list[Path], output: Path, heard: Heard = lambda said: None
) -> Mapping[str, Any]:
    """Rows of one split as JSONL at `output`; gives `rows` and `leftOut`. Raises PluginError.

    `heard` is called with `done`, `total` (or None), `unit` and `rows` while it works.
    """
    request = {
        "do": "make", "split": split, "files": [str(file) for file in files], "output": str(output),
        "parameters": plan.parameters, **_of(plan.plugin),
    }  # fmt: skip
    made: Mapping[str, Any] = _asked(plan.plugin.name, request, plan.plugin.limits, heard)["made"]
    return made


def score(
    plugin: PluginCall, parameters: Mapping[str, Any], folder: Path, base: Path | None, adapter: Path | None
) -> bytes:
    """What a scorer finds of `folder`/predictions.jsonl, its result not looked at. Raises PluginError."""
    given = {"parameters": parameters, "base": base and str(base), "adapter": adapter and str(adapter)}
    folder.joinpath(CALL).write_text(json.dumps(given))
    _asked(plugin.name, {"do": "score", "folder": str(folder), **given, **_of(plugin)}, plugin.limits)
    result = folder / RESULT
    if not result.is_file() or result.stat().st_size > MAX_RESULT:
        wrote = f"wrote no result of at most {MAX_RESULT >> 20} MiB to {RESULT}, its second argument"
        raise PluginError("NoResult", f"plugin {plugin.name} {wrote}")
    return result.read_bytes()


def _of(plugin: PluginCall) -> dict[str, Any]:
    return {
        "group": plugin.group, "entryPoint": plugin.entry_point, "command": plugin.command,
        "memoryBytes": plugin.limits.memory_bytes,
    }  # fmt: skip


def _asked(
    name: str, request: Mapping[str, Any], limits: PluginLimits, heard: Heard = lambda said: None
) -> Mapping[str, Any]:
    """The child's last answer. Raises PluginError, in the plugin's own words where it has any."""
    process = subprocess.Popen(
        [sys.executable, "-m", "datatunerx.plugins.child"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdin and process.stdout
    late = threading.Event()

    def end() -> None:
        late.set()
        _kill(process)

    timer = threading.Timer(limits.timeout_seconds, end)
    timer.start()
    last: Mapping[str, Any] = {}
    try:
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        while line := process.stdout.readline(ANSWER_BYTES):
            with suppress(ValueError):  # cut off where it was killed
                last = json.loads(line)
            if "facts" in last or "made" in last or "failed" in last:
                break
            heard(last)
    finally:
        timer.cancel()
        _kill(process)  # and whatever it has started
        code = process.wait()
        process.stdout.close()
        with suppress(BrokenPipeError):
            process.stdin.close()
    if "facts" in last or "made" in last:
        return last
    raise PluginError(*_why(name, last, limits, late.is_set(), code))


def _why(name: str, last: Mapping[str, Any], limits: PluginLimits, late: bool, code: int) -> tuple[str, str]:
    if failed := last.get("failed"):
        return failed["reason"], f"plugin {name}: {failed['message']}"
    if late:
        fix = "raise spec.limits.timeoutSeconds of the plugin, or give it less"
        return "PluginTimeout", f"plugin {name} took longer than {limits.timeout_seconds:g} s; {fix}"
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    fix = f"it may have needed more than spec.limits.memoryBytes ({limits.memory_bytes:,}); see the log"
    return "PluginDied", f"plugin {name} ended its process ({how}); {fix}"


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
