"""Datasets: the list, one of them, and the way a new one comes: upload, check, register.

A new Dataset is an object from the first check on, so that it is inspected like any other; until somebody
registers it, a label says that it is a draft.
"""

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from datatunerx.client import Invalid
from datatunerx.client.errors import AlreadyExists
from datatunerx.console import dataset_form, equal, figures, kinds, plugin_form, reports, states
from datatunerx.console.pages.login import ours
from datatunerx.console.pages.materials import used_by
from datatunerx.console.tables import Cell, Empty, Line, ago, columns, name_cell, show, state_cell
from datatunerx.console.visit import Page, Visit
from datatunerx.resources.wire import API_VERSION, GROUP

Json = dict[str, Any]
DRAFT = f"{GROUP}/draft"
"""The label of a Dataset that was checked and not yet registered."""
HEADS = columns(
    "Name", "State", "Rows", "Dropped", "Tokens", "Used by", "Age",
    numbers=("Rows", "Dropped", "Tokens", "Used by", "Age"),
)  # fmt: skip
TABS = (
    ("overview", "Overview"),
    ("rows", "Rows"),
    ("problems", "Problems"),
    ("edit", "Edit"),
    ("plugin", "Run a plugin"),
)
CHANGING = ("edit", "plugin")
"""Tabs for those only who may change it."""
WAYS = (("upload", "Upload files"), ("addresses", "Name addresses"))


async def table(visit: Visit) -> Response:
    lines = []
    for obj in await kinds.all_of(visit.api, "Dataset", visit.namespace):
        report = kinds.status_of(obj).get("report") or {}
        tags = [obj["spec"].get("task") or "", *obj["spec"].get("languages", ())]
        if is_draft(obj):
            tags = [visit.say("checked, not registered")]
        cells = (
            name_cell(visit, "Dataset", kinds.name_of(obj), " · ".join(filter(None, tags))),
            state_cell(visit, obj),
            Cell("number", report.get("kept")),
            Cell("number", report.get("dropped")),
            Cell("number", (report.get("tokens") or {}).get("total")),
            Cell("number", len(kinds.status_of(obj).get("usedBy") or ())),
            ago(kinds.created(obj)),
        )
        lines.append(Line(cells, states.phase(obj), f"ds/{kinds.name_of(obj)}"))
    empty = Empty(
        "No datasets yet",
        "A dataset names files and says how they are split. "
        "Every row is read and counted before anything trains on it.",
        visit.url("datasets", "_new") if visit.may("create", "datasets") else "",
        "New dataset",
    )
    return await show(visit, "Datasets", "datasets", HEADS, lines, empty)


def is_draft(obj: Json) -> bool:
    """Whether it was checked and not yet registered."""
    return DRAFT in (obj["metadata"].get("labels") or {})


async def page(visit: Visit) -> Response:
    """One dataset."""
    obj = await kinds.find(visit.api, "Dataset", visit.name, visit.namespace)
    tab = visit.query.get("tab", "overview")
    may = tab not in CHANGING or visit.may("patch", "datasets")
    return await _page(visit, obj, tab if may else "overview")


async def _page(
    visit: Visit, obj: Json, tab: str, *, http: int = 200,
    form: Mapping[str, str] | None = None, faults: Mapping[str, str] | None = None,
) -> Response:  # fmt: skip
    status, name = kinds.status_of(obj), kinds.name_of(obj)
    context = await found(visit, obj)
    if tab == "edit" or context["draft"] and not context["usable"]:
        values = dataset_form.values_of(obj["spec"]) | dict(form or {})
        context |= await _form(visit, values, faults, states.why(obj, visit.say))
    if tab == "plugin":
        context |= await plugin_form.context(visit, obj, form or visit.query, faults or {})
    may = visit.may("patch", "datasets")
    return await visit.page(
        "dataset.html",
        http=http,
        live=tab != "edit",
        obj=obj,
        spec=obj.get("spec") or {},
        status=status,
        name=name,
        kind="Dataset",
        phase=states.phase(obj),
        why=states.why(obj, visit.say),
        trail=[(visit.say("Datasets"), visit.url("datasets"))],
        target=[f"ds/{name}"],
        plural="datasets",
        used_by=used_by(visit, status),
        yaml=figures.as_yaml(equal.manifest(obj)),
        commands=[
            *equal.look("Dataset", name, visit.namespace),
            f"dtx dataset preview {name}{equal.place(visit.namespace)}",
        ],
        tab=tab,
        tabs=[
            (key, visit.say(title) + _count(key, context["report"]), visit.url("datasets", name, tab=key))
            for key, title in TABS
            if may or key not in CHANGING
        ],
        **context,
    )


