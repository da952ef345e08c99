"""Services: what is served, by which address, who is loaded; serving more, and taking models out."""

import json
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from datatunerx.client import ApiError, Invalid
from datatunerx.console import changes, equal, figures, kinds, states
from datatunerx.console.changes import Change, Step
from datatunerx.console.offers import SERVICE
from datatunerx.console.tables import Cell, Empty, Line, ago, columns, show, state_cell
from datatunerx.console.visit import Page, Refused, Visit
from datatunerx.resources.wire import API_VERSION

Json = dict[str, Any]
HEADS = columns(
    "Name", "State", "Models", "Loaded", "Unloaded after", "Age", numbers=("Loaded", "Unloaded after", "Age")
)
IDLE_SECONDS = 600.0
SERVED = ("LLM", "LLMCheckpoint")


async def table(visit: Visit) -> Response:
    lines = []
    for obj in await kinds.all_of(visit.api, SERVICE, visit.namespace):
        status, spec, name = kinds.status_of(obj), obj["spec"], kinds.name_of(obj)
        served = [str(each["name"]) for each in spec["models"]]
        idle = spec.get("idleSeconds", IDLE_SECONDS)
        cells = (
            Cell("name", name, url=visit.url("services", name)),
            state_cell(visit, obj),
            Cell("text", ", ".join(served[:4]) + (" …" if len(served) > 4 else "")),
            Cell("text", f"{status.get('modelsReady', 0)} / {len(served)}"),
            Cell("text", figures.duration(idle) if idle else visit.say("never")),
            ago(kinds.created(obj)),
        )
        lines.append(Line(cells, states.phase(obj), f"isvc/{name}"))
    may = visit.may("create", kinds.PLURALS[SERVICE].plural)
    empty = Empty(
        "No services yet",
        "A service answers with base models and checkpoints by an address that "
        "every OpenAI client understands.",
        visit.url("models") if may else "",
        "Choose a model to serve",
    )
    return await show(visit, "Services", "services", HEADS, lines, empty)


async def one(visit: Visit) -> Response:
    obj = await kinds.find(visit.api, SERVICE, visit.name, visit.namespace)
    status, spec = kinds.status_of(obj), obj["spec"]
    path = str(status.get("url") or "")
    address = f"https://{visit.request.url.netloc}{path}" if path.startswith("/") else path
    model = spec["models"][0]["name"]
    return await visit.page(
        "service.html",
        live=True,
        spec=spec,
        status=status,
        name=visit.name,
        kind=SERVICE,
        phase=states.phase(obj),
        why=states.why(obj, visit.say),
        trail=[(visit.say("Services"), visit.url("services"))],
        used_by=(),
        target=[f"isvc/{visit.name}"],
        plural=kinds.PLURALS[SERVICE].plural,
        models=models(obj),
        address=address,
        python=_python(address, model) if address else "",
        idle=spec.get("idleSeconds", IDLE_SECONDS),
        yaml=figures.as_yaml(equal.manifest(obj)),
        commands=equal.look(SERVICE, visit.name, visit.namespace),
    )


def models(service: Json) -> list[Json]:
    """Each model of a service as it stands, in the order of the spec."""
    said = {(each["kind"], each["name"]): each for each in kinds.status_of(service).get("models") or ()}
    found = []
    for each in service["spec"]["models"]:
        kind = each.get("kind", "LLMCheckpoint")
        plain = {"kind": kind, "name": each["name"], "ready": False, "reason": "", "message": "", "run": ""}
        plain |= {"baseDigest": "", "adapterDigest": ""}
        found.append(plain | said.get((kind, each["name"]), {}))
    return found


def _python(address: str, model: str) -> str:
    return (
        "import httpx\nfrom openai import OpenAI\n\n"
        'http = httpx.Client(verify="ca.crt")  # the authority of your kubeconfig\n'
        f'desk = OpenAI(base_url="{address}", api_key="TOKEN", http_client=http)\n'
        f'answer = desk.chat.completions.create(model="{model}", '
        'messages=[{"role": "user", "content": "Hello"}])\n'
        "print(answer.choices[0].message.content)"
    )


# Serving


