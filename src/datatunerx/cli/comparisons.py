"""Comparisons that were kept, as ConfigMaps, and what can be made of them: rows to score by, pairs."""

import json
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from datatunerx.cli.documents import Json
from datatunerx.cli.errors import BadInput, CommandError, Exit
from datatunerx.cli.text import aligned
from datatunerx.client import AlreadyExists, Api, NotFound, Plural
from datatunerx.resources.wire import GROUP, Wire

CONFIG_MAPS = Plural("", "v1", "configmaps")
LABEL = f"{GROUP}/comparison"
KEY = "comparison.json"
MAX_BYTES = 900_000
"""Of one comparison: a ConfigMap holds a little more on any server."""


class Comparison(Wire):
    """Questions, and what each model answered."""

    models: list[str]
    settings: dict[str, Any] = {}
    created: str
    questions: list[dict[str, Any]] = Field(default_factory=list)
    """messages, and answers in the order of models: text, identity, seconds, tokens; or error."""


async def keep(api: Api, name: str, comparison: Comparison, namespace: str, *, dry_run: bool = False) -> None:
    """Save it under a name that is free, or see whether it can be. Raises CommandError, also if too large."""
    text = json.dumps(comparison.dump(), ensure_ascii=False)
    if (size := len(text.encode())) > MAX_BYTES:
        raise CommandError(
            f"the comparison takes {size:,} bytes and one object holds {MAX_BYTES:,}; "
            "ask fewer questions at once, or keep the output of -o json"
        )
    metadata = {"name": name, "labels": {LABEL: "true"}}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {KEY: text}}
    try:
        await api.create_raw(CONFIG_MAPS, body, namespace, dry_run=dry_run)
    except AlreadyExists:
        raise CommandError(f"--save {name}: a ConfigMap of that name exists; choose another name") from None


async def list_kept(api: Api, namespace: str) -> Exit:
    rows = [["NAME", "MODELS", "QUESTIONS", "CREATED"]]
    for found in await api.list(CONFIG_MAPS, namespace, labels=f"{LABEL}=true"):
        one = _read(found)
        rows.append([found["metadata"]["name"], ",".join(one.models), str(len(one.questions)), one.created])
    print(
        "\n".join(aligned(rows)) if len(rows) > 1 else "No comparisons. Keep one: dtx compare --save NAME ..."
    )
    return Exit.OK


async def export(api: Api, name: str, form: str, prefer: str, file: Path, namespace: str) -> Exit:
    """Write the rows; a file that is there is not written over."""
    if form not in ("rows", "pairs"):
        raise BadInput(f"--as {form}: must be rows or pairs")
    try:
        comparison = _read(await api.get(CONFIG_MAPS, name, namespace))
    except NotFound:
        raise CommandError(f'no comparison is called "{name}"; see dtx comparisons list') from None
    if prefer not in comparison.models:
        raise BadInput(f"--prefer {prefer}: the comparison has {', '.join(comparison.models)}")
    rows = (evaluation_rows if form == "rows" else preference_pairs)(comparison, prefer)
    if not rows:
        raise CommandError(
            f"{name} gives no {form}: {prefer} answered nothing that the others did not say too"
        )
    try:
        with file.open("x", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except FileExistsError:
        raise BadInput(f"{file} exists; name another file") from None
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from None
    print(f"{file}: {len(rows)} {form} of {len(comparison.questions)} questions, {prefer} preferred")
    return Exit.OK


def evaluation_rows(comparison: Comparison, prefer: str) -> list[Json]:
    """Each question with the preferred model's answer as the reference."""
    return [
        {"messages": [*one["messages"], {"role": "assistant", "content": text}]}
        for one in comparison.questions
        if (text := _texts(one).get(prefer))
    ]


def preference_pairs(comparison: Comparison, prefer: str) -> list[Json]:
    """The preferred answer against each other one that differs; each rejected text once."""
    pairs: list[Json] = []
    for one in comparison.questions:
        texts = _texts(one)
        chosen = texts.pop(prefer, None)
        if not chosen:
            continue
        plain = len(one["messages"]) == 1
        prompt = one["messages"][0]["content"] if plain else one["messages"]
        for rejected in dict.fromkeys(text for text in texts.values() if text and text != chosen):
            sides = (chosen, rejected)
            if not plain:  # a prompt of messages is continued by messages
                sides = tuple([{"role": "assistant", "content": side}] for side in sides)  # type: ignore[assignment]
            pairs.append({"prompt": prompt, "chosen": sides[0], "rejected": sides[1]})
    return pairs


def _texts(question: Json) -> dict[str, str]:
    """What was answered, by model, without the errors."""
    return {answer["model"]: answer["text"].strip() for answer in question["answers"] if "text" in answer}


def _read(config_map: Json) -> Comparison:
    name = config_map["metadata"]["name"]
    try:
        return Comparison.model_validate_json((config_map.get("data") or {}).get(KEY, ""))
    except ValidationError as error:
        raise CommandError(f"ConfigMap {name} holds no comparison: {error.errors()[0]['msg']}") from None
