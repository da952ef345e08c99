"""What will really happen: jobs, steps, tokens, memory, disk and time of objects that are not made yet. Pure.

The figures are those that placement and the controllers go by (`runs.compile`); nothing is reckoned here
that they reckon otherwise. Time is what trainings on the same model took here before.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from datatunerx.console import figures, kinds, states, words
from datatunerx.console.host import Host
from datatunerx.console.wizard.making import Axes
from datatunerx.console.words import Say
from datatunerx.resources.enums import Method, Precision, Split
from datatunerx.resources.experiment import FinetuneExperiment
from datatunerx.resources.finetune import Finetune
from datatunerx.resources.material import Dataset, Hyperparameter
from datatunerx.resources.training import TrainingParameters
from datatunerx.runs.compile import (
    Training,
    Unresolved,
    combinations,
    disk_bytes,
    groups,
    memory_bytes,
    num_steps,
    parameters,
    unsupported,
)
from datatunerx.runs.plan import ModelFiles

Json = dict[str, Any]
Said = tuple[str, dict[str, Any]]
"""A sentence of the catalogue, and its figures."""


@dataclass(frozen=True)
class World:
    """What is in the namespace, by name."""

    llms: Mapping[str, Json]
    datasets: Mapping[str, Json]
    groups: Mapping[str, Json]
    tunes: Sequence[Json] = ()


@dataclass
class Job:
    """One training to come. None is: not known before the data was read."""

    name: str
    llm: str
    dataset: str
    group: str
    """Of parameters."""
    steps: int | None
    batch: int
    """Rows per optimizer step."""
    tokens: int | None


@dataclass
class Outlook:
    jobs: list[Job] = field(default_factory=list)
    axes: Axes | None = None
    """Where the jobs are all combinations of these."""
    runs: int = 0
    """Worker processes: jobs that share a base share one."""
    memory: int | None = None
    """Bytes of a device, of the largest run."""
    disk: int | None = None
    """Bytes that are written in all."""
    seconds: float | None = None
    """Of training; scoring comes on top."""
    rate: float | None = None
    """Tokens a second, as measured."""
    measured_on: str = ""
    blocked: list[Said] = field(default_factory=list)
    """Why it cannot be started."""
    warnings: list[Said] = field(default_factory=list)

    @property
    def tokens(self) -> int | None:
        known = [job.tokens for job in self.jobs if job.tokens is not None]
        return sum(known) if known and len(known) == len(self.jobs) else None

    def span(self, name: str) -> str:
        """A figure of all jobs: one number, or from the lowest to the highest."""
        found = sorted({value for job in self.jobs if (value := getattr(job, name)) is not None})
        if not found:
            return figures.MISSING
        return figures.number(found[0]) + (f" – {figures.number(found[-1])}" if len(found) > 1 else "")


def outlook(bodies: Sequence[Json], world: World, host: Host | None, say: Say = words.plain) -> Outlook:
    """Of groups and one experiment, as they would be sent; `say` is for what objects say of themselves."""
    found = Outlook()
    try:
        experiment = FinetuneExperiment.parse(
            next(each for each in bodies if each["kind"] == kinds.EXPERIMENT)
        )
        made = {kinds.name_of(each): each for each in bodies if each["kind"] == "Hyperparameter"}
        known = {name: Hyperparameter.parse(each) for name, each in {**world.groups, **made}.items()}
        trainings = [_training(found, c, experiment, known, world) for c in combinations(experiment)]
    except (StopIteration, ValidationError, Unresolved) as error:
        found.blocked.append(("{why}", {"why": str(error) or "there is no FinetuneExperiment"}))
        return found
    if (matrix := experiment.spec.matrix) and not experiment.spec.jobs:
        named = (matrix.llms, matrix.datasets, matrix.hyperparameters)
        found.axes = Axes(*(len(set(names)) for names in named))
    _materials(found, experiment, world, say)
    _room(found, [training for training in trainings if training.num_parameters], world, host)
    _time(found, world.tunes)
    return found


def _training(
    found: Outlook, combination: Any, experiment: FinetuneExperiment, known: Mapping[str, Hyperparameter],
    world: World,
) -> Training:  # fmt: skip
    """One combination, resolved as far as it can be; its figures are added to what was found."""
    wanted = parameters(combination.hyperparameter, known)
    if why := unsupported(wanted):
        _once(found.blocked, ("{why}", {"why": why}))
    facts = kinds.status_of(world.llms.get(combination.llm) or {})
    files = ModelFiles(
        name=combination.llm, uri=facts.get("localUri") or "file:///", digest=facts.get("digest") or "",
        template=None,
    )  # fmt: skip
    spec = {
        "llm": combination.llm, "dataset": combination.dataset,
        "hyperparameter": combination.hyperparameter.dump(), "resources": experiment.spec.resources.dump(),
    }  # fmt: skip
    finetune = Finetune.parse({"kind": "Finetune", "metadata": {"name": combination.name}, "spec": spec})
    training = Training(finetune, files, int(facts.get("parameters") or 0), (), wanted)
    data = world.datasets.get(combination.dataset)
    steps = num_steps(training, Dataset.parse(data)) if data else wanted.max_steps
    if steps and (late := wanted.no_checkpoint_before_end(steps)):
        _once(found.warnings, ("{why}", {"why": late}))
    batch = wanted.batch_size * wanted.gradient_accumulation
    each = tokens_a_row(data, wanted.cutoff_length)
    total = int(steps * batch * each) if steps and each else None
    c = combination
    job = Job(c.name, c.llm, c.dataset, c.hyperparameter.ref, steps, batch, total)
    found.jobs.append(job)
    return training


def tokens_a_row(dataset: Json | None, cutoff: int) -> float | None:
    """The mean of a row, cut off where it would be; None where nobody has counted."""
    report = kinds.status_of(dataset or {}).get("report") or {}
    counted = report.get("tokens") or {}
    bins, low, total, rows = report.get("histogram") or [], 0, 0.0, 0
    if counted.get("rows") and (counted.get("max") or 0) <= cutoff:
        return float(counted["total"]) / float(counted["rows"])
    for each in bins:
        total += each["rows"] * min(cutoff, (low + each["upTo"]) / 2)
        rows, low = rows + each["rows"], each["upTo"]
    return total / rows if rows else None


def _materials(found: Outlook, experiment: FinetuneExperiment, world: World, say: Say) -> None:
    """What model and data say of themselves."""
    used = combinations(experiment)
    for name in dict.fromkeys(c.llm for c in used):
        llm = world.llms.get(name)
        if not _ready(found, "Model", name, llm, say):
            continue
        if not kinds.status_of(llm or {}).get("template"):
            found.blocked.append(("Model {name} has no chat template; give it one", {"name": name}))
    for name in dict.fromkeys(c.dataset for c in used):
        data = world.datasets.get(name)
        if not _ready(found, "Dataset", name, data, say):
            continue
        report = kinds.status_of(data or {}).get("report") or {}
        if report and not (report.get("splits") or {}).get(Split.TRAIN):
            found.blocked.append(("{name} has no rows to train on; choose another dataset", {"name": name}))
            continue
        if report.get("dropped"):
            figure = {"name": name, "n": figures.number(report["dropped"])}
            found.warnings.append(("Rows of {name} that are left out: {n}; its page says why", figure))
        split = experiment.spec.scoring.split
        if not experiment.spec.scoring.dataset and not (report.get("splits") or {}).get(split):
            told = {"name": name, "split": split.value}
            found.warnings.append(("{name} has no rows in its {split} split, so nothing is scored", told))
        if not (report.get("splits") or {}).get(Split.VALIDATE):
            found.warnings.append(("{name} has no validation rows, so there is no eval loss", {"name": name}))


def _ready(found: Outlook, what: str, name: str, obj: Json | None, say: Say) -> bool:
    if obj is None:
        found.blocked.append((f"{what} {{name}} is not there", {"name": name}))
        return False
    state = states.phase(obj)
    if state == "Ready":
        return True
    why = {"name": name, "why": states.why(obj, say)}
    if state == "NotReady":
        found.blocked.append((f"{what} {{name}} cannot be used: {{why}}", why))
    else:
        found.warnings.append((f"{what} {{name}} is still being looked at; training waits for it", why))
    return False


def _room(found: Outlook, trainings: Sequence[Training], world: World, host: Host | None) -> None:
    """Memory and disk, and whether they are there."""
    if not trainings or len(trainings) < len(found.jobs):
        return
    auto = host.precision if host else Precision.FLOAT32
    packs = groups(
        trainings, auto=auto, memory_bytes=host.memory_bytes if host else 1 << 62,
        devices=host.devices if host else 1,
    )  # fmt: skip
    found.runs = len(packs)
    found.memory = max(memory_bytes(pack, auto) for pack in packs)
    found.disk = sum(disk_bytes(t, _stored(world.datasets.get(t.finetune.spec.dataset))) for t in trainings)
    if host is None:
        return
    if found.memory > host.memory_bytes:
        told = {"need": figures.size(found.memory), "has": figures.size(host.memory_bytes)}
        found.warnings.append(("It may not fit: about {need} are needed and a device has {has}", told))
    if found.disk > host.free_bytes:
        told = {"need": figures.size(found.disk), "has": figures.size(host.free_bytes)}
        found.blocked.append(("The disk is too small: about {need} are needed and {has} are free", told))
    asked = max(training.finetune.spec.resources.accelerators for training in trainings)
    if asked > host.gpus:
        found.blocked.append(
            ("It asks for {n} GPUs and this machine has {has}", {"n": asked, "has": host.gpus})
        )


def _stored(dataset: Json | None) -> int:
    report = kinds.status_of(dataset or {}).get("report") or {}
    return int((report.get("tokens") or {}).get("total") or 0)


def _time(found: Outlook, tunes: Sequence[Json]) -> None:
    """Model by model, each as fast as the last run on it was; not known while one was never trained."""
    tokens: Counter[str] = Counter()
    for job in found.jobs:
        tokens[job.llm] += job.tokens or 0
    rates = {llm: rate for llm in tokens if (rate := _last_rate(llm, tunes))}
    if not found.tokens or len(rates) < len(tokens):
        return
    found.seconds = sum(n / rates[llm][0] for llm, n in tokens.items())
    found.rate = found.tokens / found.seconds
    found.measured_on = ", ".join(run for _, run in rates.values())


def _last_rate(llm: str, tunes: Sequence[Json]) -> tuple[float, str] | None:
    """Of the last run on a model: its tokens over the time from its first to its last step, and its name."""
    runs: dict[str, list[Json]] = {}
    for tune in tunes:
        status = kinds.status_of(tune)
        if tune["spec"]["llm"] == llm and status.get("run") and status.get("finishedAt"):
            runs.setdefault(status["run"], []).append(status)
    measured = [
        (max(each["finishedAt"] for each in lanes), name, lanes)
        for name, lanes in runs.items()
        if all(each.get("startedAt") and (each.get("progress") or {}).get("tokens") for each in lanes)
    ]
    if not measured:
        return None
    end, name, lanes = max(measured, key=lambda one: one[0])
    first, last = figures.when(min(each["startedAt"] for each in lanes)), figures.when(end)
    seconds = (last - first).total_seconds() if first and last else 0.0
    return (sum(each["progress"]["tokens"] for each in lanes) / seconds, name) if seconds > 0 else None


def _once(said: list[Said], one: Said) -> None:
    if one not in said:
        said.append(one)


def model_memory(llm: Json, method: Method, host: Host | None) -> int:
    """About what one training of a model takes of a device, with the parameters' defaults."""
    facts = kinds.status_of(llm)
    name = kinds.name_of(llm)
    spec = {"llm": name, "dataset": "x", "hyperparameter": {"ref": "x"}}
    finetune = Finetune.parse({"kind": "Finetune", "metadata": {"name": name}, "spec": spec})
    files = ModelFiles(name=name, uri="file:///", digest="", template=None)
    wanted = TrainingParameters(method=method)
    training = Training(finetune, files, int(facts.get("parameters") or 0), (), wanted)
    return memory_bytes([training], host.precision if host else Precision.FLOAT32)
