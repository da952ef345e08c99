"""`python -m datatunerx.plugins.child`: the process in which plugin code runs, within its limits.

The first line of its input is the request. It answers on its output with one JSON document a line; the last
has `facts`, `made` or `failed`. What a plugin prints goes to the log. When its input ends - whoever asked
has died - it ends at once, with all that the plugin has started.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from datatunerx.plugins.hooks import DATA_PLUGINS, Call, DataPlugin
from datatunerx.plugins.manager import Offer, PluginError, find
from datatunerx.plugins.parameters import schema_problem
from datatunerx.plugins.scoring import score, scorer_of

TELL_SECONDS = 0.5
MAX_PLACES = 20
MAX_REASONS = 64
MAX_LINE = 16 << 20
Answer = Callable[[Mapping[str, Any]], None]


def describe(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the plugin is. Raises PluginError."""
    if request["command"]:
        _program(request["command"])
        return {"version": None, "package": None, "summary": "", "parameterSchema": {}}
    offer = find(request["group"], request["entryPoint"])
    plugin = data_plugin(offer) if request["group"] == DATA_PLUGINS else scorer_of(offer.plugin)
    schema = dict(getattr(plugin, "parameters", None) or {})
    if problem := schema_problem(schema):
        raise PluginError("PluginBroken", f"its parameter schema is {problem}")
    summary = getattr(plugin, "summary", "") or (plugin.__doc__ or "").strip().partition("\n")[0]
    return {
        "version": offer.version,
        "package": offer.package,
        "summary": summary,
        "parameterSchema": schema,
    }


def data_plugin(offer: Offer) -> DataPlugin:
    """The plugin; a plain function is one without a schema. Raises PluginError."""
    if isinstance(offer.plugin, DataPlugin):
        return offer.plugin
    if callable(offer.plugin):
        return DataPlugin(offer.plugin, (offer.plugin.__doc__ or "").strip().partition("\n")[0])
    what = type(offer.plugin).__name__
    raise PluginError("NotADataPlugin", f"{offer.name} is a {what}, not a DataPlugin or a function")


def make(request: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    """Have the rows of one split written to `output`, and say what was made."""
    telling, left_out = _Telling(answer), _LeftOut()
    call = Call(
        split=request["split"],
        files=tuple(Path(path) for path in request["files"]),
        parameters=request["parameters"],
        tell=telling,
        leave_out=left_out,
    )
    if request["command"]:
        rows: Iterable[Any] = _rows_of_program(request["command"], call)
    else:
        rows = data_plugin(find(request["group"], request["entryPoint"])).make(call)
    count = 0
    with open(request["output"], "wb") as file:
        for count, row in enumerate(rows, 1):
            if not isinstance(row, Mapping):
                raise TypeError(f"row {count} is a {type(row).__name__}; each must be a mapping")
            file.write(orjson.dumps(dict(row), option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY))
            telling.rows = count
        file.flush()
        os.fsync(file.fileno())
    return {"rows": count, "leftOut": left_out.entries()}


class _Telling:
    """Passes on how far the plugin is, now and then."""

    def __init__(self, answer: Answer) -> None:
        self._answer, self._last, self.rows = answer, 0.0, 0

    def __call__(self, done: int, total: int | None, unit: str) -> None:
        if time.monotonic() - self._last >= TELL_SECONDS:
            self._last = time.monotonic()
            self._answer({"done": done, "total": total, "unit": unit, "rows": self.rows})


class _LeftOut:
    """Counts what becomes no row."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._places: dict[str, list[str]] = {}

    def __call__(self, reason: str, place: str) -> None:
        known = self._counts.keys()
        reason = reason[:256] if reason in known or len(known) < MAX_REASONS - 1 else "other"
        self._counts[reason] += 1
        places = self._places.setdefault(reason, [])
        if len(places) < MAX_PLACES:
            places.append(place[-256:])

    def entries(self) -> list[dict[str, Any]]:
        found = self._counts.most_common()
        return [{"reason": r, "count": n, "where": self._places[r]} for r, n in found]


def _program(command: list[str]) -> str:
    found = shutil.which(command[0])
    if found is None:
        raise PluginError("CommandNotFound", f"{command[0]!r} is not on the PATH of the workers")
    return found


def _rows_of_program(command: list[str], call: Call) -> Iterator[Any]:
    """Rows that a program writes, one JSON object a line; it reads the call as JSON from its input."""
    asked = {"split": call.split, "files": [str(path) for path in call.files], "parameters": call.parameters}
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as question:
        question.write(json.dumps(asked).encode())
        question.seek(0)
        argv = [_program(command), *command[1:]]
        with subprocess.Popen(argv, stdin=question, stdout=subprocess.PIPE, stderr=said) as process:
            assert process.stdout
            number = 0
            while line := process.stdout.readline(MAX_LINE):
                number += 1
                try:
                    yield orjson.loads(line)
                except ValueError as error:
                    process.kill()
                    raise ValueError(f"line {number} of its output is not JSON: {error}") from None
        said.seek(max(0, said.seek(0, os.SEEK_END) - 65536))
        words = said.read().decode("utf-8", "replace")
        print(words, end="", file=sys.stderr)
        if process.returncode:
            lines = words.strip().splitlines() or ["it said nothing"]
            raise RuntimeError(f"{command[0]} ended with {process.returncode}: {lines[-1]}")


def failed(error: BaseException) -> dict[str, str]:
    """What is told of a failure: the plugin's own words."""
    if isinstance(error, PluginError):
        return {"reason": error.reason, "message": error.message}
    if isinstance(error, MemoryError):
        return {"reason": "PluginOutOfMemory", "message": "it needs more than limits.memoryBytes"}
    traceback.print_exc()
    return {"reason": "PluginFailed", "message": str(error).strip() or type(error).__name__}


def _die_with_asker() -> None:
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


def main() -> int:
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a plugin prints is for the log
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_die_with_asker, daemon=True).start()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (request["memoryBytes"], request["memoryBytes"]))

    def answer(document: Mapping[str, Any]) -> None:
        answers.write(json.dumps(document).encode() + b"\n")

    try:
        if request["do"] == "describe":
            answer({"facts": describe(request)})
        elif request["do"] == "score":
            score(request)
            answer({"made": {}})
        else:
            answer({"made": make(request, answer)})
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, SystemExit too
        answer({"failed": failed(error)})
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # threads that a plugin left behind end here
