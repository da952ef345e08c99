"""`dtx score`: one model or service scored by itself, and two Scorings compared row by row."""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from datatunerx.cli.change import apply_one
from datatunerx.cli.check import checked
from datatunerx.cli.documents import Document, Json
from datatunerx.cli.errors import BadInput, CommandError, Exit
from datatunerx.cli.experiment import console
from datatunerx.cli.names import kind_and_name
from datatunerx.cli.text import MISSING, number
from datatunerx.cli.tune import parse_metrics
from datatunerx.client import Api
from datatunerx.resources import Scoring
from datatunerx.resources.enums import Metric, ScoringPhase
from datatunerx.resources.finetune import MetricOptions
from datatunerx.resources.wire import API_VERSION
from datatunerx.runs.answers import unfit
from datatunerx.runs.grid import slug

POLL_SECONDS = 0.5
MODELS = ("LLM", "LLMCheckpoint")


@dataclass(frozen=True)
class Request:
    """What is to be scored, by what."""

    model: str | None = None
    """llm/NAME or ckpt/NAME."""
    url: str | None = None
    service_model: str | None = None
    secret: str | None = None
    """NAME or NAME:key, of the service's key."""
    data: str | None = None
    split: str = "test"
    questions: Sequence[str] = ()
    """question=answer each, or a .jsonl file of them."""
    metrics: Sequence[str] = ()
    plugins: Sequence[str] = ()
    judge: str | None = None
    """URL#model."""
    judge_secret: str | None = None
    judge_prompt: Path | None = None
    rank_by: str | None = None
    limit: int | None = None
    max_new_tokens: int | None = None
    name: str | None = None


def build(request: Request) -> Json:
    """The Scoring. The same request gives the same name."""
    metrics, options = parse_metrics(request.metrics or (["judge"] if request.judge else ["exact-match"]))
    measure: Json = {"split": request.split, "metrics": metrics}
    if options:
        measure["metricOptions"] = options
    if request.questions:
        asked = [found for text in request.questions for found in _questions(text)]
        measure["questions"] = [question for _, question in asked]
        _must_fit(asked, request.rank_by or metrics[0], options)
    if request.plugins:
        measure["plugins"] = [{"ref": name} for name in request.plugins]
    if request.judge:
        measure["judge"] = _judge(request)
    if request.rank_by:
        measure["rankBy"] = request.rank_by
    if request.limit is not None:
        measure["limit"] = request.limit
    if request.max_new_tokens is not None:
        measure["generation"] = {"maxNewTokens": request.max_new_tokens}
    spec = _subject(request) | {"measure": measure} | ({"dataset": request.data} if request.data else {})
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:6]
    title = request.service_model or (request.model or "").rpartition("/")[2]
    name = request.name or f"score-{slug(title)}-{digest}"
    return {"apiVersion": API_VERSION, "kind": "Scoring", "metadata": {"name": name}, "spec": spec}


async def score(api: Api, request: Request, namespace: str, *, wait: bool) -> Exit:
    """Apply the Scoring and tell what came of it."""
    (body,) = checked([Document("dtx score", None, build(request))])
    print(await apply_one(api, body, namespace, force=True), flush=True)
    name = body["metadata"]["name"]
    if not wait:
        print(f"Look at it with: dtx get sc {name}")
        return Exit.OK
    scoring = await _ended(api, name, namespace)
    if scoring.status.phase is ScoringPhase.FAILED:
        raise CommandError(f"{name} failed: {scoring.status.reason}: {scoring.status.message}")
    console().print(table(scoring))
    return Exit.OK if scoring.status.score is not None else Exit.FAILED


async def compare(api: Api, one: str, other: str, namespace: str) -> Exit:
    """Have the server compare two Scorings on the same rows. Fails if they cannot be compared."""
    names = [name.rpartition("/")[2] for name in (one, other)]
    if names[0] == names[1]:
        raise BadInput(f"{names[0]} and {names[1]} are the same Scoring")
    first = await _ended(api, names[0], namespace)
    second = await _ended(api, names[1], namespace)
    for scoring in (first, second):
        if scoring.status.phase is ScoringPhase.FAILED:
            raise CommandError(f"{scoring.metadata.name} failed and has no score: {scoring.status.message}")
    if names[1] not in first.spec.compare_with:
        spec = {"compareWith": [*first.spec.compare_with, names[1]]}
        await api.patch(Scoring, names[0], {"spec": spec}, namespace)
    while True:
        found = (await api.get(Scoring, names[0], namespace)).status.comparisons
        difference = next((d for d in found if d.to == names[1]), None)
        if difference is not None:
            break
        await asyncio.sleep(POLL_SECONDS)
    if difference.value is None:
        raise CommandError(f"{names[0]} and {names[1]} cannot be compared: {difference.why_missing}")
    print(f"{difference.said} in {difference.metric} on the same {difference.n} rows")
    return Exit.OK


