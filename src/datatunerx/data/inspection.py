"""What is in a dataset: each file read once, each row counted, and the report written."""

import json
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datatunerx.data.errors import DataError, Problem
from datatunerx.data.formats import Conversation
from datatunerx.data.report import Tally, problem_lines
from datatunerx.data.rows import (
    Row,
    batches,
    content_digest,
    divide,
    made_shares,
    place_of,
    read_files,
    recognised,
)
from datatunerx.data.templates import ChatTemplate
from datatunerx.data.tokens import encoded
from datatunerx.resources.enums import Split
from datatunerx.runs.plan import DataFiles
from datatunerx.runs.result import DataFacts

PREVIEWED = 3


def inspect(
    files: DataFiles,
    tokenizer_path: Path | None = None,
    template: str | None = None,
    report_path: Path | None = None,
) -> DataFacts:
    """Digest and report of the dataset; with a tokenizer, in tokens too. Nothing is cut to length here.

    The report goes to `report_path` as JSON, with the first problems whole and the first rows as text with
    the characters that carry loss. Raises DataError for files that cannot be read and if no row, or no row
    of the train split, can be used.
    """
    if not files.splits.get(Split.TRAIN):
        raise DataError(
            f"dataset {files.name} has no train files", field="splits.train", fix="name at least one"
        )
    chat = ChatTemplate.load(tokenizer_path, template) if tokenizer_path is not None else None
    tally, made = Tally(), _MadeSplits(files)
    previews: list[dict[str, Any]] = []
    for split in Split:
        for batch in batches(read_files(files, split)):
            _count(tally, split, batch, chat, made)
            previews += _previews(batch, chat, PREVIEWED - len(previews))
    if not tally.kept[Split.TRAIN]:
        raise tally.nothing_kept(Split.TRAIN)
    made.apply(tally)
    facts = DataFacts(digest=content_digest(files), report=tally.report(recognised(files)))
    if report_path is not None:
        facts.report_uri = report_path.absolute().as_uri()
        document = facts.dump() | {"problems": problem_lines(tally.problems), "preview": previews}
        _publish(report_path, json.dumps(document, ensure_ascii=False, indent=2))
    return facts


class _MadeSplits:
    """Counts the rows of splits that are made from train rows, without reading those a second time."""

    def __init__(self, files: DataFiles) -> None:
        self.shares, self.seed = made_shares(files), files.auto_split.seed
        self.all, self.kept = array("Q"), array("Q")

    def add(self, row: Row, kept: bool) -> None:
        if self.shares and isinstance(row.value, Conversation):
            place = place_of(row.value, self.seed)
            self.all.append(place)
            if kept:
                self.kept.append(place)

    def apply(self, tally: Tally) -> None:
        split_of = divide(np.frombuffer(self.all, dtype=np.uint64), self.shares)
        for place in self.kept:
            tally.kept[Split.TRAIN] -= 1
            tally.kept[split_of(place)] += 1


def _count(
    tally: Tally, split: Split, rows: Sequence[Row], chat: ChatTemplate | None, made: _MadeSplits
) -> None:
    counted: Iterator[tuple[Row, Any]] = encoded(rows, chat) if chat else ((row, row.value) for row in rows)
    for row, value in counted:
        kept = not isinstance(value, Problem)
        if kept:
            tally.keep(split, value.labels if chat else None)
        else:
            tally.drop(value)
        if split is Split.TRAIN:
            made.add(row, kept)


def _previews(rows: Sequence[Row], chat: ChatTemplate | None, count: int) -> list[dict[str, Any]]:
    """The first good rows: as text with what carries loss, or without a template as they were read."""
    shown: list[dict[str, Any]] = []
    for row in rows:
        if len(shown) >= count:
            break
        if isinstance(row.value, Problem):
            continue
        if chat is None:
            shown.append({"row": row.where, **_as_read(row.value)})
            continue
        try:
            rendered = chat.rendered(row.value.messages)
        except DataError:  # counted, and in the report with its reason
            continue
        shown.append(
            {
                "row": row.where,
                "text": rendered.text,
                "trained": [[span.start, span.end] for span in rendered.spans if span.trained],
            }
        )
    return shown


def _as_read(value: Conversation) -> dict[str, Any]:
    """What the row holds, without the parts that it has not."""
    parts = {"messages": value.messages, "tools": value.tools, "rejected": value.rejected}
    return {name: part for name, part in parts.items() if part} | (
        {} if value.label is None else {"label": value.label}
    )


def _publish(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
