"""Taking a checkpoint home: the form of an export, and its files through the browser."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from datatunerx.client import ApiError, Invalid
from datatunerx.client.api import path_of
from datatunerx.client.errors import from_answer
from datatunerx.console import equal, figures, kinds
from datatunerx.console.visit import Page, Refused, Visit
from datatunerx.resources.enums import ExportFormat, ExportType

Json = dict[str, Any]
CHECKPOINT = "LLMCheckpoint"
FILES = "llmcheckpoints/files"
PART_BYTES = 4 << 20
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/\d+")
FORMS = {
    ExportFormat.HF: "Merged into its base, as Hugging Face's tools load it",
    ExportFormat.GGUF: "One file for llama.cpp and what is built on it",
    ExportFormat.OLLAMA: "A GGUF file with a Modelfile for Ollama",
    ExportFormat.ADAPTER: "The adapter alone, in PEFT's format",
}
_STORED = {
    ExportFormat.HF: ("auto", "f32", "f16", "bf16"),
    ExportFormat.ADAPTER: ("auto",),
}
"""How weights can be stored; GGUF takes every type."""


async def ask(visit: Visit) -> Response:
    """The dialog."""
    checkpoint = await kinds.find(visit.api, CHECKPOINT, visit.name, visit.namespace)
    entry = {"name": _free("hf", "auto", checkpoint), "to": "hf", "type": "auto"}
    patch = {"spec": {"exports": [*checkpoint["spec"].get("exports", ()), entry]}}
    return await visit.page(
        "export.html",
        name=visit.name,
        forms=[(form.value, FORMS[form]) for form in FORMS],
        types=[each.value for each in ExportType],
        commands=[f"dtx export {visit.name} --to hf{equal.place(visit.namespace)}"],
        yaml=figures.as_yaml(patch),
    )


async def export(visit: Visit) -> Response:
    """Write the wish into the checkpoint; what it takes is the API's affair."""
    checkpoint = await kinds.find(visit.api, CHECKPOINT, visit.name, visit.namespace)
    form = {name: value.strip() for name, value in visit.form.items()}
    to, stored = form.get("to", ""), form.get("type", "auto")
    if to not in [each.value for each in ExportFormat]:
        raise Refused("There is no such format.")
    if stored not in _STORED.get(ExportFormat(to), [each.value for each in ExportType]):
        raise Refused("This format does not store weights so; choose auto.")
    entry: Json = {"name": _free(to, stored, checkpoint), "to": to, "type": stored}
    if uri := _place(form.get("output", "")):
        entry["uri"] = uri
    if form.get("secret"):
        entry["secret"] = form["secret"]
    if form.get("plain") == "on":
        entry["plainHttp"] = True
    version = {"metadata": {"resourceVersion": checkpoint["metadata"]["resourceVersion"]}}
    patch = version | {"spec": {"exports": [*checkpoint["spec"].get("exports", ()), entry]}}
    try:
        await visit.api.patch(kinds.PLURALS[CHECKPOINT], visit.name, patch, visit.namespace)
    except Invalid as error:
        said = "; ".join(f"{cause.field}: {cause.message}" for cause in error.causes) or error.message
        return await visit.page("toast.html", http=422, message=said)
    except ApiError as error:
        return await visit.page("toast.html", http=error.status or 503, message=error.message)
    return visit.go(visit.url("models", "ckpt", visit.name))


def _free(to: str, stored: str, checkpoint: Json) -> str:
    """A name that no export of the checkpoint has: gguf-q8-0, gguf-q8-0-2."""
    taken = {each["name"] for each in checkpoint["spec"].get("exports") or ()}
    stem = to if stored == "auto" else f"{to}-{stored}".replace("_", "-")
    return next(name for n in range(1, 1000) if (name := stem if n == 1 else f"{stem}-{n}") not in taken)


def _place(output: str) -> str:
    """The URI of a folder of the server's machine, or of a registry. Empty for the platform's own folder."""
    if not output or "://" in output:
        return output
    if not output.startswith("/"):
        raise Refused("Name a whole path that begins with /, or an address that begins with oci://.")
    return PurePosixPath(output).as_uri()


async def files(visit: Visit) -> Response:
    """What an export consists of, each file to be downloaded."""
    name = str(visit.request.path_params["export"])
    answer = await visit.api.transport.request("GET", _place_of(visit), query={"export": name})
    if answer.status >= 300:
        raise from_answer(answer.status, answer.body)
    return await visit.page(
        "export_files.html", name=visit.name, export=name, files=json.loads(answer.body)["files"],
        commands=[f"dtx pull {visit.name} {name}{equal.place(visit.namespace)}"],
    )  # fmt: skip


async def download(visit: Visit) -> Response:
    """One file named by `path`, or all of them as a tar; by Range from where a broken one stopped."""
    export, path = str(visit.request.path_params["export"]), visit.query.get("path", "")
    query = {"export": export} | ({"path": path} if path else {"archive": "tar"})
    where, asked = _place_of(visit), visit.request.headers
    headers = {name: asked[name] for name in ("range", "if-range") if name in asked}
    head = await visit.api.transport.request("HEAD", where, query=query, headers=headers)
    if head.status >= 300:
        refused = await visit.api.transport.request("GET", where, query=query, headers=headers)
        raise from_answer(refused.status, refused.body)
    span = _CONTENT_RANGE.fullmatch(head.headers.get("content-range", ""))
    start, end = (int(span[1]), int(span[2]) + 1) if span else (0, int(head.headers["content-length"]))

    async def parts() -> AsyncIterator[bytes]:
        for at in range(start, end, PART_BYTES):
            last = min(at + PART_BYTES, end) - 1
            wanted = {"range": f"bytes={at}-{last}", "if-range": head.headers["etag"]}
            part = await visit.api.transport.request("GET", where, query=query, headers=wanted)
            if part.status != 206:  # breaks off: whoever goes on is told what there is now
                raise from_answer(part.status, part.body[:1000])
            yield part.body

    file = quote(PurePosixPath(path).name or f"{visit.name}-{export}.tar", safe="")
    told = ("content-type", "content-length", "content-range", "accept-ranges", "etag")
    kept = {name: head.headers[name] for name in told if name in head.headers}
    kept["content-disposition"] = f"attachment; filename*=UTF-8''{file}"
    if visit.request.method == "HEAD":
        return Response(status_code=head.status, headers=kept)
    return StreamingResponse(parts(), head.status, headers=kept)


def _place_of(visit: Visit) -> str:
    return path_of(kinds.PLURALS[CHECKPOINT], visit.namespace, visit.name, "files")


routes = [
    Page("/exports/{name}", ask),
    Page("/exports/{name}", export, ("POST",)),
    Page("/exports/{name}/{export}", files),
    Page("/exports/{name}/{export}/download", download),
]
