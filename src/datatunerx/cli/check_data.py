"""`dtx dataset check`: what an inspection finds in files, before anything is registered and without a server.

The very worker that inspects a Dataset reads them, in a process of its own with bounded memory and time.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from datatunerx.cli.check import did_you_mean
from datatunerx.cli.errors import BadInput, CommandError, Exit
from datatunerx.cli.text import visible
from datatunerx.resources.enums import DataFormat, RunPhase, RunType, Split
from datatunerx.resources.material import AutoSplit
from datatunerx.runs import DataFiles, InspectDataPlan, ModelFiles, RunPlan, RunResult, files
from datatunerx.runs.plan import identified

MEMORY_BYTES = 1 << 30
"""That the reading process may take, libraries and all. What it needs is a fraction of it."""
START_SECONDS = 60
BYTES_PER_SECOND = 1 << 20
"""A file is given this long; it takes a twentieth of it."""
SHOWN_PROBLEMS = 3
SHOWN_CHARACTERS = 400


@dataclass(frozen=True)
class Checked:
    """How the check ended: with a report, or with the reason why there is none."""

    refused: str
    facts: dict[str, Any]
    """The report, the first problems and the first rows, as the inspection's file has them."""


def check(paths: Sequence[str], format: str, features: Sequence[str], form: str | None) -> Exit:
    """Print what the files hold. Exit.OK if they can be trained on, Exit.FAILED if not."""
    if form not in (None, "json"):
        raise BadInput(f"-o {form}: must be json")
    data = DataFiles(
        name="check",
        splits={Split.TRAIN: [_uri(path) for path in paths]},
        format=_format(format),
        features=mapping(features),
        auto_split=AutoSplit(validate=0, test=0),
    )
    seconds = START_SECONDS + sum(map(_size, paths)) / BYTES_PER_SECOND
    found = inspected(data, seconds)
    if form == "json":
        print(json.dumps({"usable": not found.refused, "message": found.refused, **found.facts}, indent=2))
    else:
        print("\n".join(_told(found)))
    return Exit.FAILED if found.refused else Exit.OK


def inspected(data: DataFiles, seconds: float, model: ModelFiles | None = None) -> Checked:
    """Have a worker inspect the files, with the model's tokenizer if there is one.

    Raises CommandError if it does not come to an end.
    """
    with tempfile.TemporaryDirectory(prefix="dtx-check-") as name:
        folder = Path(name)
        part = InspectDataPlan(data=data, model=model)
        plan = identified(RunType.INSPECT, folder.as_uri(), {"inspect_data": part})
        place = folder / files.PLAN
        place.write_text(plan.model_dump_json(by_alias=True, exclude_none=True), encoding="utf-8")
        code, said = _work(place, folder, seconds)
        return _result(plan, folder, code, said)


def _work(plan: Path, folder: Path, seconds: float) -> tuple[int, str]:
    """Exit code of the worker, and the last that it said."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # each would take memory
    with (folder / files.LOG).open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "datatunerx.worker", plan.as_uri()],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | threads,
        )  # fmt: skip
        if hasattr(resource, "prlimit"):  # Linux
            resource.prlimit(child.pid, resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            fix = "check a part of it, or register it: an inspection has no such limit"
            raise CommandError(f"not read within {seconds:.0f} s; {fix}") from None
        finally:
            child.kill()
            child.wait()
    lines = (folder / files.LOG).read_text("utf-8", errors="replace").splitlines()
    return code, lines[-1] if lines else ""


def _result(plan: RunPlan, folder: Path, code: int, said: str) -> Checked:
    output = folder / "runs" / plan.id
    try:
        result = RunResult.model_validate_json((output / files.RESULT).read_bytes())
    except (OSError, ValidationError):
        raise CommandError(f"the reading process ended with {code} and no result: {visible(said)}") from None
    if result.phase is not RunPhase.SUCCEEDED:
        return Checked(result.message, {})
    facts: dict[str, Any] = json.loads((output / "report.json").read_bytes())
    facts.pop("reportUri", None)  # its folder is gone once this is printed
    return Checked("", facts)


def _told(found: Checked) -> list[str]:
    if found.refused:
        return [f"cannot be used: {visible(found.refused)}"]
    report = found.facts["report"]
    lines = [
        f"format   {report.get('format') or 'not recognised'}",
        f"rows     {report['read']:,} read, {report['kept']:,} kept, {report['dropped']:,} dropped",
    ]
    lines += [f"warning  {visible(warning)}" for warning in report.get("warnings", [])]
    for reason in report.get("reasons", []):
        places = reason.get("where", [])
        more = f" and {reason['count'] - len(places):,} more" if reason["count"] > len(places) else ""
        lines += ["", f"dropped  {reason['count']:,} {reason['reason']}: {visible(', '.join(places))}{more}"]
        told = [p for p in found.facts.get("problems", []) if p["reason"] == reason["reason"]]
        lines += [f"         {visible(_problem(one))}" for one in told[:SHOWN_PROBLEMS]]
    for example in found.facts.get("preview", []):
        lines += ["", f"example  {visible(example['row'])}", *_example(example)]
    return lines


def _problem(one: dict[str, Any]) -> str:
    parts = [f"{one['file']}:{one['line']}", one["field"], f"found {one['found']}" if one["found"] else ""]
    return ": ".join(part for part in parts if part) + f". Fix: {one['fix']}"


def _example(row: dict[str, Any]) -> list[str]:
    lines = [f"  {'tools':<10} {json.dumps(row['tools'], ensure_ascii=False)}"] if row.get("tools") else []
    lines += [_turn(message["role"], message) for message in row.get("messages", [])]
    if row.get("rejected"):
        lines.append(_turn("rejected", row["rejected"][-1]))
    if "label" in row:
        lines.append(f"  {'label':<10} {'wanted' if row['label'] else 'not wanted'}")
    return [line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]} ..." for line in lines]


def _turn(name: str, message: dict[str, Any]) -> str:
    calls = message.get("tool_calls")
    said = message["content"] + (f" calls {json.dumps(calls, ensure_ascii=False)}" if calls else "")
    return f"  {name:<10} {visible(said)}"


def _uri(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"{path!a}: a name that is not UTF-8; give the file another") from error
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # elsewhere, or told by the inspection
        return 0


def _format(text: str) -> DataFormat:
    try:
        return DataFormat(text)
    except ValueError:
        raise BadInput(f"--format {text}: unknown{did_you_mean(text, list(DataFormat))}") from None


def mapping(texts: Sequence[str]) -> dict[str, str]:
    """Columns by the part of a row that they hold, from PART=COLUMN each."""
    parts = [text.partition("=") for text in texts]
    for text, (part, equals, column) in zip(texts, parts, strict=True):
        if not equals or not part or not column:
            raise BadInput(f"--map {text}: write it as PART=COLUMN, as in completion=answer")
    return {part: column for part, _, column in parts}