def _count(tab: str, report: Json) -> str:
    """What stands behind a tab's title."""
    return f" {figures.number(report['dropped'])}" if tab == "problems" and report.get("dropped") else ""


async def found(visit: Visit, obj: Json) -> Json:
    """What its inspection found, for the page and for the check that the wizard shows."""
    report = kinds.status_of(obj).get("report") or {}
    cutoffs = await _cutoffs(visit)
    ready = states.condition(obj, "Ready") or {}
    now = obj["metadata"].get("generation")
    known = ready.get("status") in ("True", "False")
    decided = known and (kinds.status_of(obj).get("observedGeneration") or now) == now
    facts = await _facts(visit, kinds.name_of(obj)) if ready.get("status") == "True" else {}
    return {
        "report": report,
        "bars": reports.histogram(report, cutoffs),
        "cutoffs": cutoffs,
        "ready": ready,
        "decided": decided,
        "usable": decided and ready.get("status") == "True",
        "made_splits": reports.made_splits(report, obj["spec"]),
        "split": obj["spec"].get("split") or {},
        "problems": reports.problems(facts),
        "rows": reports.rows(facts),
        "draft": is_draft(obj),
        "place": reports.place,
    }


async def _facts(visit: Visit, name: str) -> Json:
    """The report's file; nothing where it cannot be had, as on another server than ours."""
    path = f"/apis/{API_VERSION}/namespaces/{visit.namespace}/datasets/{name}/report"
    answer = await visit.api.transport.request("GET", path)
    found: Json = json.loads(answer.body) if answer.status == 200 else {}
    return found


async def _cutoffs(visit: Visit) -> list[int]:
    """Cutoff lengths that groups of this namespace set."""
    groups = await kinds.some(visit.api, "Hyperparameter", visit.namespace)
    lengths = {(group.get("spec") or {}).get("cutoffLength") for group in groups}
    return sorted(length for length in lengths if length)


async def models(visit: Visit) -> list[str]:
    """Base models that are ready, whose tokens can be counted."""
    llms = await kinds.some(visit.api, "LLM", visit.namespace)
    return sorted(kinds.name_of(obj) for obj in llms if states.phase(obj) == "Ready")


async def _form(
    visit: Visit, values: Mapping[str, str], faults: Mapping[str, str] | None, said: str = ""
) -> Json:
    """What a form of a dataset needs; `said` is what the inspection says, which may name the columns."""
    return {
        "values": values,
        "faults": {field: visit.say(text) for field, text in (faults or {}).items()},
        "columns": dataset_form.columns_in(said),
        "models": await models(visit),
        "main_parts": dataset_form.MAIN_PARTS,
        "other_parts": dataset_form.OTHER_PARTS,
        "formats": dataset_form.FORMATS,
    }


# A new one


async def new(visit: Visit) -> Response:
    return await _new(visit, {})


async def _new(visit: Visit, faults: Mapping[str, str]) -> Response:
    way = visit.query.get("way", "upload")
    values = dataset_form.values_of({}) | {"name": ""} | visit.form
    return await visit.page(
        "dataset_new.html", http=422 if faults else 200, way=way,
        tabs=[(key, visit.say(title), visit.url("datasets", "_new", way=key)) for key, title in WAYS],
        next=visit.url("datasets", "NAME"), **await _form(visit, values, faults),
    )  # fmt: skip


async def draft(visit: Visit) -> Response:
    """Make a draft of the files that were named, and let it be inspected."""
    as_json = "application/json" in visit.request.headers.get("accept", "")
    form = {name: "\n".join(v for n, v in visit.fields if n == name) for name, _ in visit.fields}
    name = form.pop("name", "").strip()
    spec, faults = dataset_form.spec_of(form, {})
    if not name:
        faults["name"] = "Give it a name."
    if not faults:
        faults = await _make(visit, name, {key: value for key, value in spec.items() if value is not None})
    if as_json:
        said = {field: visit.say(text) for field, text in faults.items()}
        return JSONResponse({"faults": said, "name": name}, 422 if faults else 200)
    return await _new(visit, faults) if faults else visit.go(visit.url("datasets", name))


