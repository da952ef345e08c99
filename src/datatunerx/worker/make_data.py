"""Rows that a data plugin makes of a dataset's files, and what a plugin is."""

import os
import time
from collections.abc import Mapping
from functools import partial
from glob import escape
from typing import Any

from datatunerx import data, storage
from datatunerx.data.sources import local_path
from datatunerx.data.splits import main_split
from datatunerx.plugins import PluginError, process
from datatunerx.resources.enums import RunPhase, Split
from datatunerx.resources.material import Dropped, MadeData
from datatunerx.runs import DataFiles, InspectPluginPlan, MakeDataPlan, RunResult
from datatunerx.runs.compile import run_name
from datatunerx.worker.credentials import Secrets
from datatunerx.worker.failure import explain
from datatunerx.worker.inspect_data import gathered
from datatunerx.worker.journal import Journal

FOLDER = "made"
TELL_SECONDS = 2.0


def inspect_plugin(plan: InspectPluginPlan, journal: Journal) -> RunResult:
    """What the plugin is; Failed, without a traceback, if it cannot be loaded."""
    journal.activity(f"loading plugin {plan.plugin.name}")
    try:
        facts = process.describe(plan.plugin)
    except PluginError as error:
        return _failed(journal, error.reason, error.message)
    return RunResult(plan_id=journal.plan.id, phase=RunPhase.SUCCEEDED, plugin=facts)


def make_data(plan: MakeDataPlan, journal: Journal, secrets: Secrets) -> RunResult:
    """The plugin's rows, split by split, in files of the run. Failed in the plugin's own words."""
    journal.activity(f"reading the files of {plan.data.name}")
    try:
        files = gathered(folders_spelt_out(plan.data), journal, secrets)
        made = _made(plan, files, journal)
    except PluginError as error:
        return _failed(journal, error.reason, error.message)
    except (data.DataError, storage.PrivatePlace) as error:
        return _failed(journal, *explain(error))
    if not made.rows:
        why = "; ".join(f"{entry.count} {entry.reason}" for entry in made.left_out)
        message = f"plugin {plan.plugin.name} made no row" + (f"; left out: {why}" if why else "")
        return _failed(journal, "NothingMade", message)
    return RunResult(plan_id=journal.plan.id, phase=RunPhase.SUCCEEDED, made=made)


def folders_spelt_out(files: DataFiles) -> DataFiles:
    """A local folder as a pattern that takes every file below it."""
    splits = {split: [_spelt_out(uri) for uri in uris] for split, uris in files.splits.items()}
    return files.model_copy(update={"splits": splits})


def _spelt_out(uri: str) -> str:
    path = local_path(uri)
    return f"{escape(str(path))}/**/*" if path is not None and path.is_dir() else uri


def _made(plan: MakeDataPlan, files: DataFiles, journal: Journal) -> MadeData:
    folder = storage.local_path(journal.uri(FOLDER))
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[Split, list[str]] = {}
    left_out: dict[str, Dropped] = {}
    rows = 0
    for split, uris in files.splits.items():
        if not uris:
            continue
        here = [path for uri in uris if (path := local_path(files.copies.get(uri, uri)))]
        output = folder / f"{split}.jsonl"
        temporary = output.with_suffix(".unfinished")  # an earlier worker's leftovers are written over
        journal.activity(f"{plan.plugin.name} makes the {split} split of {len(here):,} files")
        done = journal.with_space(
            partial(process.make, plan, split, here, temporary, _Telling(plan.plugin.name, journal))
        )
        if not done["rows"] and split is not main_split(files):
            temporary.unlink()
            continue
        os.replace(temporary, output)
        made[split] = [output.as_uri()]
        rows += done["rows"]
        _add(left_out, done["leftOut"])
    digest = data.content_digest(DataFiles(name=files.name, splits=made))
    return MadeData(
        run=run_name(journal.plan), digest=digest, rows=rows, splits=made, left_out=list(left_out.values())
    )


def _add(left_out: dict[str, Dropped], found: list[Mapping[str, Any]]) -> None:
    for one in found:
        entry = left_out.setdefault(one["reason"], Dropped(reason=one["reason"], count=0))
        entry.count += one["count"]
        entry.where = [*entry.where, *one["where"]][:20]


class _Telling:
    """The plugin's progress as activities with a rate and, where the end is known, the time to it."""

    def __init__(self, name: str, journal: Journal) -> None:
        self._name, self._journal = name, journal
        self._begun = self._last = time.monotonic()

    def __call__(self, said: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if now - self._last < TELL_SECONDS:
            return
        self._last = now
        done, total, unit = said["done"], said["total"], said["unit"]
        speed = done / (now - self._begun)
        text = f"{self._name}: {done:,}" + (f" of {total:,}" if total else "")
        text += f" {unit}, {said['rows']:,} rows, {speed:,.1f} {unit} a second"
        if total and speed:
            text += f", {min(100, 100 * done // total)} %, {max(0, total - done) / speed:,.0f} s to go"
        self._journal.activity(text)


def _failed(journal: Journal, reason: str, message: str) -> RunResult:
    return RunResult(plan_id=journal.plan.id, phase=RunPhase.FAILED, reason=reason, message=message)
