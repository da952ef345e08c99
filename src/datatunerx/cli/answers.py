"""`dtx compare`: the same questions to several models at once, the answers side by side."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from datatunerx.cli.chat import JSON, events
from datatunerx.cli.comparisons import keep
from datatunerx.cli.documents import Json
from datatunerx.cli.errors import BadInput, Exit
from datatunerx.cli.models import model_named, models_of_experiment, served
from datatunerx.cli.text import MISSING, number, readable, visible
from datatunerx.client import Api
from datatunerx.client.api import path_of
from datatunerx.client.comparisons import Comparison
from datatunerx.resources import InferenceService
from datatunerx.resources.outcome import ModelRef
from datatunerx.resources.wire import now

QUESTION_KEYS = ("question", "prompt", "instruction", "input")
MAX_QUESTIONS = 1000
FORMS = (None, "json")
NARROW = 36
"""Columns of a terminal that an answer needs to be read in."""


@dataclass(frozen=True)
class Asked:
    """What is compared, and how answers are made."""

    questions: Sequence[list[Json]]
    """Messages each."""
    models: Sequence[str] = ()
    experiment: str | None = None
    settings: Json = field(default_factory=dict)
    save: str | None = None
    form: str | None = None


async def compare(api: Api, asked: Asked, namespace: str) -> Exit:
    """Exit code 1 if a model did not answer."""
    if asked.form not in FORMS:
        raise BadInput(f"-o {asked.form}: must be json")
    models = await _models(api, asked, namespace)
    if len(models) < 2:
        raise BadInput("name two models at least: --models base,job-a; or --experiment NAME")
    names = [model.name for model in models]
    compared: list[Json] = []
    if asked.save:  # a name that cannot be is told before anybody is asked
        await keep(api, asked.save, Comparison(models=names, created=now()), namespace, dry_run=True)
    async with served(api, models, namespace, "compare", _say) as service:
        for messages in asked.questions:
            shown = _shower(names, asked.form)
            with shown:
                answers = await _ask(api, service, namespace, names, messages, asked.settings, shown.event)
            compared.append({"messages": messages, "answers": [answers[name] for name in names]})
    comparison = Comparison(models=names, settings=asked.settings, created=now(), questions=compared)
    if asked.form == "json":
        print(json.dumps(comparison.dump(), indent=2, ensure_ascii=False))
    if asked.save:
        await keep(api, asked.save, comparison, namespace)
        _say(f"saved as {asked.save}; dtx comparisons export {asked.save} --as pairs --prefer MODEL FILE")
    failed = any("error" in answer for one in compared for answer in one["answers"])
    return Exit.FAILED if failed else Exit.OK


async def _models(api: Api, asked: Asked, namespace: str) -> list[ModelRef]:
    found = [await model_named(api, name, namespace) for name in asked.models]
    if asked.experiment:
        found += await models_of_experiment(api, asked.experiment, namespace)
    unique: dict[str, ModelRef] = {}
    for model in found:
        if unique.setdefault(model.name, model).kind != model.kind:
            raise BadInput(
                f"an LLM and a checkpoint are both called {model.name}; rename one to compare them"
            )
    return list(unique.values())


async def _ask(
    api: Api,
    service: str,
    namespace: str,
    names: Sequence[str],
    messages: list[Json],
    settings: Json,
    show: Callable[[Json], None],
) -> dict[str, Json]:
    """One answer, or an error, of each model."""
    body = json.dumps({"models": list(names), "messages": messages, **settings}).encode()
    where = path_of(InferenceService, namespace, service, "compare")
    found: dict[str, Json] = {}
    async for event in events(api.transport.stream(where, body=body, headers=JSON)):
        show(event)
        if "delta" not in event:
            kept = event.get("answer") or {"error": event.get("error")}
            found[event["model"]] = {"model": event["model"], **kept}
    lost = {"error": {"message": "the server said nothing of it"}}
    return {name: found.get(name, {"model": name, **lost}) for name in names}


# Questions


def questions_of(question: str | None, file: Path | None, system: str | None) -> list[list[Json]]:
    """Messages of each question. Raises BadInput, which names the file and the line."""
    if (question is None) == (file is None):
        raise BadInput('give a question, as in dtx compare --models a,b "Why?", or --file FILE')
    first: list[Json] = [{"role": "system", "content": system}] if system else []
    if question is not None:
        return [[*first, {"role": "user", "content": question}]]
    assert file is not None
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # other breaks may stand inside a text
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: {error}") from None
    rows = file.suffix in (".jsonl", ".ndjson")
    found = []
    for number_, line in enumerate(lines, 1):
        if line.strip():
            asked = _row(line, f"{file}:{number_}") if rows else [{"role": "user", "content": line}]
            found.append([*first, *asked])
    if not found:
        raise BadInput(f"{file}: holds no question")
    if len(found) > MAX_QUESTIONS:
        raise BadInput(f"{file}: {len(found)} questions; at most {MAX_QUESTIONS} at once")
    return found


def _row(line: str, place: str) -> list[Json]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadInput(f"{place}: not JSON: {error}") from None
    if isinstance(row, str):
        return [{"role": "user", "content": row}]
    messages = row.get("messages") if isinstance(row, dict) else None
    if messages is not None:
        return _talk(messages, place)
    text = next((row[key] for key in QUESTION_KEYS if isinstance(row, dict) and row.get(key)), None)
    if not isinstance(text, str):
        raise BadInput(f"{place}: write a string, messages, or one of {', '.join(QUESTION_KEYS)}")
    return [{"role": "user", "content": text}]


def _talk(messages: Any, place: str) -> list[Json]:
    """The messages without the last answer."""
    is_talk = isinstance(messages, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages
    )
    asked = messages[:-1] if is_talk and messages and messages[-1]["role"] == "assistant" else messages
    if not is_talk or not asked:
        raise BadInput(f"{place}: messages: must be a list of {{role, content}} with a question in it")
    return list(asked)


# Showing


class Quiet:
    """Shows nothing: the document at the end says it all."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None

    def event(self, event: Json) -> None:
        del event


