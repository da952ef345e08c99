"""The wizard: six steps from a name to a model that can be taken home. What was typed lives in a draft."""

import asyncio
import os
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from datatunerx.client import AlreadyExists, ApiError, Conflict, Invalid, NotFound
from datatunerx.console import figures, forms, kinds, offers, states
from datatunerx.console.host import Host, Look
from datatunerx.console.pages import wizard_run
from datatunerx.console.pages.datasets import DRAFT, is_draft
from datatunerx.console.visit import PREFIX, Page, Refused, Visit
from datatunerx.console.wizard import choices, making
from datatunerx.console.wizard import draft as drafts
from datatunerx.console.wizard.draft import STEPS, Draft
from datatunerx.console.wizard.outlook import Outlook, World, outlook
from datatunerx.resources.enums import Method
from datatunerx.resources.wire import RETRY, now
from datatunerx.runs.exporting import CHECKPOINT
from datatunerx.runs.grid import MAX_COMBINATIONS, new_object

Json = dict[str, Any]
TITLES = ("Place", "Model and data", "Parameters", "Start", "Results", "Take it home")
FIELD = "v:"
"""Before the key of a field of the form."""
PAUSES = (0.05, 0.2, 0.8, 2.0)
"""Seconds before a draft that was written meanwhile is read again; a busy disk takes its time."""
CHOSEN = ("llm", "dataset")
"""What the second step chooses; one of each, or several."""
MAX_NAME = 200
"""A job's name is the experiment's and more."""


async def start(visit: Visit) -> Response:
    """The first step, before there is a draft, and the drafts that wait. With `base` it is to go on from
    checkpoints, whose names have commas between."""
    if targets := visit.request.query_params.getlist("target"):  # what was ticked in a list
        names = offers.bases(targets)
        if len(names) == len(targets) <= MAX_COMBINATIONS:
            return visit.go(visit.url("new", base=",".join(names)))
        text = "Tick checkpoints and nothing else, {most} at most."
        return await visit.page("toast.html", http=400, message=visit.say(text, most=MAX_COMBINATIONS))
    draft = Draft()
    bases = _bases(visit.query)
    for base in bases:
        await kinds.find(visit.api, "LLMCheckpoint", base, visit.namespace)
    if bases:
        shared = "-".join(os.path.commonprefix([base.split("-") for base in bases])) or bases[0]
        draft.name = await _free_name(visit, f"{re.sub('[^a-z0-9]+', '-', shared)[: MAX_NAME - 10]}-next")
    return await _page(visit, "", draft, 1, {}, bases=bases)


def _bases(said: dict[str, str]) -> list[str]:
    return list(dict.fromkeys(name for name in said.get("base", "").split(",") if name))


async def begin(visit: Visit) -> Response:
    """A draft is made, in the namespace that was chosen."""
    draft = Draft(name=visit.form.get("name", "").strip(), step=2)
    place = visit.form.get("namespace") or visit.namespace
    bases = _bases(visit.form)
    faults = await _name_faults(visit, draft.name, place)
    if bases and not faults:
        faults = await _go_on_from(visit, draft, bases)
    if faults:
        return await _page(visit, "", draft, 1, faults, bases=bases)
    id = await drafts.begin(visit.api, draft, place, visit.user, now())
    return visit.go(f"{PREFIX}/ns/{quote(place, safe='')}/new/{id}/2")


async def show(visit: Visit) -> Response:
    kept = await drafts.load(visit.api, _id(visit), visit.namespace)
    if dataset := visit.query.get("dataset", ""):  # it was uploaded from here, and this is the way back
        _choose(kept.draft, "dataset", dataset)
        await drafts.keep(visit.api, kept.id, kept.draft, visit.namespace, now())
        return visit.go(visit.url("new", kept.id, "2"))
    return await _page(visit, kept.id, kept.draft, _step(visit), {})


async def save(visit: Visit) -> Response:
    """Keep what was typed, do what was pressed, and lead on, or say what is wrong where it is wrong."""
    for seconds in PAUSES:
        try:
            return await _save(visit)
        except Conflict:  # what was typed just before it is being written
            await asyncio.sleep(seconds)
    return await _save(visit)


async def _save(visit: Visit) -> Response:
    kept = await drafts.load(visit.api, _id(visit), visit.namespace)
    draft, step, do = kept.draft, _step(visit), visit.form.get("do", "")
    if draft.experiment:
        raise Refused("This draft has become an experiment already; make a new one.")
    _take(visit, draft, step)
    faults = await _done(visit, draft, do)
    faults |= await _faults(visit, draft, step) if do == "next" else {}
    if do == "next" and not faults:
        draft.step = max(draft.step, step + 1)
    await drafts.keep(visit.api, kept.id, draft, visit.namespace, now(), kept.version)
    if do == "start" and not (faults := await _begin_training(visit, kept.id, draft)):
        return visit.go(visit.url("new", kept.id, "4"))
    if faults or not do:
        return await _page(visit, kept.id, draft, step, faults)
    to = {"next": step + 1, "back": step - 1}.get(do, step)
    return visit.go(visit.url("experiments") if do == "leave" else visit.url("new", kept.id, str(to)))


