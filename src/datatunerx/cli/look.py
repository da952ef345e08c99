"""Commands that only read: get, describe, events, logs, compare-runs."""

import json
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from datatunerx.cli import compare
from datatunerx.cli.change import plural
from datatunerx.cli.describe import describe as described
from datatunerx.cli.describe import event_rows, when
from datatunerx.cli.documents import Json
from datatunerx.cli.errors import BadInput, CommandError, Exit
from datatunerx.cli.names import EVENT, OURS, KindName, kind_and_name, kind_named
from datatunerx.cli.text import aligned, as_yaml, table_cells
from datatunerx.client import Api, NotFound
from datatunerx.client.api import path_of
from datatunerx.client.errors import from_answer, from_status
from datatunerx.resources import (
    Dataset,
    Finetune,
    FinetuneExperiment,
    FinetuneJob,
    Hyperparameter,
    LLMCheckpoint,
    Scoring,
)
from datatunerx.resources.training import resolve_parameters

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
FORMS = ("json", "yaml", "wide", "name")


async def get(
    api: Api, words: Sequence[str], namespace: str | None, *, form: str | None, labels: str, watch: bool
) -> Exit:
    """Objects as a table, or whole. `namespace` None is all of them."""
    if form is not None and form not in FORMS:
        raise BadInput(f"-o {form}: must be one of {', '.join(FORMS)}")
    kinds, name = _asked(words)
    if watch:
        if len(kinds) > 1 or form in ("json", "yaml", "name"):
            raise BadInput("-w follows one kind as a table; leave out `all` and -o json, yaml or name")
        await _watch_table(api, kinds[0], name, namespace, labels, wide=form == "wide")
        return Exit.OK
    shown = 0
    for kind in kinds:
        shown += await _get_kind(api, kind, name, namespace, form, labels, several=len(kinds) > 1)
    if not shown and form in (None, "wide", "name"):
        where = f" in namespace {namespace}" if namespace else ""
        print(f"No {kinds[0].plural if len(kinds) == 1 else 'resources'} found{where}.", file=sys.stderr)
    return Exit.OK


def _asked(words: Sequence[str]) -> tuple[list[KindName], str]:
    if len(words) == 1 and words[0] in ("all", "dtx"):
        return list(OURS), ""
    if len(words) == 1 and "/" in words[0]:
        kind, name = kind_and_name(words[0])
        return [kind], name
    if len(words) == 1 and "," in words[0]:
        return [kind_named(word) for word in words[0].split(",")], ""
    if len(words) > 2:
        raise BadInput(f"too many names: {' '.join(words[2:])}; get takes KIND, KIND NAME or KIND/NAME")
    return [kind_named(words[0])], words[1] if len(words) == 2 else ""


async def _get_kind(
    api: Api,
    kind: KindName,
    name: str,
    namespace: str | None,
    form: str | None,
    labels: str,
    *,
    several: bool,
) -> int:
    where = path_of(plural(kind), namespace or ("default" if name else None), name)
    query = {"labelSelector": labels} if labels and not name else {}
    table = form in (None, "wide")
    body = await _json(api, where, query, TABLE if table else "application/json")
    if table:
        rows = table_cells(body, wide=form == "wide", namespaces=namespace is None and kind.namespaced)
        if len(rows) > 1:
            if several:
                rows = [rows[0], *([f"{kind.kind.lower()}/{row[0]}", *row[1:]] for row in rows[1:])]
            print("\n".join(aligned(rows)) + ("\n" if several else ""))
        return len(rows) - 1
    items = [body] if name else body.get("items") or []
    for item in items:
        item["metadata"].pop("managedFields", None)  # as kubectl: bookkeeping of apply, which drowns the rest
    if form == "name":
        for item in items:
            print(f"{kind.qualified}/{item['metadata']['name']}")
    elif items or not several:
        _print_whole(body, form)
    return len(items)


