"""What lines of events measured: the points of curves.

A long history is hundreds of megabytes, so only what is needed is decoded: some 200 MB of lines a second,
where the decoder alone does 400 and one `json.loads` a line did 40.
"""

import re
from collections.abc import Iterator
from typing import Annotated

import msgspec

OF_PROGRESS = ("tokens", "epoch", "tokensPerSecond")
CHECKPOINT = "checkpoint"
"""The series of checkpoints; its value is the eval loss there, None where it was not measured."""
JOB = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
NAME = re.compile(r"[A-Za-z]\w{0,63}")

Measured = dict[tuple[str, ...], list[float | None]]
"""By (job, name, name ...): line, time, step and a value of each name; then those of the next line."""
HEAD = 3
"""How many are before the values."""


_Step = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]


class _Progress(msgspec.Struct, gc=False, rename="camel"):
    step: _Step
    tokens: float | None = None
    epoch: float | None = None
    tokens_per_second: float | None = None


class _Checkpoint(msgspec.Struct, gc=False, rename="camel"):
    step: _Step
    eval_loss: float | None = None


class _Line(msgspec.Struct, gc=False):
    time: float
    job: str | None = None
    step: _Step = -1
    values: dict[str, float] | None = None
    progress: _Progress | None = None
    checkpoint: _Checkpoint | None = None


_lines = msgspec.json.Decoder(_Line)


def measured(data: bytes) -> Measured:
    """What whole lines of events measured; nothing for other events, and for lines that are none."""
    found: Measured = {}
    for number, line in enumerate(_decoded(data)):
        row: tuple[float | None, ...]
        if (values := line.values) is not None and line.step >= 0:
            key = (line.job or "", *values)
            row = (number, line.time, line.step, *values.values())
        elif (told := line.progress) is not None:
            key = (line.job or "", *OF_PROGRESS)
            row = number, line.time, told.step, told.tokens, told.epoch, told.tokens_per_second
        elif (saved := line.checkpoint) is not None:
            key = line.job or "", CHECKPOINT
            row = number, line.time, saved.step, saved.eval_loss
        else:
            continue
        try:
            found[key] += row
        except KeyError:
            found[key] = list(row)
    return {key: rows for key, rows in found.items() if JOB.fullmatch(key[0])}


def _decoded(data: bytes) -> Iterator[_Line]:
    try:
        return iter(_lines.decode_lines(data))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _one_by_one(data)


def _one_by_one(data: bytes) -> Iterator[_Line]:
    for line in data.split(b"\n"):
        try:
            yield _lines.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue  # torn by a worker's death, or no event
