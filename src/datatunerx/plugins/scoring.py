"""Calling a scorer, inside the child process: a function of a package, or a program.

A program is given three paths after its own arguments: the predictions (JSONL, to read), the result (JSON,
to write) and the call (JSON: parameters, and the folders of base and adapter).
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from datatunerx.plugins.hooks import SCORERS, ScoreCall, Scorer
from datatunerx.plugins.manager import PluginError, find

PREDICTIONS, RESULT, CALL = "predictions.jsonl", "result.json", "call.json"
MAX_RESULT = 64 << 20
"""Bytes that a scorer may write to any one file."""
_SAID = 65536


def score(request: Mapping[str, Any]) -> None:
    """Have the result written. What goes wrong is raised in the scorer's own words."""
    folder = Path(request["folder"])
    if request["command"]:
        _run(request["command"], folder)
        return
    scorer = scorer_of(find(SCORERS, request["entryPoint"]).plugin)
    base, adapter = (Path(path) if path else None for path in (request["base"], request["adapter"]))
    with (folder / PREDICTIONS).open("rb") as file:
        rows = [json.loads(line) for line in file]
    found = scorer.score(ScoreCall(rows, request["parameters"], base, adapter))
    document = found if isinstance(found, Mapping) else {"scores": {"score": {"rows": _listed(found)}}}
    try:
        text = json.dumps(document, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PluginError("ResultInvalid", f"its result cannot be written as JSON: {error}") from None
    if len(text) > MAX_RESULT:
        raise PluginError(
            "ResultTooLarge", f"its result takes {len(text):,} bytes, of {MAX_RESULT:,} allowed"
        )
    (folder / RESULT).write_text(text)


def scorer_of(plugin: Any) -> Scorer:
    """A plain function is a scorer without a schema. Raises PluginError."""
    if isinstance(plugin, Scorer):
        for module, package in plugin.requires.items():
            if find_spec(module) is None:
                fix = f"it needs {module}, which is not installed: pip install '{package}'"
                raise PluginError("PackageMissing", fix)
        return plugin
    if callable(plugin):
        return Scorer(plugin)
    raise PluginError("NotAScorer", f"{type(plugin).__name__} is not a Scorer or a function")


def _listed(found: Any) -> list[Any]:
    if isinstance(found, Sequence) and not isinstance(found, str | bytes):
        return list(found)
    what = type(found).__name__
    raise PluginError("ResultInvalid", f"it returned {what}; return a list of numbers, or {{'scores': ...}}")


def _run(command: list[str], folder: Path) -> None:
    program = shutil.which(command[0])
    if program is None:
        raise PluginError("CommandNotFound", f"{command[0]!r} is not on the PATH of the workers")
    argv = [program, *command[1:], *(str(folder / name) for name in (PREDICTIONS, RESULT, CALL))]
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    with tempfile.TemporaryFile() as said:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_RESULT, hard))  # inherited by the program
        try:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))  # and ours is as it was
        code = process.wait()
        said.seek(max(0, said.seek(0, os.SEEK_END) - _SAID))
        words = said.read().decode("utf-8", "replace")
    print(words, end="", file=sys.stderr)
    if code:
        lines = words.strip().splitlines() or ["it said nothing"]
        raise RuntimeError(f"{command[0]} ended with {code}: {lines[-1]}")
