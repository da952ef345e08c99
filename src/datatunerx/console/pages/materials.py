"""What experiments are made of, and what comes of them: models, parameter groups, plugins."""

from typing import Any

from starlette.responses import Response

from datatunerx.console import equal, exported, figures, kinds, lineage, parameters, states
from datatunerx.console.pages.jobs import scores, there
from datatunerx.console.tables import Cell, Empty, Line, ago, columns, name_cell, object_url, show, state_cell
from datatunerx.console.visit import Page, Refused, Visit

Json = dict[str, Any]
MODELS = columns("Name", "Kind", "State", "Base", "Size", "Score", "Age", numbers=("Size", "Score", "Age"))
GROUPS = columns(
    "Name",
    "State",
    "Method",
    "Learning rate",
    "Extends",
    "Used by",
    "Age",
    numbers=("Learning rate", "Used by", "Age"),
)
LAST_RUNS = 20
PLUGINS = columns("Name", "Kind", "State", "Version", "Package", "Used by", "Age", numbers=("Used by", "Age"))


def _new(visit: Visit, kind: str, title: str, text: str, button: str) -> Empty:
    url = visit.url("edit", kind=kind) if visit.may("create", kinds.PLURALS[kind].plural) else ""
    return Empty(title, text, url, button)


def _used(obj: Json) -> Cell:
    return Cell("number", len(kinds.status_of(obj).get("usedBy") or ()))


async def models(visit: Visit) -> Response:
    lines = []
    for obj in await kinds.all_of(visit.api, "LLM", visit.namespace):
        status = kinds.status_of(obj)
        cells = (
            name_cell(visit, "LLM", kinds.name_of(obj), obj["spec"]["source"]),
            Cell("words", "Base model"),
            state_cell(visit, obj),
            Cell("text", status.get("architecture")),
            Cell("bytes", status.get("bytes")),
            Cell("score", None),
            ago(kinds.created(obj)),
        )
        lines.append(Line(cells, states.phase(obj), f"llm/{kinds.name_of(obj)}"))
    for obj in await kinds.some(visit.api, "LLMCheckpoint", visit.namespace):
        status, spec = kinds.status_of(obj), obj["spec"]
        where = visit.say("step {n} of {job}", n=spec["step"], job=spec["finetune"])
        cells = (
            name_cell(visit, "LLMCheckpoint", kinds.name_of(obj), where),
            Cell("words", "Checkpoint"),
            state_cell(visit, obj),
            Cell("text", spec["llm"], url=visit.url("models", "llm", spec["llm"])),
            Cell("bytes", spec.get("bytes")),
            Cell("score", status.get("score"), str(status.get("metric") or "")),
            ago(kinds.created(obj)),
        )
        lines.append(Line(cells, states.phase(obj), f"ckpt/{kinds.name_of(obj)}"))
    empty = _new(
        visit,
        "LLM",
        "No models yet",
        "A model is a base model from a hub, a folder or a package. "
        "What comes of fine-tuning stands here too, as checkpoints.",
        "New model",
    )
    return await show(visit, "Models", "models", MODELS, lines, empty)


async def hyperparameters(visit: Visit) -> Response:
    found = await kinds.all_of(visit.api, "Hyperparameter", visit.namespace)
    groups = {kinds.name_of(obj): obj for obj in found}
    lines = []
    for name, obj in groups.items():
        whole = {s.name: s.value for s in parameters.settings({"hyperparameter": {"ref": name}}, groups)}
        extends = obj["spec"].get("extends") or ""
        rank = f"rank {whole.get('lora.rank')}" if whole.get("method") != "full" else ""
        cells = (
            name_cell(visit, "Hyperparameter", name),
            state_cell(visit, obj),
            Cell("text", whole.get("method"), rank),
            Cell("number", whole.get("learningRate")),
            Cell("text", extends, url=visit.url("hyperparameters", extends) if extends else ""),
            _used(obj),
            ago(kinds.created(obj)),
        )
        lines.append(Line(cells, states.phase(obj), f"hp/{name}"))
    empty = _new(
        visit,
        "Hyperparameter",
        "No parameter groups yet",
        "A group says how to train: method, "
        "learning rate, steps. One may extend another and say only what differs.",
        "New group",
    )
    return await show(visit, "Hyperparameters", "hyperparameters", GROUPS, lines, empty)


async def plugins(visit: Visit) -> Response:
    lines = []
    for kind, word in (("DataPlugin", "Data plugin"), ("ScoringPlugin", "Scoring plugin")):
        for obj in await kinds.some(visit.api, kind, visit.namespace):
            status = kinds.status_of(obj)
            cells = (
                name_cell(visit, kind, kinds.name_of(obj), status.get("summary") or ""),
                Cell("words", word),
                state_cell(visit, obj),
                Cell("text", status.get("version")),
                Cell("text", status.get("package")),
                _used(obj),
                ago(kinds.created(obj)),
            )
            lines.append(Line(cells, states.phase(obj), f"{kinds.SHORT[kind]}/{kinds.name_of(obj)}"))
    empty = _new(
        visit,
        "DataPlugin",
        "No plugins yet",
        "A plugin makes data of files, or scores answers. "
        "It is a function of an installed package, or a program.",
        "New plugin",
    )
    return await show(visit, "Plugins", "plugins", PLUGINS, lines, empty)


