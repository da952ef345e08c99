"""`dtx dataset upload`: files of this machine to the server, a Dataset made of them, and what it holds."""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datatunerx.cli.change import apply_one
from datatunerx.cli.check import problems
from datatunerx.cli.check_data import mapping
from datatunerx.cli.documents import Json
from datatunerx.cli.errors import BadInput, CommandError, Exit
from datatunerx.cli.text import visible
from datatunerx.client import Api
from datatunerx.client.uploads import upload as send
from datatunerx.resources.material import Dataset
from datatunerx.resources.wire import API_VERSION
from datatunerx.runs.grid import slug

INSPECTION_SECONDS = 3600.0
LOOK_SECONDS = 0.3
STEP_SECONDS = 2.0
"""Between two lines of progress where there is no terminal."""


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    train: Sequence[Path]
    validate: Sequence[Path]
    test: Sequence[Path]
    name: str | None
    format: str
    llm: str | None
    unpack: bool
    features: Sequence[str] = ()
    """As typed: completion=reply."""


async def upload(api: Api, asked: Request, namespace: str) -> Exit:
    """Upload, register, wait for the inspection, show it. Exit.FAILED if the data cannot be used."""
    files = [*asked.train, *asked.validate, *asked.test]
    if not files:
        raise BadInput("name files to train on, or rows that are there to score by: --test FILE")
    for path in files:
        if not path.is_file():
            raise BadInput(
                f"{path}: is no file; name files, or use `dtx apply` for what the server can reach"
            )
        if not path.stat().st_size:
            raise BadInput(f"{path}: is empty; write rows into it, or leave it out")
    if faults := problems(_body(asked, {path: path.name for path in files})):
        raise BadInput("\n".join(faults))  # before gigabytes were sent
    uris = {}
    for path in files:
        uris[path] = await send(api.transport, path, namespace, on_progress=_shown(path))
    body = _body(asked, uris)
    print(await apply_one(api, body, namespace))
    return await _inspected(api, body["metadata"]["name"], namespace)


def _body(asked: Request, uris: Mapping[Path, str]) -> Json:
    """The Dataset of the files that lie at these URIs."""
    named = {"train": asked.train, "validate": asked.validate, "test": asked.test}
    splits = {split: [uris[path] for path in paths] for split, paths in named.items() if paths}
    spec: Json = {"subsets": [{"name": "default", "splits": splits}], "format": asked.format}
    if asked.llm:
        spec["llm"] = asked.llm
    if asked.unpack:
        spec["unpack"] = True
    if asked.features:
        spec["features"] = [{"name": n, "mapTo": column} for n, column in mapping(asked.features).items()]
    name = asked.name or slug(next(iter(uris)).name.split(".")[0])
    return {"apiVersion": API_VERSION, "kind": "Dataset", "metadata": {"name": name}, "spec": spec}


async def _inspected(api: Api, name: str, namespace: str) -> Exit:
    """Wait until the Dataset is found good or bad, and say which and why."""
    end, told, said = time.monotonic() + INSPECTION_SECONDS, 0.0, ""
    while (now := time.monotonic()) < end:
        found = await api.get(Dataset, name, namespace)
        ready = found.status.condition("Ready")
        is_new = found.status.observed_generation == found.metadata.generation
        if ready and is_new and ready.status != "Unknown":
            print(f"{ready.reason}: {visible(ready.message)}")
            for line in _told(found):
                print(line)
            return Exit.OK if ready.status == "True" else Exit.FAILED
        if ready and is_new and ready.message != said and now - told >= STEP_SECONDS:
            told, said = now, ready.message
            print(f"{ready.reason}: {visible(said)}", file=sys.stderr, flush=True)
        await asyncio.sleep(LOOK_SECONDS)
    raise CommandError(f"dataset/{name} is still being inspected; look with `dtx describe ds {name}`")


def _told(dataset: Dataset) -> list[str]:
    report = dataset.status.report
    if report is None:
        return []
    lines = [
        f"format   {report.format or 'not recognised'}",
        f"rows     {report.read:,} read, {report.kept:,} kept, {report.dropped:,} dropped",
        f"splits   {', '.join(f'{name} {count:,}' for name, count in report.splits.items())}",
    ]
    if report.tokens:
        tokens = report.tokens
        lines.append(f"tokens   p50 {tokens.p50:,}, p95 {tokens.p95:,}, longest {tokens.max:,}")
    return [
        *lines,
        *(f"dropped  {one.count:,} {one.reason}: {', '.join(one.where)}" for one in report.reasons),
    ]


def _shown(path: Path) -> Callable[[int, int], None]:
    """Progress on standard error: one line that is rewritten on a terminal, else a line now and then."""
    told = 0.0
    begun: tuple[float, int] | None = None

    def show(here: int, whole: int) -> None:
        nonlocal told, begun
        now = time.monotonic()
        begun = begun or (now, here)  # the server may have some of it from a call that broke off
        live = sys.stderr.isatty()
        if here < whole and now - told < (0.1 if live else STEP_SECONDS):
            return
        told = now
        speed = (here - begun[1]) / max(now - begun[0], 1e-9) / 1e6
        text = f"{path.name}: {here / 1e6:,.1f} of {whole / 1e6:,.1f} MB, {speed:,.1f} MB a second"
        end = "\n" if here == whole or not live else ""
        print(f"\r{text}" if live else text, end=end, file=sys.stderr, flush=True)

    return show
