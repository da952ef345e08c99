"""Rounds of a comparison: one question, every column's answer, a vote. As a page and a ConfigMap keep them.

A round is a question of a `Comparison` with an `id`, so that keeping it twice keeps it once.
"""

import random
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datatunerx.client.comparisons import Comparison

Json = dict[str, Any]
MAX_TOKENS, TEMPERATURE = 256, 0.0
DRAWS = 1_000_000
"""Seeds are below it."""


@dataclass(frozen=True)
class Asked:
    """What a form asks."""

    question: str
    models: tuple[str, ...]
    """In the order of the columns, by the names that services have for them."""
    system: str = ""
    max_tokens: int = MAX_TOKENS
    temperature: float = TEMPERATURE
    seed: int = 0
    blind: bool = False
    remember: bool = False
    """Whether each model is told what it and the asker have said so far."""

    @property
    def settings(self) -> Json:
        return {"max_tokens": self.max_tokens, "temperature": self.temperature, "seed": self.seed}


def asked_of(form: Mapping[str, str], models: Sequence[str]) -> Asked:
    """Read a form. ValueError has a text of the catalogue and its values, and names the field."""
    question = form.get("question", "").strip()
    if not question:
        raise ValueError("Write a question.", {})
    return Asked(
        question,
        tuple(models),
        form.get("system", "").strip(),
        int(_number(form, "max_tokens", MAX_TOKENS, 1, 100_000)),
        _number(form, "temperature", TEMPERATURE, 0, 2),
        int(_number(form, "seed", 0, 0, 2**31 - 1)),
        form.get("blind") == "on",
        form.get("remember") == "on" and form.get("blind") != "on",
    )


def _number(form: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    text = form.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = high + 1
    if not low <= value <= high:
        values = {"name": name, "low": f"{low:g}", "high": f"{high:g}"}
        raise ValueError("{name} must be a number from {low} to {high}.", values)
    return value


def begin(asked: Asked, before: Sequence[Json], draw: random.Random | None = None) -> Json:
    """A round without answers; a blind one has its columns shuffled."""
    order = list(asked.models)
    if asked.blind:
        (draw or random.SystemRandom()).shuffle(order)
    first = [{"role": "system", "content": asked.system}] if asked.system else []
    last = {"role": "user", "content": asked.question}
    answers: list[Json] = []
    for model in order:
        said = _said(model, before) if asked.remember else []
        answers.append({"model": model} | ({"messages": [*first, *said, last]} if said else {}))
    found: Json = {"id": secrets.token_hex(6), "messages": [*first, last], "answers": answers}
    return found | {"settings": asked.settings} | ({"blind": True} if asked.blind else {})


def _said(model: str, before: Sequence[Json]) -> list[Json]:
    """What was said with this model in the rounds of this talk; a question it did not answer is left out."""
    turns: list[Json] = []
    for round in before:
        answer = next((a for a in round["answers"] if a["model"] == model and a.get("text")), None)
        if answer:
            turns += [round["messages"][-1], {"role": "assistant", "content": answer["text"]}]
    return turns


def groups(round: Json) -> list[tuple[list[Json], list[str]]]:
    """(messages, models that are asked them): one call of the server each."""
    found: list[tuple[list[Json], list[str]]] = []
    for answer in round["answers"]:
        messages = answer.get("messages") or round["messages"]
        same = next((names for asked, names in found if asked == messages), None)
        if same is None:
            found.append((messages, [answer["model"]]))
        else:
            same.append(answer["model"])
    return found


def answered(round: Json, events: Mapping[str, Json]) -> Json:
    """The round with each model's answer or error in place."""
    lost = {"error": {"message": "the server said nothing of it"}}
    answers = [
        answer | (events.get(answer["model"], {}).get("answer") or _error(events.get(answer["model"], lost)))
        for answer in round["answers"]
    ]
    return round | {"answers": answers}


def _error(event: Json) -> Json:
    return {"error": event.get("error") or {"message": "the server said nothing of it"}}


def hidden(round: Json) -> bool:
    """Whether nobody may see yet whose answer is whose."""
    return bool(round.get("blind")) and "vote" not in round


def voted(rounds: Iterable[Json], id: str, place: int) -> list[Json]:
    """The rounds with a vote for the answer in that place; below 0 for none of them.

    ValueError if there is no such round or answer, or it was voted on blindly: that vote stands.
    """
    found = []
    seen = False
    for round in rounds:
        if round["id"] == id:
            seen = True
            if round.get("blind") and "vote" in round:
                raise ValueError("This vote was given blindly, and stands.")
            if place >= len(round["answers"]):
                raise ValueError("There is no such answer.")
            round = round | {"vote": round["answers"][place]["model"] if place >= 0 else ""}
        found.append(round)
    if not seen:
        raise ValueError("There is no such round.")
    return found


def tally(rounds: Iterable[Json], models: Sequence[str]) -> list[tuple[str, int]]:
    """Votes of each model, the most first; "" is none of them. Empty before the first vote."""
    votes = [round["vote"] for round in rounds if "vote" in round]
    if not votes:
        return []
    counted = [(model, votes.count(model)) for model in models]
    none = [("", votes.count(""))] if "" in votes else []
    return sorted(counted, key=lambda each: -each[1]) + none


def merged(kept: Comparison | None, models: Sequence[str], rounds: Sequence[Json], now: str) -> Comparison:
    """A comparison with these rounds too; one that it has already is replaced.

    A vote stays until there is another, and a blind one stays."""
    whole = kept or Comparison(models=list(models), created=now)
    there = {str(question.get("id") or n): question for n, question in enumerate(whole.questions)}
    for round in rounds:
        before = there.get(round["id"], {})
        stands = "vote" in before and ("vote" not in round or round.get("blind"))
        there[round["id"]] = round | ({"vote": before["vote"]} if stands else {})
    names = list(dict.fromkeys([*whole.models, *models]))
    settings = rounds[-1].get("settings", {}) if rounds else whole.settings
    return whole.model_copy(update={"models": names, "settings": settings, "questions": list(there.values())})


def whole(round: Any) -> Json | None:
    """A kept question as a round, if it is one: others may have written it."""
    if not isinstance(round, dict) or not isinstance(round.get("answers"), list):
        return None
    if not all(isinstance(answer, dict) and answer.get("model") for answer in round["answers"]):
        return None
    messages = round.get("messages")
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        return None
    return round