async def again(visit: Visit) -> Response:
    """A new draft with everything of one that has become an experiment, but its name."""
    kept = await drafts.load(visit.api, _id(visit), visit.namespace)
    draft = kept.draft.model_copy(update={"name": "", "experiment": "", "step": 3, "yaml": None})
    id = await drafts.begin(visit.api, draft, visit.namespace, visit.user, now())
    return visit.go(visit.url("new", id, "1"))


async def drop(visit: Visit) -> Response:
    await drafts.drop(visit.api, _id(visit), visit.namespace)
    return visit.go(visit.url("new"))


# What was typed


def _take(visit: Visit, draft: Draft, step: int) -> None:
    """The fields of this step's form, into the draft."""
    form = visit.form
    if step == 1:
        draft.name = form.get("name", draft.name).strip()
    if step == 2:
        if (method := form.get("method", "")) in {m.value for m in Method}:
            draft.method = Method(method)
        for what in CHOSEN:
            named = list(dict.fromkeys(value for name, value in visit.fields if name == what and value))
            if named or f"shown:{what}" in form:
                setattr(draft, f"{what}s", named if what in draft.several else named[:1])
        draft.source = form.get("source", draft.source).strip()
        draft.data_source = form.get("data_source", draft.data_source).strip()
        draft.find |= {what: form[key] for what in CHOSEN if (key := f"find:{what}") in form}
    if step == 3 and draft.yaml is None:
        typed: dict[str, list[str]] = {}
        for name, value in visit.fields:
            if name.startswith(FIELD) and name.removeprefix(FIELD) in forms.by_key() and value.strip():
                typed.setdefault(name.removeprefix(FIELD), []).append(value)
        shown = {name.removeprefix("shown:") for name, _ in visit.fields if name.startswith("shown:")}
        hidden = {key: value for key, value in draft.values.items() if key not in shown}
        draft.values = hidden | typed
    if step == 3 and "yaml" in form and draft.yaml is not None:
        draft.yaml = form["yaml"]


async def _done(visit: Visit, draft: Draft, do: str) -> dict[str, str]:
    """What a button does besides leading on; faults by field."""
    verb, _, what = do.partition(":")
    match verb:
        case "preset":
            preset = forms.PRESETS[draft.method].get(what)
            if preset is None:
                raise Refused("There is no such action.")
            kept = {field.key for field in forms.settings()}
            values = {key: value for key, value in draft.values.items() if key in kept}
            draft.preset, draft.values = what, values | {key: [text] for key, text in preset.items()}
        case "several" if what in CHOSEN:
            draft.several = [*draft.several, what]
        case "one" if what in CHOSEN:
            draft.several = [each for each in draft.several if each != what]
            setattr(draft, f"{what}s", getattr(draft, f"{what}s")[:1])
        case "use-model":
            draft.source = choices.DEMO[1]
            return await _register(visit, draft, "source")
        case "check-model":
            return await _register(visit, draft, "source")
        case "check-data":
            return await _register(visit, draft, "data_source")
        case "yaml-edit":
            if wrong := _value_faults(visit, draft):
                return wrong
            draft.yaml = figures.as_yaml(*making.objects(draft))
        case "yaml-drop":
            draft.yaml = None
    return {}


async def _register(visit: Visit, draft: Draft, field: str) -> dict[str, str]:
    """Make the LLM or the Dataset that was typed, so that it is inspected; one that is there is looked at
    again if it was found bad."""
    typed = getattr(draft, field)
    source = choices.address(typed, hub="hf://" if field == "source" else "hf://datasets/")
    if not source:
        return {field: visit.say("Write a path on the server that begins with /, a URI, or ORG/NAME.")}
    body = making.model(source) if field == "source" else making.dataset(source, next(iter(draft.llms), ""))
    kind, name = body["kind"], kinds.name_of(body)
    try:
        await visit.api.create_raw(kinds.PLURALS[kind], body, visit.namespace)
    except AlreadyExists:
        there = await kinds.find(visit.api, kind, name, visit.namespace)
        if kind == "LLM" and there["spec"]["source"] != source:
            return {field: visit.say("There is another model named {name}.", name=name)}
        if states.phase(there) == "NotReady":
            again = {"metadata": {"annotations": {RETRY: now()}}}
            await visit.api.patch(kinds.PLURALS[kind], name, again, visit.namespace)
    except ApiError as error:
        return {field: error.message}
    setattr(draft, field, "")
    _choose(draft, "llm" if field == "source" else "dataset", name)
    return {}


