"""Scores on the way: what adapters answer to a few validate rows at an evaluation, in bounded memory."""

from collections.abc import Callable, Mapping, Sequence

from tokenizers import Tokenizer

from datatunerx import scoring
from datatunerx.data import ChatTemplate, DataError
from datatunerx.modeling.adapters import Adapter
from datatunerx.modeling.base import Base
from datatunerx.modeling.generate import CACHE_TOKENS
from datatunerx.runs import DataFiles, MeasurePlan
from datatunerx.training.shortage import within_memory
from datatunerx.worker.journal import Journal
from datatunerx.worker.measure import Asked, Subject, answer_all, ask, context_of

LEAST_TOKENS = 256
"""The cache of keys and values is not made smaller than this."""


class OnTheWay:
    """Asks the jobs of one run; called as the loop's `score`."""

    def __init__(self, base: Base, template: ChatTemplate, journal: Journal) -> None:
        self._base, self._template, self._journal = base, template, journal
        self._decoder = Tokenizer.from_file(str(base.path / "tokenizer.json"))
        self._measures: dict[str, tuple[MeasurePlan, list[Asked]]] = {}
        """By key."""
        self._keys: dict[str, str] = {}
        """Job -> key of its measure."""
        self._cache_tokens = CACHE_TOKENS

    def add(self, job: str, plan: MeasurePlan, data: DataFiles) -> None:
        """A job that stops by this measure. Raises DataError if none of the rows can be asked."""
        key = self._keys[job] = plan.key()
        if key in self._measures:
            return
        rows = ask(self._template, plan, data, self._journal)
        room = context_of(self._base) - plan.generation.max_new_tokens
        fitting = [row for row in rows if len(row.ids) <= room]
        if not fitting:
            raise DataError(
                f"earlyStopping: no validate question leaves room for {plan.generation.max_new_tokens} new "
                f"tokens in the model's {context_of(self._base)}",
                data.name,
                fix="lower scoring.generation.maxNewTokens, or set earlyStopping.measure to loss",
            )
        if len(fitting) < len(rows):
            left = f"{len(rows) - len(fitting)} of {len(rows)} validate questions leave no room"
            self._journal.warn(f"{left} for an answer and are not asked on the way")
        self._measures[key] = plan, fitting

    def __call__(
        self, adapters: Mapping[str, Adapter], look_up: Callable[[], None]
    ) -> dict[str, float | None]:
        """The one metric of each job's measure; `look_up` is called at each token."""
        found: dict[str, float | None] = {}
        for key, (plan, rows) in self._measures.items():
            subjects = [
                Subject(name, adapter) for name, adapter in adapters.items() if self._keys[name] == key
            ]
            if subjects:
                found |= self._measured(subjects, plan, rows, look_up)
        return found

    def _measured(
        self,
        subjects: Sequence[Subject],
        plan: MeasurePlan,
        rows: Sequence[Asked],
        look_up: Callable[[], None],
    ) -> dict[str, float | None]:
        metric, options = plan.metrics[0], plan.metric_options
        given = {metric.value: options[metric].dump()} if metric in options else None
        found = {}
        for subject, answers in zip(subjects, self._answers(subjects, plan, rows, look_up), strict=True):
            predictions = [
                scoring.Prediction(
                    row=n, question=row.question, reference=row.reference or "", answer=text, finish="stop"
                )
                for n, (row, text) in enumerate(zip(rows, answers, strict=True))
            ]
            value = scoring.score(predictions, [metric.value], options=given)[metric.value]
            if value.value is None:
                message = (
                    f"{metric} of answers to validate rows: {value.why_missing}; early stopping waits on"
                )
                self._journal.warn(message, subject.name)
            found[subject.name] = value.value
        return found

    def _answers(
        self,
        subjects: Sequence[Subject],
        plan: MeasurePlan,
        rows: Sequence[Asked],
        look_up: Callable[[], None],
    ) -> list[list[str]]:
        """Of each subject to each row. Where memory runs out, fewer are answered at once from then on."""
        while True:
            made, shortage = within_memory(
                lambda: answer_all(
                    self._base, self._template, subjects, plan, rows, self._journal,
                    lambda row, token: look_up(), self._cache_tokens,
                )
            )  # fmt: skip
            if made is not None:
                decode = self._decoder.decode
                return [[decode(one.ids, skip_special_tokens=True) for one in answers] for answers in made]
            if shortage is not None and self._cache_tokens <= LEAST_TOKENS:
                raise shortage
            self._cache_tokens //= 2