async def model(visit: Visit) -> Response:
    kind = _kind(visit, ("llm", "ckpt"))
    obj = await kinds.find(visit.api, kind, visit.name, visit.namespace)
    checkpoints = []
    if kind == "LLM":
        found = await kinds.some(visit.api, "LLMCheckpoint", visit.namespace)
        checkpoints = [each for each in found if each["spec"]["llm"] == visit.name]
    more: Json = {"checkpoints": checkpoints, "measured": {}}
    if kind == "LLMCheckpoint":
        every = await kinds.some(visit.api, kind, visit.namespace)
        tunes = await kinds.some(visit.api, kinds.FINETUNE, visit.namespace)
        tune = next((tune for tune in tunes if kinds.name_of(tune) == obj["spec"]["finetune"]), None)
        more["lineage"] = lineage.layers(obj, every, tune)
        owner = kinds.owner(tune, kinds.JOB) if tune else ""
        job = await there(visit, kinds.JOB, owner) if owner else None
        measured = await scores(visit, str(kinds.status_of(job).get("scoring") or "")) if job else {}
        more["measured"] = measured.get(kinds.status_of(obj).get("metric") or "") or {}
        more |= {"exports": exported.shown(obj, visit.say), "object_url": object_url}
    return await _detail(visit, obj, "model.html", "models", "Models", **more)


async def hyperparameter(visit: Visit) -> Response:
    found = await kinds.all_of(visit.api, "Hyperparameter", visit.namespace)
    groups = {kinds.name_of(obj): obj for obj in found}
    obj = groups.get(visit.name) or await kinds.find(visit.api, "Hyperparameter", visit.name, visit.namespace)
    beside = visit.query.get("beside", "")
    mine = parameters.settings({"hyperparameter": {"ref": visit.name}}, groups)
    other = parameters.settings({"hyperparameter": {"ref": beside}}, groups) if beside in groups else []
    values = {each.name: each.value for each in other}
    known = {each.name for each in mine}
    whole = mine + [parameters.Setting(each.name, "–", beside) for each in other if each.name not in known]
    return await _detail(
        visit,
        obj,
        "hyperparameter.html",
        "hyperparameters",
        "Hyperparameters",
        beside=beside,
        values=values,
        unlike=[each for each in whole if not values or values.get(each.name) != each.value],
        others=[name for name in groups if name != visit.name],
    )


async def plugin(visit: Visit) -> Response:
    obj = await kinds.find(visit.api, _kind(visit, ("dp", "sp")), visit.name, visit.namespace)
    return await _detail(
        visit, obj, "plugin.html", "plugins", "Plugins", runs=await _uses(visit, obj), object_url=object_url
    )


async def _uses(visit: Visit, plugin: Json) -> list[Json]:
    """What a plugin was last run for, the youngest first: datasets it made, scorings it measured."""
    name, found = kinds.name_of(plugin), []
    kind = "Dataset" if plugin["kind"] == "DataPlugin" else "Scoring"
    for obj in await kinds.some(visit.api, kind, visit.namespace):
        status, measure = kinds.status_of(obj), obj["spec"].get("measure") or {}
        used = [obj["spec"].get("plugin") or {}] if kind == "Dataset" else measure.get("plugins") or ()
        if name not in [each.get("ref") for each in used]:
            continue
        made = status.get("made") or {}
        metrics = status.get("metrics") or {}
        scores = [got for metric, got in metrics.items() if metric == name or metric.startswith(f"{name}/")]
        found.append(
            {
                "kind": kind,
                "name": kinds.name_of(obj),
                "phase": states.phase(obj),
                "run": made.get("run") or status.get("run"),
                "rows": made.get("rows") or next((got.get("n") for got in scores), None),
                "score": next((got.get("value") for got in scores), None),
                "created": kinds.created(obj),
            }
        )
    return sorted(found, key=lambda each: str(each["created"]), reverse=True)[:LAST_RUNS]


def _kind(visit: Visit, shorts: tuple[str, ...]) -> str:
    short = str(visit.request.path_params["kind"])
    if short not in shorts:
        raise Refused("There is no such kind.")
    return kinds.BY_SHORT[short]


async def _detail(visit: Visit, obj: Json, template: str, page: str, title: str, **context: Any) -> Response:
    """The page of one object: what every such page shows, and what is its own."""
    kind, name = obj["kind"], kinds.name_of(obj)
    return await visit.page(
        template,
        live=True,
        obj=obj,
        spec=obj.get("spec") or {},
        status=kinds.status_of(obj),
        name=name,
        kind=kind,
        phase=states.phase(obj),
        why=states.why(obj, visit.say),
        trail=[(visit.say(title), visit.url(page))],
        target=[f"{kinds.SHORT[kind]}/{name}"],
        plural=kinds.PLURALS[kind].plural,
        used_by=used_by(visit, kinds.status_of(obj)),
        yaml=figures.as_yaml(equal.manifest(obj)),
        commands=equal.look(kind, name, visit.namespace),
        **context,
    )


def used_by(visit: Visit, status: Json) -> list[tuple[str, str]]:
    """(Kind/name, its page) of each user."""
    return [
        (title, object_url(visit, *title.split("/", 1)) if "/" in title else "")
        for title in status.get("usedBy") or ()
    ]


routes = [
    Page("/models", models),
    Page("/models/{kind}/{name}", model),
    Page("/hyperparameters", hyperparameters),
    Page("/hyperparameters/{name}", hyperparameter),
    Page("/plugins", plugins),
    Page("/plugins/{kind}/{name}", plugin),
]