def _choose(draft: Draft, what: str, name: str) -> None:
    """Instead of what was chosen, or besides it where there may be several."""
    before = getattr(draft, f"{what}s") if what in draft.several else []
    setattr(draft, f"{what}s", list(dict.fromkeys([*before, name])))


async def _go_on_from(visit: Visit, draft: Draft, bases: list[str]) -> dict[str, str]:
    """Merged copies of checkpoints become the models, with all data that the checkpoints were trained on."""
    checkpoints = [await kinds.find(visit.api, "LLMCheckpoint", base, visit.namespace) for base in bases]
    draft.datasets = list(dict.fromkeys(each["spec"]["dataset"] for each in checkpoints))
    chosen = (("llm", bases), ("dataset", draft.datasets))
    draft.several = [what for what, names in chosen if len(names) > 1]
    for base in bases:
        draft.source = f"{CHECKPOINT}{base}"
        if found := await _register(visit, draft, "source"):
            return {"name": found["source"]}
    return {}


# What is wrong


async def _faults(visit: Visit, draft: Draft, step: int) -> dict[str, str]:
    """Why this step cannot be left forwards, by field."""
    if step == 1:
        return await _name_faults(visit, draft.name, visit.namespace)
    if step == 2:
        return await _material_faults(visit, draft)
    if step == 3:
        return _value_faults(visit, draft)
    return {}


async def _material_faults(visit: Visit, draft: Draft) -> dict[str, str]:
    """Model and data must be chosen and may still be looked at; data that was only checked is registered."""
    found = {}
    for field, kind, text in (("llm", "LLM", "Choose a model."), ("dataset", "Dataset", "Choose data.")):
        names = getattr(draft, f"{field}s")
        wrong = [why for name in names if (why := await _material_fault(visit, kind, name))]
        if wrong or not names:
            found[field] = "\n".join(wrong) or visit.say(text)
    if not found and len(draft.llms) * len(draft.datasets) > MAX_COMBINATIONS:
        found["dataset"] = _too_many(visit, len(draft.llms) * len(draft.datasets))
    return found


async def _material_fault(visit: Visit, kind: str, name: str) -> str:
    try:
        obj = await kinds.find(visit.api, kind, name, visit.namespace)
    except NotFound:
        return visit.say("{name} is not there any more.", name=name)
    if states.phase(obj) == "NotReady":
        return f"{name}: {states.why(obj, visit.say)}"
    if kind == "Dataset" and is_draft(obj):
        patch = {"metadata": {"labels": {DRAFT: None}}}
        await visit.api.patch(kinds.PLURALS[kind], name, patch, visit.namespace)
    return ""


def _too_many(visit: Visit, n: int) -> str:
    text = "These choices make {n} jobs; at most {most} go into one experiment"
    return visit.say(text, n=n, most=MAX_COMBINATIONS)


def _value_faults(visit: Visit, draft: Draft) -> dict[str, str]:
    if draft.yaml is not None:
        return choices.yaml_faults(draft.yaml)
    found = forms.faults(draft.values, draft.method, visit.say)
    if not found and making.too_many(draft):
        found["jobs"] = _too_many(visit, making.axes(draft).jobs)
    return found


async def _name_faults(visit: Visit, name: str, namespace: str) -> dict[str, str]:
    """By a dry run of the API, which knows the rules and what is there."""
    if not name:
        return {"name": visit.say("Give it a name.")}
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
        return {"name": visit.say("Only small letters, digits and dashes, a letter or digit at both ends.")}
    if len(name) > MAX_NAME:
        return {"name": visit.say("At most {n} letters.", n=MAX_NAME)}
    body = new_object(kinds.EXPERIMENT, name, {"matrix": _ANY})
    try:
        await visit.api.create_raw(kinds.PLURALS[kinds.EXPERIMENT], body, namespace, dry_run=True)
    except AlreadyExists:
        return {"name": visit.say("There is an experiment of this name already.")}
    except Invalid as error:
        return {"name": "; ".join(cause.message for cause in error.causes) or error.message}
    except ApiError as error:
        return {"name": error.message}
    return {}


async def _free_name(visit: Visit, wanted: str) -> str:
    """The name, or with the first number that no experiment has."""
    taken = {kinds.name_of(obj) for obj in await kinds.some(visit.api, kinds.EXPERIMENT, visit.namespace)}
    numbered = (f"{wanted}-{n}" for n in range(2, len(taken) + 3))
    return wanted if wanted not in taken else next(name for name in numbered if name not in taken)


