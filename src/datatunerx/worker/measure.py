"""Ask models and score their answers: the base and every adapter by the same measure, in shared batches."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from datatunerx import scoring, storage
from datatunerx.data import ChatTemplate, DataError, Problem, questions
from datatunerx.data.gather import recall
from datatunerx.modeling.adapters import Adapter
from datatunerx.modeling.base import Base
from datatunerx.modeling.generate import (
    CACHE_TOKENS,
    Answer,
    Decoding,
    Likelihood,
    OnToken,
    Prompt,
    generate,
    log_likelihood,
)
from datatunerx.resources.enums import Metric
from datatunerx.resources.experiment import MetricResult
from datatunerx.runs import DataFiles, MeasurePlan, ScoreOutcome, files
from datatunerx.worker.credentials import Secrets
from datatunerx.worker.failure import explain
from datatunerx.worker.journal import Journal
from datatunerx.worker.marks import TOO_LONG, WHY_CHARACTERS, Folders, measured

BASE = "base"
"""What stands for the untouched base in the name of a predictions file."""
UNSCORED = ".unscored.jsonl"
"""End of the name of the file with the answers that nothing is held against."""


class Subject(NamedTuple):
    """A model that is measured."""

    name: str
    """Of the Finetune; empty for the untouched base."""
    adapter: Adapter | None
    folder: Path | None = None
    """Of the adapter, for plugins that load the model themselves."""


@dataclass(frozen=True)
class Asked:
    """One row of a measure."""

    messages: list[dict[str, Any]]
    ids: list[int]
    reference: str | None
    """None for a question that is asked to be seen, not scored."""
    tools: Sequence[Any] = ()

    @property
    def question(self) -> str:
        """What the user said last."""
        said = [message["content"] for message in self.messages if message["role"] == "user"]
        return str(said[-1]) if said else ""


def measure(
    base: Base, template: ChatTemplate, subjects: Sequence[Subject], plan: MeasurePlan,
    data: DataFiles | None, journal: Journal, secrets: Secrets,
) -> list[ScoreOutcome]:  # fmt: skip
    """One outcome per subject, in order; the predictions lie in the run's folder.

    What cannot be measured has no value and says why; it fails nothing else.
    """
    names = [subject.name or "the base" for subject in subjects]
    try:
        rows = ask(template, plan, data, journal)
        journal.activity(f"scoring {', '.join(names)} on {len(rows)} rows")
        answers = answer_all(base, template, subjects, plan, rows, journal)
        return [
            _score(base, template, subject, plan, rows, given, journal, secrets)
            for subject, given in zip(subjects, answers, strict=True)
        ]
    except (DataError, scoring.ScoringError, MemoryError, RuntimeError) as error:
        reason, message = explain(error, journal.doing)
        journal.warn(f"{', '.join(names)} could not be scored: {message}")
        return [unmeasured(subject, plan, f"{reason}: {message}", journal) for subject in subjects]


def unmeasured(subject: Subject, plan: MeasurePlan, why: str, journal: Journal) -> ScoreOutcome:
    """No metric has a value, and each says why."""
    missing = {
        metric.value: MetricResult(higher_is_better=metric.higher_is_better, why_missing=why[:WHY_CHARACTERS])
        for metric in plan.metrics
    }
    uri = predictions_uri(subject, plan, journal)
    return ScoreOutcome(subject=subject.name, measure=plan.key(), metrics=missing, predictions_uri=uri)


def ask(template: ChatTemplate, plan: MeasurePlan, data: DataFiles | None, journal: Journal) -> list[Asked]:
    """What every subject of the measure is asked. Raises DataError if there is nothing to hold against."""
    return [
        Asked(messages, template.prompt_ids(messages, tools), reference, tools)
        for messages, reference, tools in rows_of(plan, data, journal)
    ]


def rows_of(
    plan: MeasurePlan, data: DataFiles | None, journal: Journal
) -> list[tuple[list[dict[str, Any]], str | None, Sequence[Any]]]:
    """(messages, reference, tools) of the rows of the split, then of the measure's own questions."""
    rows: list[tuple[list[dict[str, Any]], str | None, Sequence[Any]]] = []
    if data is not None:
        bad: list[Problem] = []
        files = recall(data, storage.local_path(journal.plan.fetched_uri))
        found = questions(files, plan.split, plan.limit, bad.append)
        if bad:
            journal.warn(
                f"{len(bad)} bad rows of {data.name}'s {plan.split} split are not asked; the first: "
                f"{bad[0].error()}"
            )
        rows = [(row.messages, row.reference, row.tools) for row in found]
    own = [([{"role": "user", "content": q.question}], q.answer, ()) for q in plan.questions]
    if not rows and not any(reference is not None for _, reference, _ in own):
        raise DataError(
            f"the {plan.split} split has no rows" if data else "no question has an answer to hold against",
            data.name if data else "measure.questions",
            fix=f"name files for it or give split.{plan.split} a share"
            if data
            else "give one of them an answer",
        )
    return [*rows, *own]