async def ask(visit: Visit) -> Response:
    """The dialog: a service of their own for these models, or one that is there already."""
    refs = _refs(visit.request.query_params.getlist("model"))
    services = await kinds.some(visit.api, SERVICE, visit.namespace)
    fitting = [kinds.name_of(each) for each in services if not _has(each, refs)]
    name = refs[0]["name"][:200]
    taken = {kinds.name_of(each) for each in services}
    free = next(
        f"{name}{end}" for end in ("", *(f"-{n}" for n in range(2, 1000))) if f"{name}{end}" not in taken
    )
    body = _service(free, refs, IDLE_SECONDS)
    commands = [f"dtx apply -f -{equal.place(visit.namespace)}   # the YAML below"]
    return await visit.page(
        "serve.html", refs=refs, services=fitting, name=free, idle=round(IDLE_SECONDS / 60),
        yaml=figures.as_yaml(body), commands=commands,
    )  # fmt: skip


async def serve(visit: Visit) -> Response:
    """Make the service, or add the models to one."""
    refs = _refs([value for name, value in visit.fields if name == "model"])
    into = visit.form.get("into", "")
    try:
        if into:
            there = await kinds.find(visit.api, SERVICE, into, visit.namespace)
            wanted = there["spec"]["models"] + [ref for ref in refs if not _has(there, [ref])]
            step = Step("patch", SERVICE, into, _models_of(there, wanted))
        else:
            step = Step("create", SERVICE, visit.form.get("name", "").strip(), _made(visit, refs))
        await changes.do(visit.api, step, visit.namespace)
    except Invalid as error:
        said = "; ".join(f"{cause.field}: {cause.message}" for cause in error.causes) or error.message
        return await visit.page("toast.html", http=422, message=said)
    except ApiError as error:
        return await visit.page("toast.html", http=error.status or 503, message=error.message)
    return visit.go(visit.url("services", step.name))


def _made(visit: Visit, refs: Sequence[Json]) -> Json:
    try:
        idle = float(visit.form.get("idle", "") or 0) * 60
    except ValueError:
        raise Refused("Minutes must be a number; 0 is never.") from None
    return _service(visit.form.get("name", "").strip(), refs, idle)


async def take_out(visit: Visit) -> Response:
    """A service without one of its models: first what is sent, then the doing."""
    service = await kinds.find(visit.api, SERVICE, visit.name, visit.namespace)
    target = visit.query.get("model", "")
    [ref] = _refs([target])
    wanted = [each for each in service["spec"]["models"] if not _same(each, ref)]
    if not wanted:
        raise Refused("It is the last one; delete the service instead.")
    patch = _models_of(service, wanted)
    if visit.request.method == "POST":
        await visit.api.patch(kinds.PLURALS[SERVICE], visit.name, patch, visit.namespace)
        events = {"dtx:toast": visit.say("Done: {what}", what=ref["name"]), "dtx:done": True}
        return Response(headers={"HX-Trigger": json.dumps(events)})
    shown = {"spec": patch["spec"]}
    change = Change(
        [Step("patch", SERVICE, visit.name, shown)],
        [equal.patched(SERVICE, visit.name, visit.namespace, shown)],
    )
    form = visit.url("services", visit.name, "out", model=target)
    return await visit.page("action.html", do="out", title="Take out", targets=[], change=change, form=form)


def _refs(targets: Sequence[str]) -> list[Json]:
    found = [{"kind": kind, "name": name} for kind, name in changes.parse(targets)]
    if any(ref["kind"] not in SERVED for ref in found):
        raise Refused("Only base models and checkpoints can be served.")
    return found


def _service(name: str, refs: Sequence[Json], idle: float) -> Json:
    head = {"apiVersion": API_VERSION, "kind": SERVICE, "metadata": {"name": name}}
    return head | {"spec": {"models": list(refs), "idleSeconds": idle}}


def _models_of(service: Json, wanted: Sequence[Json]) -> Json:
    """Two who change the models at once are both heard: one of them is told to look again."""
    return {
        "metadata": {"resourceVersion": service["metadata"]["resourceVersion"]},
        "spec": {"models": list(wanted)},
    }


def _same(one: Json, other: Json) -> bool:
    return (one.get("kind", "LLMCheckpoint"), one["name"]) == (other["kind"], other["name"])


def _has(service: Json, refs: Sequence[Json]) -> bool:
    return all(any(_same(each, ref) for each in service["spec"]["models"]) for ref in refs)


routes = [
    Page("/services", table),
    Page("/serve", ask),
    Page("/serve", serve, ("POST",)),
    Page("/services/{name}", one),
    Page("/services/{name}/out", take_out, ("GET", "POST")),
]