async def _watch_table(
    api: Api, kind: KindName, name: str, namespace: str | None, labels: str, *, wide: bool
) -> None:
    query = {"watch": "true"}
    if labels:
        query["labelSelector"] = labels
    if name:
        query["fieldSelector"] = f"metadata.name={name}"
    columns: Any = None
    widths: list[int] = []
    where = path_of(plural(kind), namespace or ("default" if name else None))
    async for line in api.transport.stream(where, query=query, headers={"accept": TABLE}):
        if not line.strip():
            continue
        event = json.loads(line)
        table = event["object"]
        if event["type"] == "ERROR":
            raise from_status(table)
        if event["type"] == "BOOKMARK":
            continue
        columns = table.get("columnDefinitions") or columns
        shown_head = bool(widths)
        cells = table_cells(table | {"columnDefinitions": columns}, wide=wide, namespaces=namespace is None)
        widths = widths or [max(12, len(head)) for head in cells[0]]
        if event["type"] == "DELETED":
            cells = [cells[0], *([f"{row[0]} (deleted)", *row[1:]] for row in cells[1:])]
        for row in cells[1:] if shown_head else cells:
            print("   ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip(), flush=True)


async def describe(api: Api, words: Sequence[str], namespace: str) -> Exit:
    kinds, name = _asked(words)
    names = [name]
    if not name:
        names = [item["metadata"]["name"] for item in await api.list(plural(kinds[0]), namespace)]
    pages = []
    for each in names:
        body = await api.get(plural(kinds[0]), each, namespace)
        about = await api.events(body["kind"], each, namespace)
        pages.append(described(body, about, datetime.now(UTC)))
    print("\n\n---\n\n".join(pages) if pages else f"No {kinds[0].plural} found.")
    return Exit.OK


async def events(
    api: Api, target: str | None, namespace: str, *, watch: bool, form: str | None = None
) -> Exit:
    """Events of the namespace or of one object, oldest first; with `watch`, new ones as they come."""
    _must_be_whole(form)
    if watch and form is not None:
        raise BadInput("-w follows events as a table; leave out -o")
    fields = ""
    if target:
        kind, name = kind_and_name(target)
        fields = f"involvedObject.kind={kind.kind},involvedObject.name={name}"
    listed = await api.list_raw(plural(EVENT), namespace, fields=fields)
    if form is not None:
        _print_whole({"apiVersion": "v1", "kind": "EventList", "items": sorted(listed.items, key=when)}, form)
        return Exit.OK
    rows = event_rows(listed.items, datetime.now(UTC))
    print("\n".join(aligned(rows)) if len(rows) > 1 else "No events.")
    if watch:
        changes = api.watch(plural(EVENT), namespace, version=listed.version, fields=fields)
        async for change in changes:
            if change.type in ("ADDED", "MODIFIED"):
                print("   ".join(event_rows([change.object], datetime.now(UTC))[1]), flush=True)
    return Exit.OK


async def logs(api: Api, target: str, namespace: str, *, follow: bool, tail: int | None) -> Exit:
    """The log of the Run behind any object, read by way of the pod that stands for it."""
    kind, name = kind_and_name(target)
    runs = await runs_of(api, kind, name, namespace)
    if not runs:
        raise CommandError(f"{target} has no run yet, so there is no log; see dtx describe {target}")
    for run in runs:
        if len(runs) > 1:
            print(f"==> run {run} <==", flush=True)
        async for line in _log(api, run, namespace, follow=follow, tail=tail):
            sys.stdout.buffer.write(line)
            if follow:
                sys.stdout.buffer.flush()
        sys.stdout.buffer.flush()
    return Exit.OK


async def runs_of(api: Api, kind: KindName, name: str, namespace: str) -> list[str]:
    """Names of the Runs that work or worked for an object, without doubles, in order."""
    match kind.kind:
        case "Run" | "Pod":
            return [name]
        case "FinetuneExperiment":
            experiment = await api.get(FinetuneExperiment, name, namespace)
            jobs = [j for j in await api.list(FinetuneJob, namespace) if _owner(j) == experiment.metadata.uid]
            names = [j.status.finetune or j.metadata.name for j in jobs]
            found = {f.metadata.name: f for f in await api.list(Finetune, namespace)}
            runs = [found[n].status.run for n in names if n in found]
            return list(dict.fromkeys(run for run in runs if run))
        case "FinetuneJob":
            job = await api.get(FinetuneJob, name, namespace)
            name = job.status.finetune or name
        case "LLMCheckpoint":
            name = (await api.get(LLMCheckpoint, name, namespace)).spec.finetune
        case "LLM" | "Dataset" | "Scoring" | "Finetune":
            body = await api.get(plural(kind), name, namespace)
            run = (body.get("status") or {}).get("run")
            return [run] if run else []
        case _:
            raise BadInput(f"{kind.kind} has no log; name a job, an experiment, an LLM, a Dataset or a run")
    try:
        run = (await api.get(Finetune, name, namespace)).status.run
    except NotFound:
        return []
    return [run] if run else []


async def _log(api: Api, run: str, namespace: str, *, follow: bool, tail: int | None) -> AsyncIterator[bytes]:
    """Line by line, so that a log of any size needs the memory of one line."""
    where = f"/api/v1/namespaces/{namespace}/pods/{run}/log"
    query = {"tailLines": str(tail)} if tail is not None else {}
    async for line in api.transport.stream(where, query=query | ({"follow": "true"} if follow else {})):
        yield line + b"\n"


async def compare_runs(api: Api, names: Sequence[str], namespace: str, *, form: str | None) -> Exit:
    """What differs between jobs; an experiment stands for all of its jobs. `form` is json, yaml or None."""
    _must_be_whole(form)
    jobs = await _jobs_named(api, names, namespace)
    if len(jobs) < 2:
        raise BadInput("name two jobs at least, or an experiment that has two; see dtx get fj")
    groups = {g.metadata.name: g for g in await api.list(Hyperparameter, namespace)}
    checkpoints = {c.metadata.name: c for c in await api.list(LLMCheckpoint, namespace)}
    scorings = {s.metadata.name: s for s in await api.list(Scoring, namespace)}
    digests = {d.metadata.name: d.status.digest or "" for d in await api.list(Dataset, namespace)}
    columns = []
    for job in jobs:
        spec = job.spec.finetune
        layers = _layers(spec.hyperparameter.ref, groups)
        own = spec.hyperparameter.overrides
        parameters = resolve_parameters([*layers, own.dump() if own else {}]).dump()
        checkpoint = checkpoints.get(job.status.checkpoint or "")
        settings = compare.settings_of(job.dump(), checkpoint, parameters, digests.get(spec.dataset, ""))
        results = compare.results_of(job.dump(), scorings.get(job.status.scoring or ""))
        columns.append(compare.Compared(job.metadata.name, settings, results))
    rows = compare.comparison(columns)
    if form is not None:
        document = [{"name": c.name, "settings": c.settings, "results": c.results} for c in columns]
        _print_whole(document, form)
    else:
        print("\n".join(aligned(rows)))
    return Exit.OK


async def _jobs_named(api: Api, names: Sequence[str], namespace: str) -> list[FinetuneJob]:
    everyone = await api.list(FinetuneJob, namespace)
    experiments = {e.metadata.name: e for e in await api.list(FinetuneExperiment, namespace)}
    by_name = {job.metadata.name: job for job in everyone}
    found: list[FinetuneJob] = []
    for name in names:
        bare = name.rpartition("/")[2]
        if bare in by_name:
            found.append(by_name[bare])
        elif bare in experiments:
            found += [job for job in everyone if _owner(job) == experiments[bare].metadata.uid]
        else:
            raise CommandError(f'no job and no experiment is called "{bare}"; see dtx get fj')
    return found


def _layers(name: str, groups: dict[str, Hyperparameter]) -> list[Json]:
    """Wire documents of a group and all it extends, the most general first; a missing one ends the chain."""
    chain: list[Json] = []
    seen: set[str] = set()
    while name in groups and name not in seen:
        seen.add(name)
        spec = groups[name].spec.dump()
        name = spec.pop("extends", "")
        chain.insert(0, spec)
    return chain


def _owner(job: FinetuneJob) -> str:
    return next((owner.uid for owner in job.metadata.owner_references), "")


def _must_be_whole(form: str | None) -> None:
    if form not in (None, "json", "yaml"):
        raise BadInput(f"-o {form}: must be json or yaml")


def _print_whole(document: Any, form: str | None) -> None:
    print(
        as_yaml([document]).rstrip() if form == "yaml" else json.dumps(document, indent=2, ensure_ascii=False)
    )


async def _json(api: Api, path: str, query: dict[str, str], accept: str) -> Json:
    answer = await api.transport.request("GET", path, query=query, headers={"accept": accept})
    if answer.status >= 300:
        raise from_answer(answer.status, answer.body)
    body: Json = json.loads(answer.body)
    return body
