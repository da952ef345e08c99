"""Comparisons that are kept, as ConfigMaps, and what can be made of them: rows to score by, pairs."""

import json
from typing import Any

from pydantic import Field, ValidationError

from datatunerx.client.api import Api, Plural
from datatunerx.resources.wire import GROUP, Wire

Json = dict[str, Any]
CONFIG_MAPS = Plural("", "v1", "configmaps")
LABEL = f"{GROUP}/comparison"
KEY = "comparison.json"
MAX_BYTES = 900_000
"""Of one comparison: a ConfigMap holds a little more on any server."""
FORMS = ("rows", "pairs")


class BadComparison(ValueError):
    """It is too large for one object, or is no comparison; the message says what to do."""


class Comparison(Wire):
    """Questions, and what each model answered."""

    models: list[str]
    settings: dict[str, Any] = {}
    created: str
    questions: list[dict[str, Any]] = Field(default_factory=list)
    """messages, and answers in the order of models: text, identity, seconds, tokens; or error. An answer that
    was given to other messages than the question's, later in a talk, has its own. `vote` is the model that
    was preferred, or "" for none of them; `blind` says whether its voter did not know whose answer it was."""


def body_of(name: str, comparison: Comparison) -> Json:
    """The ConfigMap that holds it. Raises BadComparison if it is too large."""
    text = json.dumps(comparison.dump(), ensure_ascii=False)
    if (size := len(text.encode())) > MAX_BYTES:
        raise BadComparison(
            f"the comparison takes {size:,} bytes and one object holds {MAX_BYTES:,}; "
            "ask fewer questions at once, or keep the output of -o json"
        )
    metadata = {"name": name, "labels": {LABEL: "true"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {KEY: text}}


def read(config_map: Json) -> Comparison:
    """What a ConfigMap holds. Raises BadComparison."""
    try:
        return Comparison.model_validate_json((config_map.get("data") or {}).get(KEY, ""))
    except ValidationError as error:
        name = config_map["metadata"]["name"]
        raise BadComparison(f"ConfigMap {name} holds no comparison: {error.errors()[0]['msg']}") from None


async def kept(api: Api, namespace: str) -> tuple[list[tuple[str, Comparison]], list[str]]:
    """Every comparison of a namespace with its name; and what is wrong with those that cannot be read."""
    good, bad = [], []
    for each in await api.list(CONFIG_MAPS, namespace, labels=f"{LABEL}=true"):
        try:
            good.append((each["metadata"]["name"], read(each)))
        except BadComparison as error:
            bad.append(str(error))
    return good, bad


def rows(comparison: Comparison, form: str, prefer: str = "") -> list[Json]:
    """Evaluation rows or preference pairs; without `prefer`, what was voted for is what is right."""
    make = _evaluation_row if form == "rows" else _preference_pairs
    found: list[Json] = []
    for question in comparison.questions:
        if wanted := prefer or question.get("vote"):
            found += make(question, wanted)
    return found


def _evaluation_row(question: Json, prefer: str) -> list[Json]:
    """The question with the preferred model's answer as the reference."""
    answer = _texts(question).get(prefer)
    return [{"messages": [*answer[0], {"role": "assistant", "content": answer[1]}]}] if answer else []


def _preference_pairs(question: Json, prefer: str) -> list[Json]:
    """The preferred answer against each other one to the same messages that differs; each text once."""
    texts = _texts(question)
    messages, chosen = texts.pop(prefer, ([], ""))
    if not chosen:
        return []
    plain = len(messages) == 1
    prompt = messages[0]["content"] if plain else messages
    pairs: list[Json] = []
    others = [text for asked, text in texts.values() if asked == messages and text and text != chosen]
    for rejected in dict.fromkeys(others):
        sides: tuple[Any, Any] = (chosen, rejected)
        if not plain:  # a prompt of messages is continued by messages
            sides = ([_said(chosen)], [_said(rejected)])
        pairs.append({"prompt": prompt, "chosen": sides[0], "rejected": sides[1]})
    return pairs


def _said(text: str) -> Json:
    return {"role": "assistant", "content": text}


def _texts(question: Json) -> dict[str, tuple[list[Json], str]]:
    """What each model was asked and answered, without the errors."""
    return {
        answer["model"]: (answer.get("messages") or question["messages"], text)
        for answer in question["answers"]
        if (text := answer.get("text", "").strip())
    }
