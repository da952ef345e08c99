"""From a model, a file and a few settings to the objects of an experiment; reads the data only to name it."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from datatunerx.cli.check import did_you_mean, model_uri, problems
from datatunerx.cli.check_data import mapping
from datatunerx.cli.documents import Json, scalar
from datatunerx.cli.errors import BadInput
from datatunerx.resources.enums import Metric
from datatunerx.resources.training import TrainingParameters, resolve_parameters
from datatunerx.runs.files import path_of
from datatunerx.runs.grid import (
    MAX_COMBINATIONS,
    Group,
    Setting,
    grid,
    new_object,
    put,
    setting_keys,
    short_digest,
    slug,
)
from datatunerx.storage import sha256_of

DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".xlsx", ".txt")
SPLIT_STEMS = {
    "train": ("train", "training"),
    "validate": ("validate", "validation", "valid", "val", "dev", "eval"),
    "test": ("test",),
}
LIST_KEYS = ("lora.targets",)


@dataclass(frozen=True)
class Request:
    """What `dtx tune` was asked for."""

    llm: str
    data: str
    settings: Sequence[str] = ()
    """As typed: lora.rank=8,16."""
    metrics: Sequence[str] = (Metric.EXACT_MATCH.value,)
    name: str | None = None
    max_new_tokens: int | None = None
    samples: Sequence[str] = ()
    limit: int | None = None
    """Rows of the test split that are scored."""
    early_stop: str | None = None
    """As typed: 3, or 3:measure=score,limit=16."""
    sample_system: str | None = None
    features: Sequence[str] = ()
    """Columns under other names, as typed: completion=reply."""


def build(request: Request, folder: Path) -> list[Json]:
    """LLM, Dataset, Hyperparameters and the FinetuneExperiment. Raises BadInput naming every fault.

    One group holds what all jobs share; one more per combination extends it with what is its own.
    """
    settings = parse_settings(request.settings)
    source = llm_source(request.llm, folder)
    splits = data_splits(request.data, folder)
    llm = f"{slug(_tail(source))}-{short_digest(source)}"
    data: Json = {"subsets": [{"name": "default", "splits": splits}]}
    identity: list[Any] = [splits, _content(splits)]
    if request.features:
        data["features"] = [{"name": n, "mapTo": column} for n, column in mapping(request.features).items()]
        identity.append(data["features"])
    dataset = f"{slug(_tail(request.data))}-{short_digest(identity)}"
    asked: list[Any] = [request.metrics, request.max_new_tokens, request.samples, request.limit]
    if request.early_stop or request.sample_system:
        asked.append([request.early_stop, request.sample_system])
    told = {setting.key: setting.values for setting in settings}
    experiment = (
        request.name or f"tune-{slug(_tail(request.data))}-{short_digest([llm, dataset, told, asked])}"
    )
    groups = grid(settings)
    objects = [
        new_object("LLM", llm, {"source": source}),
        new_object("Dataset", dataset, data),
        *(new_object("Hyperparameter", name, spec) for name, spec in groups),
        new_object("FinetuneExperiment", experiment, _experiment(request, llm, dataset, groups)),
    ]
    found = [f"{o['kind']}/{o['metadata']['name']}: {text}" for o in objects for text in problems(o)]
    if request.early_stop and not found:
        found = _never_measured(groups)
    if found:
        raise BadInput("\n".join(found))
    return objects


def llm_source(llm: str, folder: Path) -> str:
    """The URI of a model named by URI, by path, or as org/name on the Hugging Face hub."""
    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", llm) and not llm.startswith(".")
    if on_hub and not (folder / llm).exists():
        return f"hf://{llm}"
    faults: list[str] = []
    source = model_uri(llm, folder, "--llm", faults)
    if faults:
        raise BadInput("\n".join(faults))
    return source


def data_splits(data: str, folder: Path) -> dict[str, list[str]]:
    """The files of each split: one file is split by the platform; a folder has train, test, ... files."""
    if "://" in data:
        return {"train": [data]}
    path = (folder / Path(data).expanduser()).resolve()
    if path.is_file():
        return {"train": [path.as_uri()]}
    if not path.is_dir():
        raise BadInput(f"--data {data}: no such file or folder: {path}")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in DATA_SUFFIXES)
    splits: dict[str, list[str]] = {}
    for split, stems in SPLIT_STEMS.items():
        found = [f.as_uri() for f in files if re.split(r"[-_.]", f.stem.lower())[0] in stems]
        if found:
            splits[split] = found
    if "train" not in splits:
        raise BadInput(f"--data {data}: no train file in this folder; name one train{DATA_SUFFIXES[0]}")
    return splits


def parse_settings(texts: Sequence[str]) -> list[Setting]:
    """`key=value,value` each. BadInput for an unknown key (names the nearest), a bad value, too many jobs."""
    known = setting_keys(TrainingParameters)
    settings: dict[str, Setting] = {}
    faults: list[str] = []
    for text in texts:
        key, equals, rest = (part.strip() for part in text.partition("="))
        values = tuple(value.strip() for value in rest.split(","))
        if not equals or not all(values):
            faults.append(f"--set {text}: write it as key=value or key=value,value")
        elif key not in known:
            faults.append(f"--set {key}: no such parameter{did_you_mean(key, known)}")
        elif key in settings:
            faults.append(f"--set {key}: given twice; write all values in one: {key}=A,B")
        else:
            read = tuple(v.split("+") if key in LIST_KEYS else scalar(v) for v in values)
            if any(read[i] == read[j] for i in range(len(read)) for j in range(i)):
                faults.append(f"--set {text}: the same value stands twice")
            settings[key] = Setting(key, read, values)
            faults += [fault for value in read for fault in _value_faults(key, value)]
    count = math.prod(len(setting.values) for setting in settings.values())
    if count > MAX_COMBINATIONS:
        faults.append(f"--set: {count} combinations; one experiment takes at most {MAX_COMBINATIONS} jobs")
    if faults:
        raise BadInput("\n".join(faults))
    return list(settings.values())


def parse_metrics(texts: Sequence[str]) -> tuple[list[str], dict[str, Json]]:
    """`f1` or `f1:field=category` each, as names and options by name. BadInput for what is neither."""
    options: dict[str, Json] = {}
    names = []
    for text in texts:
        name, colon, rest = text.partition(":")
        names.append(name)
        for part in rest.split(",") if colon else ():
            option, _, value = part.partition("=")
            if not option or not value:
                raise BadInput(f"--metric {text}: write an option as {name}:option=value")
            options.setdefault(name, {})[option] = value
    return names, options


def parse_early_stop(text: str) -> Json:
    """`3` or `3:measure=score,minDelta=0.01,limit=16`. BadInput for what is neither."""
    patience, colon, rest = text.partition(":")
    found: Json = {"patience": scalar(patience)}
    for part in rest.split(",") if colon else ():
        name, _, value = part.partition("=")
        if not name or not value:
            raise BadInput(f"--early-stop {text}: write it as 3, or as 3:measure=score,minDelta=0.01")
        found[name] = scalar(value)
    return found


def _never_measured(groups: Sequence[Group]) -> list[str]:
    """Jobs of which it is plain, from their number of steps, that early stopping could never act."""
    shared = groups[0][1]
    jobs = [spec for _, spec in groups if "extends" in spec] or [shared]
    told = []
    for spec in jobs:
        own = {key: value for key, value in spec.items() if key != "extends"}
        parameters = resolve_parameters([shared, own])
        told.append(parameters.no_evaluation_before_end(parameters.max_steps or 0))
    return list(dict.fromkeys(text for text in told if text))


def _experiment(request: Request, llm: str, dataset: str, groups: Sequence[Group]) -> Json:
    jobs = [name for name, spec in groups if "extends" in spec] or [groups[0][0]]
    metrics, options = parse_metrics(request.metrics)
    scoring: Json = {"metrics": metrics} | ({"metricOptions": options} if options else {})
    if request.max_new_tokens is not None:
        scoring["generation"] = {"maxNewTokens": request.max_new_tokens}
    if request.limit is not None:
        scoring["limit"] = request.limit
    spec: Json = {
        "matrix": {"llms": [llm], "datasets": [dataset], "hyperparameters": jobs},
        "scoring": scoring,
    }
    if request.early_stop:
        spec["earlyStopping"] = parse_early_stop(request.early_stop)
    if request.sample_system:
        spec["sampleSystemPrompt"] = request.sample_system
    return spec | ({"samples": list(request.samples)} if request.samples else {})


def _value_faults(key: str, value: Any) -> list[str]:
    spec: Json = {}
    put(spec, key, value)
    return [
        f"--set {text.removeprefix('spec.')}" for text in problems(new_object("Hyperparameter", "x", spec))
    ]


def _tail(uri: str) -> str:
    """The last part of a URI or path, without its suffix: what people call the thing."""
    path = unquote(urlsplit(uri).path if "://" in uri else uri).rstrip("/")
    tail = path.rpartition("/")[2] or uri
    for suffix in (*DATA_SUFFIXES, ".gguf"):
        tail = tail.removesuffix(suffix)
    return tail.partition("@")[0]


def _content(splits: Mapping[str, Sequence[str]]) -> list[str]:
    """Digests of the local files: data that changed under the same name is another Dataset."""
    digests: list[str] = []
    for uris in splits.values():
        for uri in uris:
            if uri.startswith("file://"):
                digests.append(sha256_of(path_of(uri)))
    return digests