def table(scoring: Scoring) -> Table:
    """Its metrics with their intervals; a missing one with the reason."""
    title = f"{scoring.metadata.name}: ranked by {scoring.status.metric}"
    found = Table(title=title, title_justify="left", title_style="bold")
    for head in ("metric", "value", "95% interval", "rows", ""):
        found.add_column(head, justify="right" if head in ("value", "rows") else "left")
    for name, metric in scoring.status.metrics.items():
        ends = (metric.low, metric.high)
        interval = MISSING if None in ends else f"[{', '.join(number(e) for e in ends if e is not None)}]"
        value = MISSING if metric.value is None else number(metric.value)
        rows = str(metric.n) if metric.n else MISSING
        found.add_row(escape(name), value, interval, rows, escape(metric.why_missing or ""))
    return found


async def _ended(api: Api, name: str, namespace: str) -> Scoring:
    said = ""
    while True:
        scoring = await api.get(Scoring, name, namespace)
        status = scoring.status
        if status.phase in (ScoringPhase.SUCCEEDED, ScoringPhase.FAILED):
            return scoring
        now = f"{status.phase}: {status.message or status.reason or ''}".rstrip(": ")
        if now != said:
            print(now, flush=True)
            said = now
        await asyncio.sleep(POLL_SECONDS)


def _subject(request: Request) -> Json:
    if (request.model is None) == (request.url is None):
        raise BadInput("name what is scored: llm/NAME or ckpt/NAME, or --url URL --service-model NAME")
    if request.url is not None:
        if not request.service_model:
            raise BadInput("--url needs --service-model: the name by which the service knows the model")
        service = {"url": request.url, "model": request.service_model}
        return {"service": service | _secret(request.secret)}
    kind, name = kind_and_name(request.model or "")
    if kind.kind not in MODELS:
        raise BadInput(f"{request.model}: a {kind.kind} is no model; write llm/NAME or ckpt/NAME")
    return {"model": {"kind": kind.kind, "name": name}}


def _judge(request: Request) -> Json:
    url, hash_, model = (request.judge or "").rpartition("#")
    if not hash_ or not url or not model:
        raise BadInput(f"--judge {request.judge}: write it as URL#MODEL, as https://host/v1#judge-model")
    found: Json = {"url": url, "model": model} | _secret(request.judge_secret)
    if request.judge_prompt is not None:
        found["prompt"] = _text(request.judge_prompt)
    return found


def _secret(text: str | None) -> Json:
    if text is None:
        return {}
    name, _, key = text.partition(":")
    return {"secretRef": {"name": name} | ({"key": key} if key else {})}


Asked = tuple[str, Json]
"""Where a question stands, and the question."""


def _must_fit(asked: Sequence[Asked], ranks: str, options: Mapping[str, Json]) -> None:
    """Refuse an answer that leaves the metric that ranks without a value: one is enough."""
    if ranks not in list(Metric):
        return
    metric = Metric(ranks)
    given = {metric: MetricOptions(field=options.get(ranks, {}).get("field"))}
    for where, question in asked:
        answer = question.get("answer")
        if isinstance(answer, str) and answer and (found := unfit(answer, [metric], given)):
            raise BadInput(f"{where}: answer: {found[metric]}")


def _questions(text: str) -> list[Asked]:
    if text.endswith(".jsonl"):
        return _questions_of(Path(text))
    question, equals, answer = text.partition("=")
    return [(f"--question {text}", {"question": question} | ({"answer": answer} if equals else {}))]


def _questions_of(path: Path) -> list[Asked]:
    found = []
    for n, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadInput(f"{path}:{n}: not JSON: {error}") from None
        if not isinstance(row, dict) or not row.keys() <= {"question", "answer"} or "question" not in row:
            raise BadInput(f"{path}:{n}: write one object a line with question and answer")
        found.append((f"{path}:{n}", row))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None