_ANY = {"llms": ["x"], "datasets": ["x"], "hyperparameters": ["x"]}


# Starting


async def _begin_training(visit: Visit, id: str, draft: Draft) -> dict[str, str]:
    """Send the objects; the fault that the server finds first, or nothing."""
    bodies = choices.bodies(draft)
    if blocked := (await _outlook(visit, draft, await _world(visit), await _host(visit))).blocked:
        text, values = blocked[0]
        return {"start": visit.say(text, **values)}
    try:
        for body in bodies[:-1]:
            target, name = kinds.PLURALS[body["kind"]], kinds.name_of(body)
            await visit.api.apply(target, name, body, visit.namespace)
        target = kinds.PLURALS[kinds.EXPERIMENT]
        made = await visit.api.create_raw(target, bodies[-1], visit.namespace)
    except Invalid as error:
        return {"start": "; ".join(f"{c.field}: {c.message}" for c in error.causes) or error.message}
    except ApiError as error:
        return {"start": error.message}
    draft.experiment, draft.step = kinds.name_of(made), STEPS
    await drafts.keep(visit.api, id, draft, visit.namespace, now())
    await drafts.hand_over(visit.api, id, made, visit.namespace)
    return {}


# Drawing


async def _page(
    visit: Visit, id: str, draft: Draft, step: int, faults: dict[str, str], *, bases: Sequence[str] = ()
) -> Response:
    if step > 1 and not id or not 1 <= step <= STEPS:
        raise Refused("There is no such step.")
    if step > 4 and not draft.experiment:
        raise Refused("This comes after the start.")
    context: Json = {"host": await _host(visit)}
    if 1 < step <= 4 and not draft.experiment:
        world = await _world(visit)
        context |= choices.of_step(visit, draft, step, world, context["host"])
        context["outlook"] = found = await _outlook(visit, draft, world, context["host"])
        context["list"] = wizard_run.planned(visit, found.jobs)
    if step == 3 and not faults:
        faults = _value_faults(visit, draft)
    if step >= 4 and draft.experiment:
        context |= await wizard_run.of_step(visit, draft.experiment, step)
    context["drafts"], context["unread"] = (
        ([], []) if id else await drafts.unfinished(visit.api, visit.namespace, visit.user)
    )
    return await visit.page(
        "wizard.html", http=422 if faults and visit.form.get("do") and not visit.partial else 200,
        id=id, draft=draft, step=step, faults=faults, titles=TITLES, bases=bases,
        live=step == 2 or step > 3, action=visit.url("new", id, str(step)) if id else visit.url("new"),
        place=visit.url("new", id, str(step)),
        rights=_rights(visit), **context,
    )  # fmt: skip


def _rights(visit: Visit) -> str:
    """What the visitor lacks to use the wizard here; empty if nothing."""
    for plural, group in (("finetuneexperiments", None), ("hyperparameters", None), ("configmaps", "")):
        may = visit.may("create", plural) if group is None else visit.may("create", plural, group)
        if not may:
            return plural
    return ""


async def _world(visit: Visit) -> World:
    found = [
        {kinds.name_of(obj): obj for obj in await kinds.some(visit.api, kind, visit.namespace)}
        for kind in ("LLM", "Dataset", "Hyperparameter", kinds.FINETUNE)
    ]
    return World(found[0], found[1], found[2], list(found[3].values()))


async def _host(visit: Visit) -> Host | None:
    look: Look | None = visit.request.app.state.host
    return await asyncio.to_thread(look) if look else None


async def _outlook(visit: Visit, draft: Draft, world: World, host: Host | None) -> Outlook:
    """Of what was typed so far; nothing where it is not whole yet."""
    if not draft.llms or not draft.datasets:
        return Outlook()
    if wrong := _value_faults(visit, draft):
        text = wrong.get("jobs") or visit.say("A parameter is wrong; it says so where it stands.")
        return Outlook(blocked=[("{why}", {"why": text})])
    return outlook(choices.bodies(draft), world, host, visit.say)


def _id(visit: Visit) -> str:
    return str(visit.request.path_params["draft"])


def _step(visit: Visit) -> int:
    text = str(visit.request.path_params["step"])
    return int(text) if text in "123456" and text else 0


routes = [
    Page("/new", start),
    Page("/new", begin, ("POST",)),
    Page("/new/{draft}/drop", drop, ("POST",)),
    Page("/new/{draft}/again", again, ("POST",)),
    Page("/new/{draft}/{step}", show),
    Page("/new/{draft}/{step}", save, ("POST",)),
]
