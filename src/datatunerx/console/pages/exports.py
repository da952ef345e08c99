"""Taking a checkpoint home: the form of an export."""

from pathlib import PurePosixPath
from typing import Any

from starlette.responses import Response

from datatunerx.client import ApiError, Invalid
from datatunerx.console import equal, figures, kinds
from datatunerx.console.visit import Page, Refused, Visit
from datatunerx.resources.enums import ExportFormat, ExportType

Json = dict[str, Any]
CHECKPOINT = "LLMCheckpoint"
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


routes = [
    Page("/exports/{name}", ask),
    Page("/exports/{name}", export, ("POST",)),
]
