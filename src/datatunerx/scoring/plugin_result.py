"""What a scorer gives, checked: finite numbers with their n, a mark for each row, or a reason for none."""

from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from datatunerx.resources.wire import ShortText, Wire
from datatunerx.scoring.errors import ScoringError
from datatunerx.scoring.score import Marks, MetricValue

WHOLE = "score"
"""The score of this name is called as the plugin is."""
MAX_SCORES = 64


class PluginResultError(ScoringError):
    """A result that cannot be taken; the message names the field."""


class PluginScore(Wire):
    """One score: `rows`, or `value` with `n`, or why it is `missing`."""

    model_config = ConfigDict(strict=True)

    rows: list[FiniteFloat | None] | None = None
    """A mark for each prediction, in their order; null is missing. The score is their mean."""
    value: FiniteFloat | None = None
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    """Rows, or whatever was counted."""
    higher_is_better: bool = True
    missing: ShortText | None = None

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        given = [name for name in ("rows", "value", "missing") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of rows, value and missing, not {' and '.join(given) or 'none'}")
        if self.value is not None and self.n is None:
            raise ValueError("value needs n, the number of rows it was measured on")
        if (self.low is None) != (self.high is None):
            raise ValueError("give both low and high, or neither")
        ends = (self.low, self.value, self.high)
        if self.low is not None and list(ends) != sorted(end for end in ends if end is not None):
            raise ValueError("low <= value <= high does not hold")
        return self


class PluginResult(Wire):
    """The document that a scorer writes."""

    model_config = ConfigDict(strict=True)

    scores: Annotated[dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.,-]{0,99}$")], PluginScore],
                      Field(min_length=1, max_length=MAX_SCORES)]  # fmt: skip


@dataclass(frozen=True)
class PluginScores:
    """By the name that the metric has: marks to be averaged here, and values as the plugin says them."""

    marks: dict[str, Marks]
    values: dict[str, MetricValue]


def read_result(plugin: str, data: bytes, num_rows: int) -> PluginScores:
    """Raises `PluginResultError`."""
    try:
        result = PluginResult.model_validate_json(data)
    except ValidationError as error:
        raise PluginResultError(f"plugin {plugin}: its result is wrong: {_first(error)}") from None
    marks: dict[str, Marks] = {}
    values: dict[str, MetricValue] = {}
    for name, score in result.scores.items():
        metric = plugin if name == WHOLE else f"{plugin}/{name}"
        if score.rows is None:
            values[metric] = MetricValue(
                score.value, score.low, score.high, score.n or 0, score.higher_is_better, score.missing
            )
            continue
        if len(score.rows) != num_rows:
            said = f"scores.{name}.rows has {len(score.rows)} marks for {num_rows} predictions"
            raise PluginResultError(f"plugin {plugin}: {said}")
        marks[metric] = Marks(score.rows, score.higher_is_better)
    return PluginScores(marks, values)


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, found["loc"]))
    return f"{where}: {found['msg']}" if where else str(found["msg"])
