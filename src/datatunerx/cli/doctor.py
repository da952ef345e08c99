"""What this machine has, what is missing, and which feature that turns off. Imports none of it."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from datatunerx.app.settings import Settings
from datatunerx.cli.connect import access, answers, connected
from datatunerx.cli.errors import BadInput, CommandError, Exit
from datatunerx.cli.text import aligned

LOW_DISK_BYTES = 5 << 30
"""A base model of this size class, its converted copy and a few checkpoints."""
FEATURES = {
    "torch": "training, scoring and serving", "transformers": "training, scoring and serving",
    "safetensors": "training, scoring and serving", "numpy": "scoring", "gguf": "base models in GGUF files",
    "huggingface-hub": "base models from the Hugging Face hub (hf://)", "pyarrow": "Parquet data",
    "openpyxl": "spreadsheets",
    "jieba": "ROUGE for Chinese", "rouge-score": "ROUGE", "sacrebleu": "BLEU",
    "cel-expr-python": "rules in CRDs", "cryptography": "HTTPS and secrets", "psutil": "local runs",
}  # fmt: skip
CORE = "dtx itself"


@dataclass(frozen=True)
class Finding:
    subject: str
    status: str
    """ok, warning or missing; missing turns a feature off."""
    found: str
    advice: str = ""


async def doctor(found: Settings, *, form: str | None) -> Exit:
    """Print every finding; exit 1 if something dtx itself needs is missing."""
    if form not in (None, "json"):
        raise BadInput(f"-o {form}: must be json")
    findings = [
        _python(), *packages(), *_devices(), _kubectl(), _disk(found), _home(found), await _server(found)
    ]  # fmt: skip
    if form == "json":
        print(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        rows = [["CHECK", "STATUS", "FOUND", "WHAT TO DO"]]
        print("\n".join(aligned(rows + [[f.subject, f.status, f.found, f.advice] for f in findings])))
    return Exit.FAILED if any(f.status == "missing" and CORE in f.advice for f in findings) else Exit.OK


def packages() -> list[Finding]:
    """Each package we ask for: absent, too old, or fine; too new cannot be, unless a bound says so."""
    findings = []
    for line in requires("datatunerx") or []:
        parsed = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*([^;]*)(?:;\s*(.*))?$", line)
        if parsed is None:
            continue
        name, bounds, marker = parsed[1], parsed[2].strip(), parsed[3] or ""
        extra = re.search(r"extra\s*==\s*['\"](\w+)['\"]", marker)
        if extra and extra[1] != "train":
            continue
        if "sys_platform" in marker and sys.platform == "win32":
            continue
        findings.append(package(name, bounds, extra[1] if extra else None))
    return findings


def package(name: str, bounds: str, extra: str | None) -> Finding:
    """One package against its version bounds, such as `>=2.13`."""
    off = FEATURES.get(name.replace("_", "-"), CORE if extra is None else "training")
    wanted = f"datatunerx[{extra}]" if extra else "datatunerx"
    advice = f"turns off {off}; pip install '{wanted}'"
    if extra is None and off != CORE:
        advice = f"turns off {off} and {CORE}; pip install '{wanted}'"
    try:
        have = version(name)
    except PackageNotFoundError:
        return Finding(name, "missing", "-", advice)
    for operator, bound in re.findall(r"(>=|<=|==|<|>)\s*([0-9][^,\s]*)", bounds):
        if not _holds(_release(have), operator, _release(bound)):
            age = "too old" if operator.startswith((">", "==")) else "too new"
            return Finding(name, "missing", f"{have}, {age} (needs {bounds})", advice)
    return Finding(name, "ok", have)


def _release(text: str) -> tuple[int, ...]:
    numbers = re.match(r"\d+(?:\.\d+)*", text)
    parts = [int(part) for part in numbers[0].split(".")] if numbers else [0]
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _holds(have: tuple[int, ...], operator: str, bound: tuple[int, ...]) -> bool:
    match operator:
        case ">=":
            return have >= bound
        case "<=":
            return have <= bound
        case "<":
            return have < bound
        case ">":
            return have > bound
    return have == bound


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if not _holds(_release(found), ">=", (3, 11)):
        return Finding("python", "missing", found, f"{CORE} needs 3.11 or newer")
    return Finding("python", "ok", found)


def _devices() -> list[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    findings = [Finding("cpu", "ok", f"{cores} cores")]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return [*findings, Finding("gpu", "ok", "none", "trainings run on the CPU")]
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return [*findings, Finding("gpu", "warning", f"nvidia-smi failed: {error}", "is the driver loaded?")]
    return findings + [Finding("gpu", "ok", " ".join(line.split())) for line in said.splitlines() if line]


def _kubectl() -> Finding:
    path = shutil.which("kubectl")
    if path is None:
        return Finding("kubectl", "warning", "-", "optional; dtx get, describe and logs do without")
    return Finding("kubectl", "ok", path)


def _disk(found: Settings) -> Finding:
    place = found.home
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    told = f"{free / (1 << 30):.1f} GiB free at {place}"
    if free < LOW_DISK_BYTES:
        return Finding("disk", "warning", told, "models and checkpoints need room; set DTX_HOME elsewhere")
    return Finding("disk", "ok", told)


def _home(found: Settings) -> Finding:
    if not found.home.exists():
        return Finding("home", "ok", f"{found.home}, not made yet")
    mode = stat.S_IMODE(found.home.stat().st_mode)
    if not os.access(found.home, os.W_OK):
        return Finding("home", "missing", f"{found.home} is not writable", f"{CORE} keeps its state there")
    if mode & 0o077:
        return Finding(
            "home", "warning", f"{found.home}, mode {mode:o}", f"others can look in: chmod 700 {found.home}"
        )
    return Finding("home", "ok", str(found.home))


async def _server(found: Settings) -> Finding:
    try:
        async with connected(found) as api:
            if await answers(api):
                return Finding("server", "ok", access(found).server)
            return Finding("server", "warning", f"{access(found).server} does not answer", "start it: dtx up")
    except CommandError:
        return Finding("server", "warning", "none was started yet", "start it: dtx up")
