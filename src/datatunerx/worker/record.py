"""With what a training is done: written beside its events, so that a checkpoint can say what made it."""

import hashlib
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path

import datatunerx
from datatunerx import storage
from datatunerx.data import Problem, read_rows
from datatunerx.data.gather import recall
from datatunerx.resources.enums import Split
from datatunerx.resources.export import Origin
from datatunerx.runs import DataFiles, RunPlan, files
from datatunerx.storage import local_path

MAX_ROWS = 200_000
"""More are not noted: comparing them one by one would tell nobody anything."""
SHOWN = 120
"""Characters of a row."""
PACKAGES = ("datatunerx", "torch", "transformers", "tokenizers", "safetensors", "numpy")


def write_record(plan: RunPlan) -> None:
    """Write `record.json` into the run's folder."""
    data = origin(plan).model_dump_json(by_alias=True, indent=1).encode()
    storage.write_atomic(files.in_folder(plan.output_uri, files.RECORD), data)


def origin(plan: RunPlan) -> Origin:
    """Versions, device, threads, command; the seed is each job's own and added by who knows the job."""
    import torch

    cuda = torch.cuda.is_available()
    where = torch.cuda.get_device_name() if cuda else f"cpu {platform.machine()}"
    inexact = ["CUDA kernels: sums in no fixed order", "attention backward: atomic additions"] if cuda else []
    return Origin(
        versions={"python": platform.python_version(), "code": code_digest()[:16], **_versions()},
        device=f"{where}, {os.cpu_count()} cores" if not cuda else where,
        threads=torch.get_num_threads(),
        command=f"python -m datatunerx.worker {files.in_folder(plan.output_uri, files.PLAN)}"[-256:],
        inexact=inexact,
    )


def write_rows(data: DataFiles, plan: RunPlan) -> None:
    """Note which rows the training split has, once per digest of the data: for whoever compares two."""
    path = local_path(files.rows_uri(plan.cache_uri, data.digest))
    if not data.digest or path.exists():
        return
    lines = []
    for row in islice(read_rows(recall(data, local_path(plan.fetched_uri)), Split.TRAIN), MAX_ROWS):
        if isinstance(row.value, Problem):
            continue
        text = json.dumps([row.value.messages, row.value.tools], sort_keys=True, ensure_ascii=False)
        shown = " | ".join(str(message.get("content") or "") for message in row.value.messages)
        mark = hashlib.sha256(text.encode()).hexdigest()[:16]
        lines.append(json.dumps([mark, " ".join(shown.split())[:SHOWN]], ensure_ascii=False))
    storage.write_atomic(str(path), "\n".join(lines).encode())


def code_digest() -> str:
    """SHA-256 over our own source files."""
    root = Path(datatunerx.__file__).parent
    whole = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        whole.update(f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
