"""What a draft becomes: parameter groups and one experiment, by the names that `dtx tune` gives. Pure."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from datatunerx.console import forms
from datatunerx.console.wizard.draft import Draft
from datatunerx.resources.enums import Method
from datatunerx.runs.exporting import CHECKPOINT
from datatunerx.runs.grid import MAX_COMBINATIONS, Setting, grid, new_object, short_digest, slug

Json = dict[str, Any]


class Axes(NamedTuple):
    """How many of each there are; every combination is a job."""

    llms: int
    datasets: int
    groups: int

    @property
    def jobs(self) -> int:
        return math.prod(self)


def axes(draft: Draft) -> Axes:
    """Of what was chosen and typed; what is not chosen yet counts as one."""
    groups = math.prod(len(setting.values) for setting in _settings(draft))
    return Axes(max(1, len(draft.llms)), max(1, len(draft.datasets)), groups)


def too_many(draft: Draft) -> bool:
    return axes(draft).jobs > MAX_COMBINATIONS


def objects(draft: Draft) -> list[Json]:
    """The groups and the experiment of a draft without faults."""
    groups = grid(_settings(draft))
    jobs = [name for name, spec in groups if "extends" in spec] or [groups[0][0]]
    matrix = {"llms": draft.llms, "datasets": draft.datasets, "hyperparameters": jobs}
    spec = {"matrix": matrix} | forms.spec_of(draft.values)
    made = [new_object("Hyperparameter", name, group) for name, group in groups]
    return [*made, new_object("FinetuneExperiment", draft.name, spec)]


def _settings(draft: Draft) -> Sequence[Setting]:
    chosen = forms.several(draft.values, draft.method)
    if draft.method is Method.LORA:  # the default
        return chosen
    return [Setting("method", (draft.method.value,), (draft.method.value,)), *chosen]


def model(source: str) -> Json:
    """An LLM for a source, by the name it always gets; a checkpoint's merged copy has the checkpoint's."""
    if source.startswith(CHECKPOINT):
        return new_object("LLM", source.removeprefix(CHECKPOINT), {"source": source})
    return new_object("LLM", f"{slug(_tail(source))}-{short_digest(source)}", {"source": source})


def dataset(source: str, llm: str) -> Json:
    """A Dataset of one file, whose tokens the model's tokenizer counts."""
    spec: Json = {"subsets": [{"name": "default", "splits": {"train": [source]}}]}
    if llm:
        spec["llm"] = llm
    return new_object("Dataset", f"{slug(_tail(source))}-{short_digest([source, llm])}", spec)


def _tail(source: str) -> str:
    """The last part of a path or URI, without what stands behind its dot."""
    last = source.rstrip("/").rpartition("/")[2].partition("@")[0]
    return last.partition(".")[0] or last