async def _make(visit: Visit, name: str, spec: Json) -> dict[str, str]:
    """Create the draft, or give the one of that name these files. What is wrong, by field."""
    metadata = {"name": name, "labels": {DRAFT: "true"}}
    body = {"apiVersion": API_VERSION, "kind": "Dataset", "metadata": metadata, "spec": spec}
    datasets = kinds.PLURALS["Dataset"]
    try:
        await visit.api.create_raw(datasets, body, visit.namespace)
    except AlreadyExists:
        there = await visit.api.get(datasets, name, visit.namespace)
        if not is_draft(there):
            return {"name": "There is a dataset of this name. Choose another one."}
        await visit.api.patch(datasets, name, {"spec": spec}, visit.namespace)
    except Invalid as error:
        return dataset_form.by_field([(cause.field, cause.message) for cause in error.causes]) or {
            "name": error.message
        }
    return {}


async def check(visit: Visit) -> Response:
    """How the check of a draft stands: a part of a page, which looks again by itself until that is known."""
    obj = await kinds.find(visit.api, "Dataset", visit.name, visit.namespace)
    return await _check(visit, obj, visit.query.get("next", ""), {})


async def _check(visit: Visit, obj: Json, next: str, faults: Mapping[str, str]) -> Response:
    context = await found(visit, obj)
    said = str(context["ready"].get("message", ""))
    values = dataset_form.values_of(obj["spec"]) | visit.form
    return await visit.page(
        "dataset_check.html", http=422 if faults else 200, name=visit.name, phase=states.phase(obj), why=said,
        status=kinds.status_of(obj), next=next, **context, **await _form(visit, values, faults, said),
    )  # fmt: skip


async def change(visit: Visit) -> Response:
    """What the form of the Edit tab, or of the check, says."""
    obj = await kinds.find(visit.api, "Dataset", visit.name, visit.namespace)
    spec, faults = dataset_form.spec_of(visit.form, obj["spec"])
    if not faults:
        try:
            obj = await visit.api.patch(kinds.PLURALS["Dataset"], visit.name, {"spec": spec}, visit.namespace)
        except Invalid as error:
            faults = dataset_form.by_field([(cause.field, cause.message) for cause in error.causes])
            faults = faults or {"name": error.message}
    if visit.partial:  # from a check within another page, which stays
        return await _check(visit, obj, visit.form.get("next", ""), faults)
    if faults:
        return await _page(visit, obj, "edit", http=422, form=visit.form, faults=faults)
    return visit.go(visit.url("datasets", visit.name))


async def register(visit: Visit) -> Response:
    """The draft becomes a dataset like any other."""
    patch = {"metadata": {"labels": {DRAFT: None}}}
    await visit.api.patch(kinds.PLURALS["Dataset"], visit.name, patch, visit.namespace)
    onward = visit.form.get("next", "").replace("NAME", visit.name)
    return visit.go(onward if ours(onward) else visit.url("datasets", visit.name))


async def run_plugin(visit: Visit) -> Response:
    """Have a plugin make this dataset's rows, or those of a new one of the same files."""
    obj = await kinds.find(visit.api, "Dataset", visit.name, visit.namespace)
    name, use, faults = await plugin_form.chosen(visit)
    if not faults:
        faults = await _used(visit, obj, name, use)
    if faults:
        return await _page(visit, obj, "plugin", http=422, form=visit.form, faults=faults)
    return visit.go(visit.url("datasets", name))


async def _used(visit: Visit, obj: Json, name: str, use: Json) -> dict[str, str]:
    datasets = kinds.PLURALS["Dataset"]
    try:
        if name == visit.name:
            change = {"op": "add", "path": "/spec/plugin", "value": use}  # a merge would keep old parameters
            await visit.api.patch_json(datasets, name, [change], visit.namespace)
        else:
            body = equal.manifest(obj)
            spec = body["spec"] | {"plugin": use}
            await visit.api.create_raw(
                datasets, body | {"metadata": {"name": name}, "spec": spec}, visit.namespace
            )
    except AlreadyExists:
        return {"name": "There is a dataset of this name. Choose another one."}
    except Invalid as error:
        return {
            "name": "; ".join(f"{cause.field}: {cause.message}" for cause in error.causes) or error.message
        }
    return {}


routes = [
    Page("/datasets", table),
    Page("/datasets/_new", new),
    Page("/datasets/_new", draft, ("POST",)),
    Page("/datasets/{name}", page),
    Page("/datasets/{name}", change, ("POST",)),
    Page("/datasets/{name}/check", check),
    Page("/datasets/{name}/register", register, ("POST",)),
    Page("/datasets/{name}/plugin", run_plugin, ("POST",)),
]
