"""What is in a dataset: each row counted, compared with the others, and the report written."""

import json
import os
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from datatunerx.data.errors import DataError, Problem
from datatunerx.data.formats import Conversation
from datatunerx.data.languages import Languages
from datatunerx.data.lengths import without_loss
from datatunerx.data.overlap import HeldOut, content_hash, copies
from datatunerx.data.report import Tally, problem_lines
from datatunerx.data.rows import Row, batches, content_digest, read_files, recognised
from datatunerx.data.splits import Decided, Division, made_shares
from datatunerx.data.templates import ChatTemplate, Example
from datatunerx.data.tokens import encoded
from datatunerx.resources.enums import Split
from datatunerx.resources.material import DataReport, Overlap
from datatunerx.runs.plan import DataFiles
from datatunerx.runs.result import DataFacts

PREVIEWED = 3


def inspect(
    files: DataFiles,
    tokenizer_path: Path | None = None,
    template: str | None = None,
    report_path: Path | None = None,
    on_progress: Callable[[int, float], None] | None = None,
) -> DataFacts:
    """Digest and report of the dataset; with a tokenizer, in tokens too. Nothing is cut to length here.

    The report goes to `report_path` as JSON, with the first problems whole and the first rows as text with
    the characters that carry loss. `on_progress` is called with the rows read so far and rows per second, as
    they are read the first time. Raises DataError for files that cannot be read and if no row, or no row
    of the train split, can be used.
    """
    if not files.splits.get(Split.TRAIN):
        raise DataError(
            f"dataset {files.name} has no train files", field="splits.train", fix="name at least one"
        )
    chat = ChatTemplate.load(tokenizer_path, template) if tokenizer_path is not None else None
    reading, begun = _Reading(files, chat), time.monotonic()

    def told(found: Iterable[Sequence[Row]]) -> Iterator[Sequence[Row]]:
        for batch in found:
            yield batch
            if on_progress is not None:
                on_progress(reading.tally.read, reading.tally.read / max(time.monotonic() - begun, 1e-9))

    for split in Split:
        reading.take(split, told(batches(read_files(files, split))))
    facts = DataFacts(digest=content_digest(files), report=reading.report())
    if report_path is not None:
        facts.report_uri = report_path.absolute().as_uri()
        document = facts.dump() | {
            "problems": problem_lines(reading.tally.problems),
            "template": chat.source if chat else "",
            "preview": reading.previews,
        }
        _publish(report_path, json.dumps(document, ensure_ascii=False, indent=2))
    return facts


class _Reading:
    """What is known of the rows read so far; about 30 bytes of memory a row."""

    def __init__(self, files: DataFiles, chat: ChatTemplate | None) -> None:
        self.files, self.chat = files, chat
        self.tally = Tally(chat.end_ids if chat else ())
        self.previews: list[dict[str, Any]] = []
        self._languages = Languages()
        self._division = Division(made_shares(files), files.auto_split.seed)
        # Of the rows of train files: where they stand among all; of those that are kept, too.
        self._places, self._kept = array("Q"), array("Q")
        # What they say; of the rows of other files, too.
        self._trained, self._held_out = array("Q"), array("Q")

    def take(self, split: Split, rows: Iterable[Sequence[Row]]) -> None:
        """All rows of the files that are named for the split."""
        for row, made in self._counted(rows):
            if isinstance(row.value, Conversation):
                self._compare_later(split, row, row.value, kept=not isinstance(made, Problem))
            if isinstance(made, Problem):
                self.tally.drop(made)
                continue
            self.tally.keep(split, [made.labels] if made else ())
            if len(self.previews) < PREVIEWED:
                self.previews.append(self._preview(row, made))

    def _counted(self, rows: Iterable[Sequence[Row]]) -> Iterator[tuple[Row, Example | Problem | None]]:
        """The rows, each with its tokens if there is a tokenizer."""
        if self.chat is None:
            for row in chain.from_iterable(rows):
                yield row, row.value if isinstance(row.value, Problem) else None
            return
        for row, made in chain.from_iterable(encoded(rows, self.chat)):
            silent = isinstance(made, Example) and not (made.labels >= 0).any()
            yield row, without_loss(row) if silent else made

    def _compare_later(self, split: Split, row: Row, value: Conversation, *, kept: bool) -> None:
        content = content_hash(value)
        if kept:
            self._languages.add(content, value)
        if split is not Split.TRAIN:
            self._held_out.append(content)
            return
        self._trained.append(content)
        if self._division.shares:
            place = self._division.add(row)
            self._places.append(place)
            if kept:
                self._kept.append(place)

    def _preview(self, row: Row, made: Example | None) -> dict[str, Any]:
        """The row as its tokens say it, with the characters that carry loss; or as it was read."""
        if self.chat is None or made is None:
            assert isinstance(row.value, Conversation)
            return {"row": row.where, **_as_read(row.value)}
        text, trained = self.chat.decoded(made)
        return {"row": row.where, "text": text, "trained": trained}

    def report(self) -> DataReport:
        """The counts of all. Raises DataError if nothing can be trained on."""
        if not self.tally.kept[Split.TRAIN]:
            raise self.tally.nothing_kept(Split.TRAIN)
        decided = self._division.decided() if self._division.shares else None
        if decided:
            moved = np.bincount(decided.numbers(_numbers(self._kept)), minlength=len(decided.splits)).tolist()
            self.tally.kept[Split.TRAIN] -= sum(moved)
            for split, count in zip(decided.splits, moved, strict=True):
                self.tally.kept[split] += count
        report = self.tally.report(recognised(self.files))
        report.languages = self._languages.counted()
        report.overlap = self._overlap(decided)
        return report

    def _overlap(self, decided: Decided | None) -> Overlap:
        made = decided.numbers(_numbers(self._places)) > 0 if decided else np.zeros(len(self._trained), bool)
        held = np.concatenate([made, np.ones(len(self._held_out), bool)])
        contents = np.concatenate([_numbers(self._trained), _numbers(self._held_out)])
        index = HeldOut()
        if held.any():
            self._hold_against(index, decided)
        return index.overlap(*copies(contents, held))

    def _hold_against(self, index: HeldOut, decided: Decided | None) -> None:
        """Train rows against held-out ones. The files are read again, which keeps memory small."""
        for split in (Split.VALIDATE, Split.TEST):
            for row in read_files(self.files, split):
                if isinstance(row.value, Conversation):
                    index.add(row.value, row.where)
        if decided:
            for row in read_files(self.files, Split.TRAIN):
                if isinstance(row.value, Conversation) and self._is_held_out(row, decided):
                    index.add(row.value, row.where)
        for batch in batches(read_files(self.files, Split.TRAIN)):
            good = [(row.value, row) for row in batch if isinstance(row.value, Conversation)]
            index.compare([(value, row.where) for value, row in good if not self._is_held_out(row, decided)])

    def _is_held_out(self, row: Row, decided: Decided | None) -> bool:
        return decided is not None and decided(self._division.place_of(row)) is not Split.TRAIN


def _numbers(values: "array[int]") -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.frombuffer(values, dtype=np.uint64)


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
