"""Says what is wrong with a manifest before it is sent: file, object, field, what was found, the fix."""

import json
import re
from collections.abc import Sequence
from difflib import get_close_matches
from glob import iglob
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from datatunerx.cli.documents import Document, Json
from datatunerx.cli.errors import BadInput
from datatunerx.resources.kinds import BY_NAME
from datatunerx.resources.wire import API_VERSION, GROUP

PACKAGE, HUB = "pkg", "hf"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
SCHEMES = ("file", HUB, PACKAGE, "s3", "http", "https", "modelscope", "upload")
MODEL_SCHEMES = (*SCHEMES, "checkpoint")


def checked(documents: Sequence[Document]) -> list[Json]:
    """The objects, ready to send: relative paths resolved. BadInput lists every fault of every document."""
    faults: list[str] = []
    ready: list[Json] = []
    for document in documents:
        body = json.loads(json.dumps(document.body))  # aliases become copies
        found = problems(body)
        if not found and document.folder is not None:
            found = resolve_paths(body, document.folder)
        faults += [f"{document.title}: {text}" for text in found]
        ready.append(body)
    if faults:
        raise BadInput("\n".join(faults))
    return ready


def problems(body: Json) -> list[str]:
    """What is wrong with one object, field by field. Kinds of other groups are the server's to judge."""
    version, kind = body.get("apiVersion"), body.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        missing = "apiVersion" if not isinstance(version, str) else "kind"
        return [f"{missing}: missing; an object begins with apiVersion: {API_VERSION} and its kind"]
    metadata = body.get("metadata")
    if not isinstance(metadata, dict) or not (metadata.get("name") or metadata.get("generateName")):
        return ["metadata.name: missing; give the object a name"]
    if name := metadata.get("name"):
        if not isinstance(name, str):
            return [f"metadata.name: must be text, found {_shown(name)}; put it in quotes"]
        if len(name) > 253 or not NAME.fullmatch(name):
            rule = "at most 253 of a-z, 0-9, - and ., beginning and ending with a letter or digit"
            return [f"metadata.name: must be {rule}, found {_shown(name)}"]
    if version.partition("/")[0] != GROUP:
        return []
    if version != API_VERSION:
        return [f"apiVersion: {version} is not known here; use {API_VERSION}"]
    if kind not in BY_NAME:
        return [f"kind: {kind} is not a kind of {GROUP}{did_you_mean(kind, list(BY_NAME))}"]
    model = BY_NAME[kind].model
    try:
        # strict: text is not a number here, as it is not one for the server
        model.model_validate_json(json.dumps(body), strict=True)
    except ValidationError as error:
        return [_told(model, detail) for detail in error.errors(include_url=False)]
    return []


def _told(model: type[BaseModel], detail: ErrorDetails) -> str:
    where = field_path(detail["loc"])
    found = f"found {_shown(detail['input'])}"
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            known = field_names(model, detail["loc"][:-1])
            return f"{where}: unknown field{did_you_mean(str(detail['loc'][-1]), known)}"
        case "missing":
            return f"{where}: missing; it is required"
        case "float_type" | "float_parsing":
            return f"{where}: must be a number, {found}"
        case "int_type" | "int_parsing" | "int_from_float":
            return f"{where}: must be a whole number, {found}"
        case "bool_type" | "bool_parsing":
            return f"{where}: must be true or false, {found}"
        case "string_type":
            return f"{where}: must be text, {found}; put it in quotes"
        case "list_type":
            return f"{where}: must be a list, {found}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{where}: must be an object with fields of its own, {found}"
        case "enum" | "literal_error":
            words = [part.strip(" '") for part in context["expected"].replace(" or ", ", ").split(",")]
            close = did_you_mean(str(detail["input"]), words).removeprefix(f"; known are: {', '.join(words)}")
            return f"{where}: must be one of {', '.join(words)}, {found}{close}"
        case "string_pattern_mismatch":
            return f"{where}: must match {context['pattern']}, {found}"
    message = detail["msg"].removeprefix("Input should ").removeprefix("Value error, ")
    return f"{where}: {'must ' if detail['msg'].startswith('Input should ') else ''}{message}, {found}"


def field_path(loc: Sequence[str | int]) -> str:
    """spec.subsets[0].splits.train"""
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path or "the object"


def field_names(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """Wire names of the fields at a place; empty where any name is allowed."""
    here: Any = model
    for part in loc:
        if isinstance(part, str) and isinstance(here, type) and issubclass(here, BaseModel):
            here = next((f.annotation for f in here.model_fields.values() if f.alias == part), None)
        here = _document_in(here)
    if isinstance(here, type) and issubclass(here, BaseModel):
        return [field.alias or name for name, field in here.model_fields.items()]
    return []


def _document_in(annotation: Any) -> Any:
    """The model inside Optional, Annotated and list."""
    while not isinstance(annotation, type) or get_origin(annotation) is not None:
        inner = [a for a in get_args(annotation) if a is not type(None)]
        if not inner:
            return None
        is_union = get_origin(annotation) in (Union, UnionType)
        annotation = next((a for a in inner if isinstance(a, type)), inner[0]) if is_union else inner[0]
    return annotation


def resolve_paths(body: Json, folder: Path) -> list[str]:
    """Make the file paths in a Dataset or an LLM whole, from the folder of its manifest. Returns faults."""
    faults: list[str] = []
    if body.get("apiVersion") != API_VERSION:
        return faults
    if body["kind"] == "Dataset":
        for i, subset in enumerate(body["spec"].get("subsets", [])):
            for split, uris in subset.get("splits", {}).items():
                for n, uri in enumerate(uris):
                    where = f"spec.subsets[{i}].splits.{split}[{n}]"
                    uris[n] = _resolved(uri, folder, where, faults, SCHEMES)
    elif body["kind"] == "LLM":
        body["spec"]["source"] = model_uri(body["spec"]["source"], folder, "spec.source", faults)
    return faults


def model_uri(source: str, folder: Path, where: str, faults: list[str]) -> str:
    """A model's URI: a path becomes file://; a bare org/name must say that it is on the hub."""
    if "://" not in source and not source.startswith((".", "/", "~")) and not (folder / source).exists():
        faults.append(
            f"{where}: {_shown(source)} is neither a URI nor a path here; "
            f"write {HUB}://{source} for the Hugging Face hub, or ./{source} for a folder"
        )
        return source
    return _resolved(source, folder, where, faults, MODEL_SCHEMES)


def _resolved(uri: str, folder: Path, where: str, faults: list[str], known: Sequence[str]) -> str:
    if "://" in uri:
        scheme = urlsplit(uri).scheme
        if scheme not in known:
            faults.append(f"{where}: {scheme}:// is not known{did_you_mean(scheme, known)}")
        return uri
    path = (folder / Path(uri).expanduser()).resolve()
    if not path.exists() and not next(iglob(str(path), recursive=True), None):
        faults.append(f"{where}: no such file: {path}")
    return path.as_uri()


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A tail for an error: the nearest known word, else all of them."""
    # without regard to case, since learningrate is the usual slip
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    if close:
        return f"; did you mean {by_lower[close[0]]}?"
    return f"; known are: {', '.join(known)}" if known else ""


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
