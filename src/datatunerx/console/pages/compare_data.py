"""What a kept comparison becomes: rows to score by, pairs to prefer by, as a file or as a Dataset."""

import asyncio
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from starlette.responses import Response

from datatunerx.client import ApiError, Invalid
from datatunerx.client.comparisons import CONFIG_MAPS, FORMS, LABEL, BadComparison, Comparison, read, rows
from datatunerx.client.uploads import upload
from datatunerx.console import dataset_form, equal, figures, kinds
from datatunerx.console.visit import Page, Refused, Visit
from datatunerx.resources.wire import API_VERSION

Json = dict[str, Any]
FORMATS = {"rows": "messages", "pairs": "preference"}


async def comparison_of(visit: Visit, name: str) -> Comparison:
    """A kept one. Refused if the name is of something else."""
    try:
        found = await visit.api.get(CONFIG_MAPS, name, visit.namespace)
        if LABEL not in (found["metadata"].get("labels") or {}):
            raise Refused("This is no comparison.")
        return read(found)
    except BadComparison as error:
        raise Refused(str(error)) from None


def _lines(comparison: Comparison, form: str, prefer: str) -> str:
    if form not in FORMS:
        raise Refused("It can be made into rows or pairs.")
    found = rows(comparison, form, prefer)
    if not found:
        raise Refused("Nothing comes of it: no vote, or nobody said anything else than the preferred model.")
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)


async def download(visit: Visit) -> Response:
    """As a file."""
    name, form = visit.query.get("saved", ""), visit.query.get("as", "")
    text = _lines(await comparison_of(visit, name), form, visit.query.get("prefer", ""))
    file = f"{re.sub(r'[^-a-z0-9.]', '-', name)}-{form}.jsonl"
    headers = {"content-disposition": f'attachment; filename="{file}"'}
    return Response(text, media_type="application/jsonl", headers=headers)


async def ask(visit: Visit) -> Response:
    """The dialog: how many rows or pairs there would be, by whom one prefers."""
    name = visit.query.get("saved", "")
    comparison = await comparison_of(visit, name)
    voted = any(question.get("vote") for question in comparison.questions)
    choices = [*([""] if voted else []), *comparison.models]
    counts = [(prefer, {form: len(rows(comparison, form, prefer)) for form in FORMS}) for prefer in choices]
    taken = {kinds.name_of(obj) for obj in await kinds.some(visit.api, "Dataset", visit.namespace)}
    free = dataset_form.name_for(name.replace(".", "-"), taken)
    prefer = "" if voted else " --prefer MODEL"
    at = equal.place(visit.namespace)
    return await visit.page(
        "compare_dataset.html", saved=name, name=free, counts=counts,
        yaml=figures.as_yaml(_body(free, f"upload://{visit.namespace}/ID/rows.jsonl", "rows")),
        commands=[
            f"dtx comparisons export {name} --as rows{prefer} rows.jsonl{at}",
            f"dtx dataset upload --test rows.jsonl --name {free}{at}",
        ],
    )  # fmt: skip


async def make(visit: Visit) -> Response:
    """Upload the lines as the visitor, and name them in a Dataset."""
    form, name = visit.form.get("as", ""), visit.form.get("name", "").strip()
    comparison = await comparison_of(visit, visit.form.get("saved", ""))
    text = _lines(comparison, form, visit.form.get("prefer", ""))
    datasets = kinds.PLURALS["Dataset"]
    try:
        trial = _body(name, f"upload://{visit.namespace}/ID/{form}.jsonl", form)
        await visit.api.create_raw(datasets, trial, visit.namespace, dry_run=True)  # before anything is kept
        uri = await _uploaded(visit, text, f"{form}.jsonl")
        await visit.api.create_raw(datasets, _body(name, uri, form), visit.namespace)
    except Invalid as error:
        said = "; ".join(f"{cause.field}: {cause.message}" for cause in error.causes) or error.message
        return await visit.page("toast.html", http=422, message=said)
    except ApiError as error:
        return await visit.page("toast.html", http=error.status or 503, message=error.message)
    return visit.go(visit.url("datasets", name))


async def _uploaded(visit: Visit, text: str, file: str) -> str:
    """The upload:// URI of the lines."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, file)
        await asyncio.to_thread(path.write_text, text, encoding="utf-8")
        return await upload(visit.api.transport, path, visit.namespace)


def _body(name: str, uri: str, form: str) -> Json:
    """Pairs are split as any data are; rows are there to score by, and nothing is trained on them."""
    splits = {"test" if form == "rows" else "train": [uri]}
    spec: Json = {"subsets": [{"name": "default", "splits": splits}], "format": FORMATS[form]}
    if form == "rows":
        spec["tags"] = ["evaluation"]
    head = {"apiVersion": API_VERSION, "kind": "Dataset", "metadata": {"name": name}}
    return head | {"spec": spec}


routes = [
    Page("/compare/rows", download),
    Page("/compare/dataset", ask),
    Page("/compare/dataset", make, ("POST",)),
]
