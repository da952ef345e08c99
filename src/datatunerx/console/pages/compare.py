"""Compare: the curves of some models, what differs between them, and their answers to one question."""

import functools
import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response, StreamingResponse

from datatunerx.client import ApiError, NotFound
from datatunerx.client.comparisons import (
    CONFIG_MAPS,
    BadComparison,
    Comparison,
    body_of,
    kept,
    read,
)
from datatunerx.client.services import NotLoaded
from datatunerx.console import equal, kinds, render
from datatunerx.console.comparing import asking, columns, marks, rounds, settings
from datatunerx.console.comparing.columns import BASE, Column, World
from datatunerx.console.pages.compare_data import comparison_of
from datatunerx.console.visit import Page, Refused, Visit
from datatunerx.resources.wire import now

Json = dict[str, Any]
TABS = (("answers", "Answers"), ("curves", "Curves"), ("settings", "Settings"))
PLURAL = "inferenceservices"
SUGGESTED = 4
"""Prompts of the trainings that an empty talk offers."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,60}[a-z0-9])?")


@dataclass(frozen=True)
class Table:
    """Who is compared on a page."""

    columns: list[Column]
    notes: list[tuple[str, str]]
    """(what a name is, the name): names that mean nothing, or two things."""
    world: World

    @property
    def asked(self) -> list[Column]:
        """Those who can answer."""
        return [column for column in self.columns if column.model is not None]

    @property
    def base(self) -> str:
        """Against whom answers are marked."""
        return next((c.name for c in self.asked if c.kind == BASE), self.asked[0].name if self.asked else "")

    @functools.cached_property
    def _hues(self) -> dict[str, int]:
        return columns.hues(self.columns, self.world)

    def series(self, name: str) -> int:
        """The colour of a model, from 1; 0 is grey."""
        return self._hues.get(name, 0)

    def url(self, visit: Visit, *, without: str = "", **query: str) -> str:
        """The page with these columns, but for one."""
        refs = ",".join(column.ref for column in self.columns if column.ref != without)
        return visit.url("compare", **({"models": refs} if refs else {}), **query)


async def _table(visit: Visit, refs: Sequence[str]) -> Table:
    world = await World.look(visit.api, visit.namespace, visit.say)
    found, unknown = columns.resolve(refs, world)
    notes = [("There is no model, job, experiment or service of this name:", ref) for ref in unknown]
    single: dict[str, Column] = {}
    for column in found:
        if single.setdefault(column.name, column) is not column:
            notes.append(("A base model and a checkpoint have the same name; rename one:", column.name))
    return Table(list(single.values()), notes, world)


async def show(visit: Visit) -> Response:
    query = visit.request.query_params
    targets = columns.split(query.getlist("target"))
    if targets:  # what was ticked in a list becomes a URL that can be shared
        return visit.go(visit.url("compare", models=",".join(targets)))
    saved = query.get("saved", "")
    comparison = await comparison_of(visit, saved) if saved else None
    refs = columns.split(query.getlist("models"))
    if not refs and comparison is not None:
        refs = comparison.models
    table = await _table(visit, refs)
    if not table.columns:
        return await _choose(visit, table)
    tab = query.get("tab", "")
    tab = tab if tab in dict(TABS) else TABS[0][0]
    context = await (_settings if tab == "settings" else _curves if tab == "curves" else _answers)(
        visit, table
    )
    found = [whole for each in (comparison.questions if comparison else ()) if (whole := rounds.whole(each))]
    return await visit.page(
        "compare.html",
        table=table,
        tab=tab,
        tabs=[(name, visit.say(title), table.url(visit, tab=name, **_saved(saved))) for name, title in TABS],
        more=[each for each in columns.choices(table.world) if each[1]],
        chosen={column.ref for column in table.columns},
        talk=_drawn(visit, table, found, saved),
        commands=_commands(table, visit.namespace),
        **context,
    )


async def _choose(visit: Visit, table: Table) -> Response:
    faults: list[str] = []
    found: list[tuple[str, Comparison]] = []
    try:
        found, faults = await kept(visit.api, visit.namespace)
    except ApiError as error:
        if error.status != 403:
            raise
    found.sort(key=lambda each: each[1].created, reverse=True)
    choices = columns.choices(table.world)
    return await visit.page("compare_choose.html", table=table, choices=choices, kept=found, faults=faults)


async def _answers(visit: Visit, table: Table) -> Json:
    tunes = await kinds.some(visit.api, kinds.FINETUNE, visit.namespace)
    jobs = {column.job for column in table.columns}
    prompts = [
        str(sample["prompt"])
        for tune in tunes
        if kinds.name_of(tune) in jobs or kinds.owner(tune, kinds.JOB) in jobs
        for sample in kinds.status_of(tune).get("samples") or ()
    ]
    return {"suggested": list(dict.fromkeys(prompts))[:SUGGESTED], "may_ask": _may_ask(visit)}


async def _curves(visit: Visit, table: Table) -> Json:
    return {"jobs": list(dict.fromkeys(column.job for column in table.columns if column.job))}


async def _settings(visit: Visit, table: Table) -> Json:
    tunes = await kinds.some(visit.api, kinds.FINETUNE, visit.namespace)
    groups = await kinds.some(visit.api, "Hyperparameter", visit.namespace)
    trained = [column for column in table.columns if column.kind != BASE]
    by_job = {kinds.owner(tune, kinds.JOB) or kinds.name_of(tune): tune for tune in tunes}
    by_name = {kinds.name_of(group): group for group in groups}
    unlike, came, same = settings.differences(trained, table.world, by_job, by_name)
    return {"trained": trained, "unlike": unlike, "came": came, "same": same}


def _may_ask(visit: Visit) -> bool:
    return visit.may("create", f"{PLURAL}/compare") and visit.may("create", PLURAL)


def _saved(name: str) -> dict[str, str]:
    return {"saved": name} if name else {}


def _commands(table: Table, namespace: str) -> list[str]:
    names = ",".join(column.name for column in table.asked)
    at = equal.place(namespace)
    if len(table.asked) == 1:
        return [f"dtx chat {names}{at}"]
    return [f'dtx compare --models {names} "QUESTION" --save NAME{at}'] if table.asked else []


# Answers


def _drawn(visit: Visit, table: Table, talk: Sequence[Json], saved: str) -> Json:
    """What the template of a talk needs."""
    named = saved or f"talk-{visit.now:%m%d-%H%M%S}"
    return {
        "rounds": [_round(visit, table, each) for each in talk],
        "tally": rounds.tally(talk, [column.name for column in table.asked]),
        "voted": [each["vote"] for each in talk if each.get("vote")] != [],
        "models": list(dict.fromkeys(answer["model"] for each in talk for answer in each["answers"])),
        "saved": saved,
        "name": named,
        "may_keep": visit.may("create", CONFIG_MAPS.plural, ""),
        "commands": [
            f"dtx comparisons export {named} --as {form}{prefer} {form}.jsonl{equal.place(visit.namespace)}"
            for form, prefer in (("rows", " --prefer MODEL"), ("pairs", " --prefer MODEL"))
        ],
    }


def _round(visit: Visit, table: Table, round: Json, *, sealed: bool = True) -> Json:
    """A round as its template draws it; of a blind one before its vote nothing says who is who."""
    blind = rounds.hidden(round)
    texts = {answer["model"]: str(answer.get("text") or "") for answer in round["answers"]}
    base = table.base if table.base in texts else round["answers"][0]["model"]
    drawn = []
    for place, answer in enumerate(round["answers"]):
        name, text = answer["model"], texts[answer["model"]]
        against = text and texts.get(base) and name != base and not blind
        drawn.append(
            {
                "place": place,
                "letter": chr(65 + place),
                "name": "" if blind else name,
                "series": 0 if blind else table.series(name),
                "base": not blind and any(c.name == name and c.kind == BASE for c in table.columns),
                "pieces": marks.pieces(texts[base], text) if against else [marks.Piece("same", text)],
                "error": (answer.get("error") or {}).get("message", ""),
                "took": [] if blind or not text else took(answer),
                "facts": [] if blind or not text else facts(answer, round.get("settings") or {}),
                "cut": answer.get("finishReason") == "length",
                "voted": round.get("vote") == name,
            }
        )
    system = round["messages"][0] if round["messages"][0].get("role") == "system" else {}
    return {
        "id": str(round.get("id") or ""),
        "question": str(round["messages"][-1].get("content") or ""),
        "system": str(system.get("content") or ""),
        "answers": drawn,
        "blind": bool(round.get("blind")),
        "hidden": blind,
        "vote": round.get("vote"),
        "turns": max(len(answer.get("messages") or ()) for answer in round["answers"]),
        "sealed": visit.sessions.hide(round) if sealed and round.get("id") else "",
    }


def took(answer: Json) -> list[tuple[str, Json]]:
    """What an answer took: texts of the catalogue with their figures."""
    found: list[tuple[str, Json]] = []
    if answer.get("seconds") is not None:
        found.append(("{n} s", {"n": f"{answer['seconds']:.2f}"}))
    if answer.get("firstTokenSeconds") is not None:
        found.append(("first after {n} s", {"n": f"{answer['firstTokenSeconds']:.2f}"}))
    if answer.get("tokens") is not None:
        found.append(("{n} tokens", {"n": answer["tokens"]}))
    if answer.get("tokensPerSecond") is not None:
        found.append(("{n} tokens/s", {"n": f"{answer['tokensPerSecond']:.1f}"}))
    return found


def facts(answer: Json, asked: Json) -> list[tuple[str, str]]:
    """What made an answer: (word of the catalogue, value)."""
    identity = answer.get("identity") or {}
    found = [
        (word, str(identity[part]).removeprefix("sha256:")[:12])
        for word, part in (("base", "base"), ("adapter", "adapter"), ("template", "template"))
        if identity.get(part)
    ]
    seed = identity.get("seed", asked.get("seed"))
    named = (("seed", seed), ("temperature", asked.get("temperature")), ("at most", asked.get("max_tokens")))
    return found + [(word, f"{value:g}") for word, value in named if isinstance(value, int | float)]


async def ask(visit: Visit) -> Response:
    """The answers of all columns, as lines of JSON: `begin` and `end` are HTML, between them is text."""
    if not _may_ask(visit):
        raise Refused("You may not ask models here.")
    table = await _table(visit, columns.split([visit.form.get("models", "")]))
    if not table.asked:
        return _line({"fault": visit.say("None of these models can be asked.")}, 422)
    before = _rounds(visit)
    try:
        asked = rounds.asked_of(visit.form, [column.name for column in table.asked])
    except ValueError as error:
        text, values = error.args
        return _line({"fault": visit.say(text, **values)}, 422)
    round = rounds.begin(asked, before)
    return StreamingResponse(_stream(visit, table, round), media_type="application/x-ndjson")


async def _stream(visit: Visit, table: Table, round: Json) -> AsyncIterator[bytes]:
    places = {answer["model"]: n for n, answer in enumerate(round["answers"])}
    yield _encoded({"begin": _html(visit, table, round, sealed=False)})
    found: dict[str, Json] = {}
    try:
        models = [column.model for column in table.asked if column.model is not None]
        async for event in asking.answers(visit.api, models, round, visit.namespace):
            if "waiting" in event:
                yield _encoded(event)
            elif "delta" in event:
                yield _encoded({"column": places[event["model"]], "delta": event["delta"]})
            else:
                found[event["model"]] = event
        round = rounds.answered(round, found)
        saved = visit.form.get("saved", "")
        if saved:
            await _merge(visit, saved, table, [round])
        yield _encoded({"end": _html(visit, table, round)})
    except (ApiError, NotLoaded, BadComparison) as error:
        yield _encoded({"fault": error.message if isinstance(error, ApiError) else str(error)})


def _html(visit: Visit, table: Table, round: Json, *, sealed: bool = True) -> str:
    drawn = _round(visit, table, round, sealed=sealed)
    return render.template("compare_round.html").render(
        visit=visit, t=visit.say, now=visit.now, round=drawn, may_keep=visit.may("create", "configmaps", "")
    )


def _encoded(event: Json) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode() + b"\n"


def _line(event: Json, status: int) -> Response:
    return Response(_encoded(event), status, media_type="application/x-ndjson")


def _rounds(visit: Visit) -> list[Json]:
    """The rounds that a page kept for us, in their order."""
    shown = [visit.sessions.show(value) for name, value in visit.fields if name == "round"]
    if any(each is None for each in shown):
        raise Refused("This page is too old, or was not made for you. Load it again.")
    return shown


# What is kept


async def _merge(visit: Visit, name: str, table: Table, talk: Sequence[Json]) -> Comparison:
    """Keep these rounds under the name, with what is there already. Raises ApiError and BadComparison."""
    names = [column.name for column in table.asked]
    try:
        there = await visit.api.get(CONFIG_MAPS, name, visit.namespace)
    except NotFound:
        made = rounds.merged(None, names, talk, now())
        await visit.api.create_raw(CONFIG_MAPS, body_of(name, made), visit.namespace)
        return made
    whole = rounds.merged(read(there), names, talk, now())
    version = {"metadata": {"resourceVersion": there["metadata"]["resourceVersion"]}}
    await visit.api.patch(
        CONFIG_MAPS, name, version | {"data": body_of(name, whole)["data"]}, visit.namespace
    )
    return whole


async def keep(visit: Visit) -> Response:
    """Keep the rounds of the page, with a vote on one of them if there is one; draws the talk anew."""
    form = visit.form
    saved, name = form.get("saved", ""), form.get("name", "").strip()
    table = await _table(visit, columns.split([form.get("models", "")]))
    talk = _rounds(visit)
    if not talk:
        raise Refused("Ask something first.")
    try:
        if "vote" in form:
            talk = rounds.voted(talk, form["vote"], int(form.get("place", "-1")))
    except ValueError as error:
        raise Refused(str(error)) from None
    name = saved or name
    if not _NAME.fullmatch(name):
        raise Refused("A name has small letters, digits and dashes, as in monday-2.")
    if not saved and await _is_there(visit, name):
        raise Refused("Something of this name is kept already; choose another name.")
    try:
        whole = await _merge(visit, name, table, talk)
    except BadComparison as error:
        raise Refused(str(error)) from None
    ids = {round["id"] for round in talk}
    shown = [each for each in whole.questions if each.get("id") in ids]
    answer = await visit.page(
        "compare_talk.html", talk=_drawn(visit, table, shown, name), table=table, oob=True
    )
    answer.headers["HX-Replace-Url"] = table.url(visit, saved=name)
    return answer


async def _is_there(visit: Visit, name: str) -> bool:
    try:
        await visit.api.get(CONFIG_MAPS, name, visit.namespace)
    except NotFound:
        return False
    return True


async def forget(visit: Visit) -> Response:
    """First what is lost, then the deleting."""
    name = visit.query.get("saved", "")
    if visit.request.method == "POST":
        await comparison_of(visit, name)  # nothing but a comparison is deleted here
        await visit.api.delete(CONFIG_MAPS, name, visit.namespace)
        return visit.go(visit.url("compare"))
    comparison = await comparison_of(visit, name)
    command = f"kubectl delete configmap {name}{equal.place(visit.namespace)}"
    return await visit.page("compare_forget.html", name=name, comparison=comparison, command=command)


routes = [
    Page("/compare", show),
    Page("/compare/ask", ask, ("POST",)),
    Page("/compare/keep", keep, ("POST",)),
    Page("/compare/forget", forget, ("GET", "POST")),
]
