"""The columns of a comparison, from what a URL or a selection names: models, jobs, experiments, services."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from datatunerx.client import Api
from datatunerx.console import charts, kinds, states
from datatunerx.console.words import Say, plain
from datatunerx.resources.outcome import ModelRef

Json = dict[str, Any]
MAX_COLUMNS = 16
BASE, TUNED = "LLM", "LLMCheckpoint"


class Column(NamedTuple):
    """One model, or a job that has none yet."""

    kind: str
    """LLM, LLMCheckpoint or FinetuneJob."""
    name: str
    job: str = ""
    """The job it comes of."""
    why: str = ""
    """Why it cannot be asked; empty if it can."""
    llm: str = ""
    """The base below it."""

    @property
    def ref(self) -> str:
        """KIND/NAME, as URLs have it."""
        return f"{kinds.SHORT[self.kind]}/{self.name}"

    @property
    def model(self) -> ModelRef | None:
        """What is asked; None if there is nobody."""
        if self.why or self.kind == kinds.JOB:
            return None
        return ModelRef.model_validate({"kind": self.kind, "name": self.name})


class World(NamedTuple):
    """What names may mean, by kind and name."""

    objects: dict[str, dict[str, Json]]
    say: Say = plain

    def of(self, kind: str) -> dict[str, Json]:
        return self.objects.get(kind, {})

    @classmethod
    async def look(cls, api: Api, namespace: str, say: Say) -> "World":
        wanted = (BASE, TUNED, kinds.JOB, kinds.EXPERIMENT, "InferenceService")
        return cls(
            {
                kind: {kinds.name_of(obj): obj for obj in await kinds.some(api, kind, namespace)}
                for kind in wanted
            },
            say,
        )


def split(texts: Iterable[str]) -> list[str]:
    """The names in the values of a query: each may have several, with commas between."""
    found = [name.strip() for text in texts for name in text.split(",")]
    return list(dict.fromkeys(filter(None, found)))


def resolve(refs: Sequence[str], world: World) -> tuple[list[Column], list[str]]:
    """A column for each model that is meant, base models first among those of an experiment; and the names
    that mean nothing here."""
    found: dict[tuple[str, str], Column] = {}
    unknown: list[str] = []
    for ref in refs:
        meant = _meant(ref, world)
        if not meant:
            unknown.append(ref)
        for column in meant:
            found.setdefault((column.kind, column.name), column)
    return list(found.values())[:MAX_COLUMNS], unknown


def _meant(ref: str, world: World) -> list[Column]:
    short, slash, bare = ref.rpartition("/")
    kind = kinds.BY_SHORT.get(short, "") if slash else _kind_of(bare, world)
    if bare not in world.of(kind if kind != kinds.FINETUNE else TUNED) and kind != kinds.FINETUNE:
        return []
    match kind:
        case "LLM":
            return [_base(bare, world)]
        case "LLMCheckpoint":
            return [_tuned(bare, world)]
        case kinds.JOB:
            return [_of_job(world.of(kind)[bare], world)]
        case kinds.FINETUNE:
            made = [name for name, obj in world.of(TUNED).items() if obj["spec"]["finetune"] == bare]
            return [_tuned(made[-1], world)] if made else []
        case kinds.EXPERIMENT:
            jobs = [job for job in world.of(kinds.JOB).values() if kinds.owner(job, kind) == bare]
            bases = dict.fromkeys(job["spec"]["finetune"]["llm"] for job in jobs)
            return [
                *(_base(llm, world) for llm in bases if llm in world.of(BASE)),
                *(_of_job(job, world) for job in jobs),
            ]
        case "InferenceService":
            models = world.of(kind)[bare]["spec"]["models"]
            refs = [f"{kinds.SHORT[each.get('kind', TUNED)]}/{each['name']}" for each in models]
            return [column for each in refs for column in _meant(each, world)]
    return []


def _kind_of(name: str, world: World) -> str:
    order = (BASE, TUNED, kinds.JOB, kinds.EXPERIMENT)
    return next((kind for kind in order if name in world.of(kind)), "")


def _base(name: str, world: World) -> Column:
    return Column(BASE, name, why=_not_ready(world.of(BASE)[name], world.say), llm=name)


def _tuned(name: str, world: World) -> Column:
    obj = world.of(TUNED)[name]
    finetune = str(obj["spec"]["finetune"])
    return Column(TUNED, name, finetune, _not_ready(obj, world.say), str(obj["spec"]["llm"]))


def _of_job(job: Json, world: World) -> Column:
    """The checkpoint of a job; the job itself where it has none."""
    name, status = kinds.name_of(job), kinds.status_of(job)
    made = status.get("checkpoint")
    if made in world.of(TUNED):
        return _tuned(str(made), world)._replace(job=name)
    why = states.why(job, world.say) or states.state(states.phase(job)).word
    return Column(kinds.JOB, name, name, why, str(job["spec"]["finetune"]["llm"]))


def hues(columns: Sequence[Column], world: World) -> dict[str, int]:
    """The colour of each column, as charts have it for its job; a base has none, 0. Where jobs of several
    experiments have the same, the next free one is taken."""
    jobs = list(world.of(kinds.JOB).values())
    found: dict[str, int] = {}
    for column in columns:
        job = world.of(kinds.JOB).get(column.job)
        if column.kind == BASE:
            found[column.name] = 0
            continue
        owner = kinds.owner(job, kinds.EXPERIMENT) if job else ""
        mates = [each for each in jobs if owner and kinds.owner(each, kinds.EXPERIMENT) == owner]
        own = charts.hues(mates).get(column.job, (1, 0))[0]
        order = [(own + n - 1) % charts.HUES + 1 for n in range(charts.HUES)]
        found[column.name] = next((hue for hue in order if hue not in found.values()), own)
    return found


def _not_ready(obj: Json, say: Say) -> str:
    """Why a model cannot be asked. One that nobody has looked at yet may be."""
    return states.why(obj, say) if states.phase(obj) == "NotReady" else ""


def choices(world: World) -> list[tuple[str, list[tuple[str, Json]]]]:
    """What can be compared: base models, then checkpoints, the youngest first; (ref, object) each."""

    def youngest(kind: str) -> list[tuple[str, Json]]:
        found = sorted(world.of(kind).values(), key=kinds.created, reverse=True)
        return [(f"{kinds.SHORT[kind]}/{kinds.name_of(obj)}", obj) for obj in found]

    return [("Base models", youngest(BASE)), ("Checkpoints", youngest(TUNED))]
