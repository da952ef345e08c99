"""What an experiment came to: ranking, the reason, answers side by side, and what to do next."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from datatunerx.cli.errors import CommandError
from datatunerx.cli.progress import short_job
from datatunerx.cli.text import MISSING
from datatunerx.resources.enums import JobPhase
from datatunerx.resources.experiment import FinetuneExperiment, MetricResult, Ranked

SHOWN_QUESTIONS = 3
MAX_LINE = 16 << 20
"""Bytes of one stored answer that are read."""


@dataclass(frozen=True)
class Answer:
    row: int
    question: str
    reference: str
    answer: str


@dataclass(frozen=True)
class Winner:
    """Where the recommended model lies."""

    base: str
    """Folder of the base model; a URI if it is not on this machine."""
    adapter: str
    """Folder of the adapter in PEFT's format."""


def ranking(experiment: FinetuneExperiment) -> Table:
    """Jobs and base models by score, the recommended one marked."""
    status = experiment.status
    others = dict.fromkeys(name for row in status.ranking for name in row.metrics if name != status.metric)
    title = f"{experiment.metadata.name}: ranked by {status.metric or 'score'}"
    table = Table(title=title, title_justify="left", title_style="bold")
    for head, justify in (
        ("", "left"),
        ("#", "right"),
        ("model", "left"),
        (status.metric or "score", "right"),
    ):
        table.add_column(head, justify="right" if justify == "right" else "left", no_wrap=True)
    table.add_column("95% interval", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    best = status.best.job if status.best and beats_base(experiment) else None
    for row in status.ranking:
        table.add_row(
            "=>" if row.name == best and not row.base else "",
            MISSING if row.rank is None else str(row.rank),
            escape(_title(row, experiment.metadata.name)),
            _value(row.score),
            _interval(row.low, row.high),
            str(row.n) if row.n else MISSING,
            *(_metric(row.metrics.get(name)) for name in others),
            style="bold green" if row.name == best and not row.base else "dim" if row.base else "",
        )
    return table


def reasons(experiment: FinetuneExperiment) -> list[Text]:
    """Why the recommended one is recommended, and why others failed."""
    status = experiment.status
    lines: list[Text] = []
    if status.best is not None:
        # the names of the table, which are shorter than the objects'
        why = status.best.why.replace(f"{experiment.metadata.name}-", "")
        word = "Recommended: " if beats_base(experiment) else "None beats the base. The best job: "
        lines.append(Text.assemble((word, "bold"), f"{status.best.job}. ", why))
    elif status.message or status.reason:
        lines.append(Text.assemble(("No recommendation: ", "bold"), status.message or status.reason or ""))
    lines += _unmeasured(experiment)
    for failure in status.failures:
        head = f"{failure.job} {failure.phase.value}: "
        lines.append(Text.assemble((head, "bold red"), f"{failure.reason}: {failure.message}"))
        if failure.log_tail:
            lines += [Text(f"    {line}", style="dim") for line in failure.log_tail.splitlines()[-10:]]
    return lines


def last_line(experiment: FinetuneExperiment) -> str:
    """Of an experiment without a best job: that, why, and what can be done about it."""
    status, name = experiment.status, experiment.metadata.name
    if status.jobs.failed or any(failure.phase is JobPhase.FAILED for failure in status.failures):
        fix = f"mend what is said above, then: dtx retry {name}"
    elif status.ranking:
        fix = "score by another metric (dtx score), or give the test rows the references that it needs"
    else:
        fix = f"to run it again: dtx delete fe/{name}, then apply it anew"
    why = status.message or status.reason or f"it is {status.phase.value}"
    return f"Nothing is recommended: {why.rstrip('.')}; {fix}"


def _unmeasured(experiment: FinetuneExperiment) -> list[Text]:
    """Why rows have no score to rank by: each reason once, with all whom it concerns."""
    metric = experiment.status.metric or ""
    whom: dict[str, list[str]] = {}
    for row in experiment.status.ranking:
        result = row.metrics.get(metric)
        if result is not None and result.value is None and result.why_missing:
            whom.setdefault(result.why_missing, []).append(_title(row, experiment.metadata.name))
    return [
        Text.assemble((f"No {metric} of {', '.join(names)}: ", "bold red"), why)
        for why, names in whom.items()
    ]


def side_by_side(base: Sequence[Answer], winner: Sequence[Answer], job: str) -> RenderableType | None:
    """Three questions spread evenly over the rows that both answered, not picked by how they came out."""
    by_row = {answer.row: answer for answer in base}
    common = [(by_row[answer.row], answer) for answer in winner if answer.row in by_row]
    if not common:
        return None
    last = len(common) - 1
    picked = sorted({round(last * i / (SHOWN_QUESTIONS - 1)) for i in range(SHOWN_QUESTIONS)})
    parts: list[RenderableType] = [
        Text(f"{len(picked)} of {len(common)} test questions, evenly spread", "bold")
    ]
    for theirs, ours in (common[i] for i in picked):
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        table.add_row(f"row {ours.row}", Text(ours.question))
        table.add_row("expected", Text(ours.reference))
        table.add_row("base", Text(_brief(theirs.answer)))
        good = ours.answer.strip() == ours.reference.strip()
        table.add_row(job, Text(_brief(ours.answer), style="green" if good else ""))
        parts += [table, Text("")]
    return Group(*parts[:-1])


def next_steps(
    experiment: str, winner: Winner | None, kubeconfig: Path, *, recommended: bool, serving: bool
) -> str:
    """Where the checkpoint lies, how to load it, how to look further."""
    lines: list[str] = []
    if winner is not None:
        base, adapter = winner.base, winner.adapter
        which = "recommended" if recommended else "best job's"
        lines += [
            f"The {which} checkpoint lies in {adapter}. To load it:",
            "",
            "    from peft import PeftModel",
            "    from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f"    base = AutoModelForCausalLM.from_pretrained({base!r})",
            f"    model = PeftModel.from_pretrained(base, {adapter!r})",
            f"    tokenizer = AutoTokenizer.from_pretrained({base!r})",
            "",
        ]
    lines.append(
        "To look further:" if serving else "The state stays. To look further, `dtx up` serves it again; then:"
    )
    lines += [
        f"    dtx get fe {experiment} -o yaml",
        f"    dtx compare-runs {experiment}",
        f"    kubectl --kubeconfig {kubeconfig} get fe",
    ]
    return "\n".join(lines)


def read_answers(path: Path) -> list[Answer]:
    """Stored predictions, one JSON object a line. CommandError names the line that is none."""
    answers: list[Answer] = []
    try:
        with path.open("rb") as file:
            for n, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
                try:
                    row = json.loads(line)
                    answers.append(Answer(row["row"], row["question"], row["reference"], row["answer"]))
                except (ValueError, KeyError, TypeError) as error:
                    raise CommandError(f"{path}:{n}: not a stored prediction: {error}") from None
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {error.strerror}") from None
    return answers


def beats_base(experiment: FinetuneExperiment) -> bool:
    """Whether the best job ranks above its base; without a scored base nothing speaks against it."""
    best = experiment.status.best
    job = next((r for r in experiment.status.ranking if best and r.name == best.job and not r.base), None)
    base = base_row(experiment, best.job) if best else None
    return not (job and job.rank and base and base.rank and base.rank < job.rank)


def base_row(experiment: FinetuneExperiment, job: str) -> Ranked | None:
    """The base model beside which a job was scored."""
    winner = next((row for row in experiment.status.ranking if row.name == job and not row.base), None)
    bases = [row for row in experiment.status.ranking if row.base]
    if winner is None:
        return None
    same = [row for row in bases if row.llm == winner.llm and row.dataset in ("", winner.dataset)]
    return same[0] if same else None


def _title(row: Ranked, experiment: str) -> str:
    return f"{row.name} (untouched base)" if row.base else short_job(row.name, experiment)


def _value(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return MISSING if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def _metric(result: MetricResult | None) -> str:
    return MISSING if result is None else _value(result.value)


def _brief(answer: str) -> str:
    line = " ".join(answer.split())
    return line if len(line) <= 200 else f"{line[:197]}..."