class Plain(Quiet):
    """Whole answers under each other, in the order in which they are done."""

    def event(self, event: Json) -> None:
        if "delta" not in event:
            print(f"== {event['model']}  {facts(event)}\n{readable(_text_of(event))}\n", flush=True)


class Side(Quiet):
    """A panel for each model, filled as its answer comes."""

    def __init__(self, names: Sequence[str], console: Console) -> None:
        self._texts = dict.fromkeys(names, "")
        self._facts = dict.fromkeys(names, "")
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, vertical_overflow="visible")

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *_: object) -> None:
        self._live.update(self._drawn(), refresh=True)
        self._live.stop()

    def event(self, event: Json) -> None:
        name = event["model"]
        if "delta" in event:
            self._texts[name] += event["delta"]
        else:
            self._texts[name], self._facts[name] = _text_of(event), facts(event)
        self._live.update(self._drawn())

    def _drawn(self) -> Columns:
        width = max(NARROW, self._console.width // len(self._texts) - 1)
        return Columns([self._panel(name, width) for name in self._texts])

    def _panel(self, name: str, width: int) -> Panel:
        body = Group(Text(readable(self._texts[name])), Text(self._facts[name], style="dim"))
        return Panel(body, title=Text(name), width=width)


def _shower(names: Sequence[str], form: str | None) -> Quiet:
    if form is not None:
        return Quiet()
    console = Console()
    return Side(names, console) if console.is_terminal else Plain()


def _text_of(event: Json) -> str:
    if "error" in event:
        return f"error: {event['error'].get('message')}"
    return str(event["answer"]["text"])


def facts(event: Json) -> str:
    """What made the answer and what it took, on one line."""
    if "error" in event:
        return MISSING
    answer = event["answer"]
    identity = answer.get("identity") or {}
    digests = [
        f"{part} {str(identity[part])[:12]}" for part in ("base", "adapter", "template") if identity.get(part)
    ]
    seed = [f"seed {identity['seed']}"] if identity.get("seed") is not None else []
    speed = number(round(answer["tokensPerSecond"], 1))
    took = f"{answer['seconds']:.2f} s, {answer.get('tokens', MISSING)} tokens, {speed} tokens/s"
    return visible(", ".join([*digests, *seed, took]))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
