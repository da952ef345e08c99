"""Actions on one object or many: first what will happen, in numbers and commands, then the doing."""

import json

from starlette.responses import Response

from datatunerx.client import ApiError, Invalid
from datatunerx.client.manifests import NotReadable, read
from datatunerx.console import changes, equal, figures, kinds
from datatunerx.console.tables import object_url
from datatunerx.console.visit import Page, Visit
from datatunerx.resources.wire import API_VERSION

TITLES = {
    "stop": "Stop, to resume later",
    "keep": "Stop for good, and keep a last checkpoint",
    "resume": "Resume from the last whole checkpoint",
    "retry": "Try again",
    "delete": "Delete",
}
MAX_YAML = 500_000


async def ask(visit: Visit) -> Response:
    """The dialog."""
    do = visit.query.get("do", "")
    targets = visit.request.query_params.getlist("target")
    change = await changes.plan(visit.api, do, targets, visit.namespace)
    return await visit.page(
        "action.html", do=do, title=TITLES[do], targets=targets, change=change, form=visit.url("act")
    )


async def act(visit: Visit) -> Response:
    do = visit.form.get("do", "")
    targets = [value for name, value in visit.fields if name == "target"]
    change = await changes.plan(visit.api, do, targets, visit.namespace)
    faults = await changes.send(visit.api, change, visit.namespace)
    if faults:
        message = "; ".join(faults)
        return await visit.page("toast.html", http=409, message=message)
    said = visit.say("Done: {what}", what=", ".join(step.name for step in change.steps))
    events = {"dtx:toast": said, "dtx:done": True}
    return Response(headers={"HX-Trigger": json.dumps(events)})


BLANK = {
    "apiVersion": API_VERSION,
    "kind": "FinetuneExperiment",
    "metadata": {"name": "my-experiment"},
    "spec": {
        "matrix": {"llms": [], "datasets": [], "hyperparameters": []},
        "scoring": {"metrics": ["exact-match"]},
    },
}


async def edit(visit: Visit) -> Response:
    """An object as YAML, to be changed and made anew: blank, or a clone of `from`."""
    origin = visit.query.get("from", "")
    body = BLANK
    if origin:
        kind, name = changes.parse([origin])[0]
        found = await kinds.find(visit.api, kind, name, visit.namespace)
        body = _clone(found)
    elif (kind := visit.query.get("kind", "")) in kinds.PLURALS:
        body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": ""}, "spec": {}}
    return await visit.page("editor.html", origin=origin, text=figures.as_yaml(body), faults=[])


def _clone(found: changes.Json) -> changes.Json:
    body = equal.manifest(found)
    metadata = {"name": f"{kinds.name_of(found)[:240]}-copy"}
    spec = {key: value for key, value in body.get("spec", {}).items() if key not in ("suspend", "stop")}
    return body | {"metadata": metadata, "spec": spec}


async def make(visit: Visit) -> Response:
    """Create what was written; each fault with its field."""
    text = visit.form.get("yaml", "")
    faults: list[str] = []
    body = None
    try:
        found = read(text[:MAX_YAML])
        body = found[0] if len(found) == 1 else None
    except NotReadable as error:
        faults = [f"{error.line}: {error}" if error.line else str(error)]
    if not faults and not (isinstance(body, dict) and body.get("kind") in kinds.PLURALS):
        faults = [visit.say("This is no object of datatunerx: kind must be one of ours.")]
    if not faults and isinstance(body, dict):
        try:
            made = await visit.api.create_raw(kinds.PLURALS[body["kind"]], body, visit.namespace)
            return visit.go(visit.url(kinds.PAGE[body["kind"]], *_rest(body["kind"], kinds.name_of(made))))
        except Invalid as error:
            faults = [f"{cause.field}: {cause.message}" for cause in error.causes] or [error.message]
        except ApiError as error:
            faults = [error.message]
    origin = visit.query.get("from", "")
    return await visit.page("editor.html", http=422, origin=origin, text=text, faults=faults)


def _rest(kind: str, name: str) -> tuple[str, ...]:
    if kind in (kinds.FINETUNE, "Scoring"):
        return ()
    return (kinds.SHORT[kind], name) if kinds.PAGE[kind] in ("models", "plugins") else (name,)


async def palette(visit: Visit) -> Response:
    """Objects whose name has the words; pages are found too."""
    words = visit.query.get("q", "").casefold().split()
    found = []
    for kind in (kinds.EXPERIMENT, kinds.JOB, "Dataset", "LLM", "LLMCheckpoint", "Hyperparameter"):
        objects = await kinds.some(visit.api, kind, visit.namespace) if words else []
        names = [kinds.name_of(obj) for obj in objects]
        found += [(kind, name) for name in names if all(word in name for word in words)][:8]
    return await visit.page("palette.html", words=words, found=found, object_url=object_url)


routes = [
    Page("/act", ask),
    Page("/act", act, ("POST",)),
    Page("/edit", edit),
    Page("/edit", make, ("POST",)),
    Page("/palette", palette),
]