def answer_all(
    base: Base, template: ChatTemplate, subjects: Sequence[Subject], plan: MeasurePlan, rows: Sequence[Asked],
    journal: Journal, on_token: OnToken | None = None, cache_tokens: int = CACHE_TOKENS,
) -> list[list[Answer]]:  # fmt: skip
    """Answers per subject and row. Greedy answers of all subjects are made in the same batches."""
    how = Decoding(plan.generation.max_new_tokens, plan.generation.temperature, seed=plan.generation.seed)
    room = context_of(base) - how.max_new_tokens
    fitting = [n for n, row in enumerate(rows) if len(row.ids) <= room]
    if len(fitting) < len(rows):
        journal.warn(
            f"{len(rows) - len(fitting)} of {len(rows)} questions leave no room for {how.max_new_tokens} new "
            f"tokens in the model's {context_of(base)} and count as not answered; lower maxNewTokens"
        )
    # A sampled row draws by its place among the prompts: asked alone, each subject draws alike.
    groups = [[subject] for subject in subjects] if how.temperature > 0 else [list(subjects)]
    found: list[list[Answer]] = []
    for group in groups:
        prompts = [Prompt(rows[n].ids, subject.adapter) for subject in group for n in fitting]
        made = generate(
            base, prompts, template.stop_ids, how, on_token=on_token, cache_tokens=cache_tokens
        )  # fmt: skip
        given = iter(made)
        for _ in group:
            answers = dict(zip(fitting, given, strict=False))
            found.append([answers.get(n, Answer([], TOO_LONG)) for n in range(len(rows))])
    return found


def _score(
    base: Base, template: ChatTemplate, subject: Subject, plan: MeasurePlan, rows: Sequence[Asked],
    answers: Sequence[Answer], journal: Journal, secrets: Secrets,
) -> ScoreOutcome:  # fmt: skip
    likelihoods: dict[int, Likelihood] = {}
    if Metric.PERPLEXITY in plan.metrics:
        likelihoods = _likelihoods(base, template, subject, rows)
    decoder = Tokenizer.from_file(str(base.path / "tokenizer.json"))
    predictions = []
    for n, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        likely = likelihoods.get(n)
        predictions.append(
            scoring.Prediction(
                row=n, question=row.question, reference=row.reference or "",
                answer=decoder.decode(answer.ids, skip_special_tokens=True), finish=answer.finish,
                nll=likely.nll if likely else None, tokens=likely.tokens if likely else None,
            )
        )  # fmt: skip
    scored = [p for p, row in zip(predictions, rows, strict=True) if row.reference is not None]
    shown = [p for p, row in zip(predictions, rows, strict=True) if row.reference is None]
    folders = Folders(base.path, subject.folder)
    return keep_and_score(subject, plan, scored, shown, folders, journal, secrets)


def keep_and_score(
    subject: Subject, plan: MeasurePlan, scored: Sequence[scoring.Prediction],
    shown: Sequence[scoring.Prediction], folders: Folders, journal: Journal, secrets: Secrets,
) -> ScoreOutcome:  # fmt: skip
    """Store the answers, and measure those that have a reference."""
    uri = predictions_uri(subject, plan, journal)
    _write(uri, scored, journal)
    if shown:
        _write(uri.replace(".jsonl", UNSCORED), shown, journal)
    metrics = measured(plan, scored, uri, folders, journal, secrets)
    return ScoreOutcome(subject=subject.name, measure=plan.key(), predictions_uri=uri, metrics=metrics)


def measure_stored(
    subject: Subject, plan: MeasurePlan, stored_uri: str, folders: Folders, journal: Journal, secrets: Secrets
) -> ScoreOutcome | None:
    """The metrics of answers that were stored, which are kept with this run too; None if they do not do."""
    path = storage.local_path(stored_uri)
    unscored = path.with_suffix(UNSCORED)
    try:
        stored = scoring.read_predictions(path)
        shown = scoring.read_predictions(unscored) if unscored.exists() else []
    except (OSError, scoring.PredictionsError) as error:
        journal.warn(f"stored predictions cannot be read and are made again: {error}")
        return None
    if Metric.PERPLEXITY in plan.metrics and all(prediction.nll is None for prediction in stored):
        return None  # likelihoods were not asked for then, and only the model can give them
    journal.activity(f"scoring {len(stored)} stored answers")
    try:
        return keep_and_score(subject, plan, stored, shown, folders, journal, secrets)
    except scoring.ScoringError:
        return None  # asked in full, it says why


def _likelihoods(
    base: Base, template: ChatTemplate, subject: Subject, rows: Sequence[Asked]
) -> dict[int, Likelihood]:
    """How likely each reference is, end-of-turn token included, after its question; of rows that fit."""
    asked, numbers = [], []
    for n, row in enumerate(rows):
        if row.reference is None:
            continue
        answer = {"role": "assistant", "content": row.reference}
        example = template.encode([*row.messages, answer], row.tools)
        if len(example.ids) > context_of(base):
            continue
        labels = example.labels.copy()
        labels[: len(row.ids)] = -100  # turns before the last are the question, not the answer
        asked.append((subject.adapter, example.ids.tolist(), labels.tolist()))
        numbers.append(n)
    return dict(zip(numbers, log_likelihood(base, asked) if asked else [], strict=True))


def _write(uri: str, predictions: Iterable[scoring.Prediction], journal: Journal) -> None:
    path = storage.local_path(uri)
    storage.make_folder(path.parent)
    rows = list(predictions)
    journal.with_space(lambda: scoring.write_predictions(path, rows))


def predictions_uri(subject: Subject, plan: MeasurePlan, journal: Journal) -> str:
    return journal.uri(f"{files.PREDICTIONS}/{subject.name or BASE}-{plan.key()}.jsonl")


def context_of(base: Base) -> int:
    """Tokens of a question with its answer that the model takes."""
    return int(base.config.max_position_embeddings)
