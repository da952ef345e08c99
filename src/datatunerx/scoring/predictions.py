"""What a model answered, row by row, as JSONL: a new metric needs no new generation."""

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from datatunerx.scoring.errors import PredictionsError


@dataclass(frozen=True)
class Prediction:
    """One row of a split, what a model answered, and what it should have."""

    row: int
    """Position in the split, from 0; pairs the rows of two models."""
    question: str
    reference: str
    answer: str
    nll: float | None = None
    """Negative log-likelihood of the reference, in nats, summed over its tokens."""
    tokens: int | None = None
    """Number of tokens in that sum."""
    finish: str = "stop"
    """Why generation ended: `stop` at an end token, `length` at the limit."""


_TYPES: dict[str, tuple[type, ...]] = {
    "row": (int,), "question": (str,), "reference": (str,), "answer": (str,),
    "nll": (float, int, type(None)), "tokens": (int, type(None)), "finish": (str,),
}  # fmt: skip
_REQUIRED = ("row", "question", "reference", "answer")


def write_predictions(path: str | os.PathLike[str], predictions: Iterable[Prediction]) -> None:
    """Write one JSON object a line; the file appears whole or not at all.

    A number that is not finite is written as null: it is missing for every later reader too.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            for prediction in predictions:
                file.write(_encode(prediction) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the rename itself is durable only with its directory
    finally:
        os.close(directory)


def read_predictions(path: str | os.PathLike[str]) -> list[Prediction]:
    """Read what `write_predictions` wrote.

    Raises `PredictionsError` naming file, line and field for anything else, also for a row met twice.
    """
    predictions: list[Prediction] = []
    seen: dict[int, int] = {}
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            prediction = _decode(line, f"{path}:{number}")
            first = seen.setdefault(prediction.row, number)
            if first != number:
                raise PredictionsError(
                    f"{path}:{number}: row {prediction.row} is already on line {first}; keep one of them"
                )
            predictions.append(prediction)
    return predictions


def _encode(prediction: Prediction) -> bytes:
    document = asdict(prediction)
    if prediction.nll is not None and not math.isfinite(prediction.nll):
        document["nll"] = None
    try:
        return json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair has no UTF-8; an escape keeps it
        return json.dumps(document, ensure_ascii=True, allow_nan=False).encode()


def _decode(line: bytes, where: str) -> Prediction:
    try:
        document: Any = json.loads(line)
    except UnicodeDecodeError as error:
        raise PredictionsError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        raise PredictionsError(
            f"{where}: not one JSON object a line ({error}); score again to renew it"
        ) from None
    if not isinstance(document, dict):
        raise PredictionsError(f"{where}: expected a JSON object, found {type(document).__name__}")
    known = {field.name for field in fields(Prediction)}
    unknown = sorted(document.keys() - known)
    if unknown:
        raise PredictionsError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    for name in _REQUIRED:
        if name not in document:
            raise PredictionsError(f"{where}: field {name!r} is missing")
    for name, value in document.items():
        # bool is an int to Python, and true is no row number
        if isinstance(value, bool) or not isinstance(value, _TYPES[name]):
            raise PredictionsError(f"{where}: field {name!r} cannot be {json.dumps(value)[:40]}")
    return Prediction(**document)
