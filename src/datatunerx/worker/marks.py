"""What judge and plugins find of a model's answers, beside the metrics. Who fails is missing, and says why.

All of it lies beside the predictions: verdicts as JSONL, and the draws by which two models are compared.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from datatunerx import scoring, storage
from datatunerx.plugins import PluginError, process
from datatunerx.plugins.scoring import PREDICTIONS
from datatunerx.resources.enums import Metric
from datatunerx.resources.experiment import MetricResult
from datatunerx.runs import MeasurePlan
from datatunerx.runs.draws import Draws, MetricDraws, draws_uri
from datatunerx.runs.plan import ScorerPlan, digest_of
from datatunerx.scoring.endpoint import key_problem
from datatunerx.scoring.judge import problem
from datatunerx.worker.credentials import Secrets
from datatunerx.worker.journal import Journal

VERDICTS = ".verdicts.jsonl"
"""End of the name of the file with what the judge said."""
WHY_CHARACTERS = 256
TOO_LONG = "too-long"
"""How an answer ended that was never begun: its question leaves no room for one."""


@dataclass(frozen=True)
class Folders:
    """Where the model lies whose answers are scored."""

    base: Path | None = None
    adapter: Path | None = None


@dataclass
class Found:
    """By name of the metric."""

    marks: dict[str, scoring.Marks] = field(default_factory=dict)
    values: dict[str, MetricResult] = field(default_factory=dict)
    how: dict[str, str] = field(default_factory=dict)
    """Digest of who found it, and how."""


def measured(
    plan: MeasurePlan, predictions: Sequence[scoring.Prediction], uri: str, folders: Folders,
    journal: Journal, secrets: Secrets,
) -> dict[str, MetricResult]:  # fmt: skip
    """Every metric of the measure on these stored answers, and the draws beside them."""
    found = Found()
    if predictions and all(prediction.finish == TOO_LONG for prediction in predictions):
        return _unasked(plan, predictions)
    if plan.judge is not None:
        _judge(plan, predictions, uri, found, journal, secrets)
    for scorer in plan.plugins:
        _ask_plugin(scorer, uri, len(predictions), folders, found, journal)
    options = {metric.value: options.dump() for metric, options in plan.metric_options.items()}
    built_in = [metric.value for metric in plan.metrics if metric is not Metric.JUDGE]
    scored = scoring.measure(
        predictions, built_in, seed=plan.generation.seed, options=options, marks=found.marks
    )
    found.how |= {name: digest_of(own) for name, own in options.items()}
    _keep_draws(uri, scored, found.how, journal)
    results = {name: _result(one.result) for name, one in scored.items()} | found.values
    asked = [metric.value for metric in plan.metrics]
    return {name: results[name] for name in dict.fromkeys([*asked, *results])}


def _unasked(plan: MeasurePlan, predictions: Sequence[scoring.Prediction]) -> dict[str, MetricResult]:
    """Of a model that could be asked nothing: no answer is not a wrong one. References can be measured."""
    why = (
        f"none of the {len(predictions)} questions leaves room for an answer; lower "
        f"scoring.generation.maxNewTokens ({plan.generation.max_new_tokens})"
    )
    results = {
        metric.value: MetricResult(higher_is_better=metric.higher_is_better, why_missing=why)
        for metric in plan.metrics
    }
    results |= {scorer.plugin.name: _missing(why) for scorer in plan.plugins}
    if (name := Metric.PERPLEXITY.value) in results:
        results[name] = _result(scoring.score(predictions, [name], seed=plan.generation.seed)[name])
    return results


def _judge(
    plan: MeasurePlan, predictions: Sequence[scoring.Prediction], uri: str, found: Found, journal: Journal,
    secrets: Secrets,
) -> None:  # fmt: skip
    wanted = plan.judge
    assert wanted is not None
    name = Metric.JUDGE.value
    journal.activity(f"asking the judge {wanted.model} about {len(predictions)} answers")
    ref = wanted.secret_ref
    key = secrets.get(ref.name, {}).get(ref.key) if ref else None
    if ref and not key:
        found.values[name] = _missing(f"Secret {ref.name} has no value {ref.key!r} for the judge's key")
        return
    if why := key_problem(wanted):
        found.values[name] = _missing(why)
        return
    verdicts = scoring.judge(wanted, predictions, key, progress(journal, "judged", len(predictions)))
    lines = "".join(json.dumps(asdict(verdict)) + "\n" for verdict in verdicts)
    _write(uri.removesuffix(".jsonl") + VERDICTS, lines.encode(), journal)
    silent = sum(verdict.mark is None for verdict in verdicts)
    if why := problem(verdicts):
        found.values[name] = _missing(why)
        return
    if silent:
        journal.warn(f"{silent} of {len(verdicts)} answers got no mark from the judge; they do not count")
    found.marks[name] = scoring.Marks([verdict.mark for verdict in verdicts])
    patience = {"secret_ref", "concurrency", "timeout_seconds", "retries"}
    found.how[name] = digest_of(wanted.model_dump(mode="json", exclude=patience))


def _ask_plugin(
    scorer: ScorerPlan, uri: str, num_rows: int, folders: Folders, found: Found, journal: Journal
) -> None:
    name = scorer.plugin.name
    journal.activity(f"asking the plugin {name} about {num_rows} answers")
    folder = storage.local_path(journal.uri(f"plugins/{name}"))
    shutil.rmtree(folder, ignore_errors=True)
    storage.make_folder(folder)
    try:
        # a copy: what is stored stays as the model said it, whatever the plugin does
        shutil.copyfile(storage.local_path(uri), folder / PREDICTIONS)
        data = process.score(scorer.plugin, scorer.parameters, folder, folders.base, folders.adapter)
        scores = scoring.read_result(name, data, num_rows)
    except PluginError as error:
        text = error.message if error.message.startswith("plugin ") else f"plugin {name}: {error.message}"
        journal.warn(f"{error.reason}: {text}")
        found.values[name] = _missing(f"{error.reason}: {text}")
        return
    except scoring.ScoringError as error:
        journal.warn(f"ResultInvalid: {error}")
        found.values[name] = _missing(f"ResultInvalid: {error}")
        return
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found.marks |= scores.marks
    found.values |= {metric: _result(value) for metric, value in scores.values.items()}
    how = digest_of(scorer.dump())
    found.how |= {metric: how for metric in (*scores.marks, *scores.values)}


def _keep_draws(
    uri: str, scored: Mapping[str, scoring.Scored], how: Mapping[str, str], journal: Journal
) -> None:
    metrics = {}
    for name, one in scored.items():
        if one.draws_B is None or one.result.value is None:
            continue
        draws = [float(value) if np.isfinite(value) else None for value in one.draws_B]
        metrics[name] = MetricDraws(
            value=one.result.value, higher_is_better=one.result.higher_is_better, n=one.result.n,
            rows=one.rows, how=how.get(name, ""), draws=draws,
        )  # fmt: skip
    _write(draws_uri(uri), Draws(metrics=metrics).model_dump_json(by_alias=True).encode(), journal)


def _write(uri: str, data: bytes, journal: Journal) -> None:
    journal.with_space(lambda: storage.write_atomic(uri, data))


def progress(journal: Journal, word: str, total: int) -> Callable[[int], None]:
    step = max(1, total // 10)

    def tell(done: int) -> None:
        if done % step == 0:
            journal.activity(f"{word} {done} of {total} answers")

    return tell


def _missing(why: str) -> MetricResult:
    return MetricResult(why_missing=why[:WHY_CHARACTERS])


def _result(value: scoring.MetricValue) -> MetricResult:
    fields = asdict(value)
    why = fields["why_missing"]
    return MetricResult(**fields | {"why_missing": why and why[:WHY_CHARACTERS]})
