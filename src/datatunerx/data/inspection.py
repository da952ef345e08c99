"""What is in a dataset: each row counted, compared with the others, and the report written."""

import json
import os
from array import array
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datatunerx.data.errors import DataError, Problem
from datatunerx.data.formats import Conversation
from datatunerx.data.languages import Languages
from datatunerx.data.lengths import without_loss
from datatunerx.data.meter import Meter, Progress
from datatunerx.data.overlap import MAX_HELD_OUT, HeldOut, Signed, content_hash, copies, signed
from datatunerx.data.pieces import Piece, chosen, num_bytes, of_files, processes_for, rows_of, worked
from datatunerx.data.report import Tally, problem_lines
from datatunerx.data.rows import Row, content_digest, recognised
from datatunerx.data.splits import Division, made_shares, main_split
from datatunerx.data.templates import ChatTemplate, Example
from datatunerx.data.tokens import encoded
from datatunerx.resources.enums import Split
from datatunerx.resources.material import DataReport, Overlap
from datatunerx.runs.plan import DataFiles
from datatunerx.runs.result import DataFacts

PREVIEWED = 3
FEW_ROWS = 3
"""By so many a made split may miss its share before anything is said: rows are not cut."""


def inspect(
    files: DataFiles,
    tokenizer_path: Path | None = None,
    template: str | None = None,
    report_path: Path | None = None,
    on_progress: Progress | None = None,
    processes: int | None = None,
) -> DataFacts:
    """Digest and report of the dataset; with a tokenizer, in tokens too. Nothing is cut to length here.

    The report goes to `report_path` as JSON, with the first problems whole and the first rows as text with
    the characters that carry loss. `on_progress` hears of each pass: the rows are read, those that are held
    out are signed, and the train rows are compared with them. `processes` is as for `tokenise`. Raises
    DataError for files that cannot be read and if no row of the main split can be used.
    """
    if not any(files.splits.values()):
        raise DataError(f"dataset {files.name} has no files", field="splits", fix="name at least one")
    chat = ChatTemplate.load(tokenizer_path, template) if tokenizer_path is not None else None
    reading = _Reading(files, chat, on_progress)

    meter = Meter(on_progress, "reading", num_bytes=sum(num_bytes(files, split) for split in Split))
    for split in Split:
        many = processes or processes_for(files, split)
        with closing(worked(_Inspecting(files, split, chat), of_files(files, split), many)) as blocks:
            for block in blocks:
                reading.take(split, block)
                meter.add(block.tally.read, block.size)
    many = processes or processes_for(files, Split.TRAIN)
    facts = DataFacts(digest=content_digest(files), report=reading.report(many))
    if report_path is not None:
        facts.report_uri = report_path.absolute().as_uri()
        document = facts.dump() | {
            "problems": problem_lines(reading.tally.problems),
            "template": chat.source if chat else "",
            "preview": reading.previews,
        }
        _publish(report_path, json.dumps(document, ensure_ascii=False, indent=2))
    return facts


class Block(NamedTuple):
    """What is known of the rows of a piece."""

    size: int
    """Bytes of the file that they take, or 0 if that cannot be told."""
    tally: Tally
    contents: "array[int]"
    """What each conversation says."""
    kept: bytes
    """Of each 1 if it can be used, else 0."""
    division: Division
    languages: Languages
    first: list[tuple[Row, Example | None]]
    """A few that can be used, with their tokens if there is a tokenizer."""
    with_tools: int = 0
    """How many can be used and have tools or calls."""


@dataclass(frozen=True)
class _Inspecting:
    """Rows into what is told of them, in whichever process."""

    files: DataFiles
    split: Split
    chat: ChatTemplate | None

    def __call__(self, piece: Piece) -> Block:
        tally, kept, with_tools = Tally(self.chat.end_ids if self.chat else ()), bytearray(), 0
        made = Block(
            piece.part.size if piece.part else 0,
            tally,
            array("Q"),
            b"",
            _division(self.files),
            Languages(),
            [],
        )
        for row, example in self._encoded(rows_of(piece, self.files)):
            if isinstance(row.value, Conversation):
                content = content_hash(row.value)
                made.contents.append(content)
                kept.append(not isinstance(example, Problem))
                if self.split is Split.TRAIN and made.division.shares:
                    made.division.add(row)
            if isinstance(example, Problem):
                made.tally.drop(example)
                continue
            assert isinstance(row.value, Conversation)
            with_tools += _has_tools(row.value)
            made.languages.add(content, row.value)
            made.tally.keep(self.split, [example.labels] if example else ())
            if len(made.first) < PREVIEWED:
                made.first.append((row, example))
        return made._replace(kept=bytes(kept), with_tools=with_tools)

    def _encoded(self, rows: Iterator[Row]) -> Iterator[tuple[Row, Example | Problem | None]]:
        """The rows, each with its tokens if there is a tokenizer."""
        if self.chat is None:
            for row in rows:
                yield row, row.value if isinstance(row.value, Problem) else None
            return
        for row, made in encoded(rows, self.chat):
            silent = isinstance(made, Example) and not (made.labels >= 0).any()
            yield row, without_loss(row) if silent else made


def _division(files: DataFiles) -> Division:
    return Division(made_shares(files), files.auto_split.seed)


class _Reading:
    """What is known of the rows read so far; about 30 bytes of memory a row."""

    def __init__(self, files: DataFiles, chat: ChatTemplate | None, on_progress: Progress | None) -> None:
        self.files, self.chat = files, chat
        self._on_progress = on_progress
        self.tally = Tally(chat.end_ids if chat else ())
        self.previews: list[dict[str, Any]] = []
        self._with_tools = 0
        self._languages = Languages()
        self._division = _division(files)
        # Of the conversations of train files: whether they can be used.
        self._kept = bytearray()
        # How many each piece has of them.
        self._counts = array("I")
        # What they say; of those of other files, too.
        self._trained, self._held_out = array("Q"), array("Q")

    def take(self, split: Split, block: Block) -> None:
        """The next rows of the files that are named for the split."""
        self.tally.add(block.tally)
        self._languages.extend(block.languages)
        self._with_tools += block.with_tools
        left = PREVIEWED - len(self.previews)
        self.previews += [self._preview(row, made) for row, made in block.first[:left]]
        if split is not Split.TRAIN:
            self._held_out.extend(block.contents)
            return
        self._trained.extend(block.contents)
        self._kept += block.kept
        self._counts.append(len(block.kept))
        self._division.extend(block.division)

    def _preview(self, row: Row, made: Example | None) -> dict[str, Any]:
        """The row as its tokens say it, with the characters that carry loss; or as it was read."""
        if self.chat is None or made is None:
            assert isinstance(row.value, Conversation)
            return {"row": row.where, **_as_read(row.value)}
        text, trained = self.chat.decoded(made)
        return {"row": row.where, "text": text, "trained": trained}

    def report(self, processes: int) -> DataReport:
        """The counts of all. Raises DataError if nothing can be trained on, or scored by."""
        main = main_split(self.files)
        if not self.tally.kept[main]:
            raise self.tally.nothing_kept(main)
        decided = self._division.decided() if self._division.shares else None
        numbers = self._division.numbers(decided) if decided else None
        self._division.forget()
        if decided and numbers is not None:
            kept = numbers[np.frombuffer(self._kept, dtype=np.bool_)]
            for number, split in enumerate(decided.splits[1:], 1):
                moved = int(np.count_nonzero(kept == number))
                self.tally.kept[Split.TRAIN] -= moved
                self.tally.kept[split] += moved
        del decided  # with many rows it is large
        report = self.tally.report(recognised(self.files))
        report.languages = self._languages.counted()
        report.overlap = self._overlap(numbers, processes)
        report.warnings = [text for split in self._division.shares if (text := self._unlike_asked(split))]
        if self._with_tools and self.chat is None:
            report.warnings.append(
                f"rows with tools or calls: {self._with_tools:,}; a model whose chat template does not write "
                "these drops them; name the model in spec.llm to know it now"
            )
        return report

    def _unlike_asked(self, split: Split) -> str:
        """What is to be said of a made split that is empty, or far from its share; else nothing."""
        got, asked = self.tally.kept[split], self._division.shares[split]
        if not got:
            return self._no_row(split)
        whole = self.tally.kept[Split.TRAIN] + sum(self.tally.kept[made] for made in self._division.shares)
        if abs(got - asked * whole) <= max(FEW_ROWS, asked * whole / 4):
            return ""
        why = "groups are few or large" if self.files.auto_split.group_by else "many rows say the same"
        return f"{got / whole:.1%} of the rows went to the {split} split, {asked:.1%} were asked for: {why}"

    def _no_row(self, split: Split) -> str:
        apart = "groups" if self.files.auto_split.group_by else "rows that differ"
        return (
            f"no row went to the {split} split, which is made from the train rows: too few {apart}; "
            "add some, name a file for it, or set its share to 0"
        )

    def _overlap(self, numbers: NDArray[np.int8] | None, processes: int) -> Overlap:
        made = np.zeros(len(self._trained), bool) if numbers is None else numbers > 0
        held = np.concatenate([made, np.ones(len(self._held_out), bool)])
        duplicates, leaked = copies(np.concatenate([_numbers(self._trained), _numbers(self._held_out)]), held)
        if main_split(self.files) is not Split.TRAIN:
            return Overlap(duplicates=duplicates)
        index, found = HeldOut(), dict[int, str]()
        if held.any():
            found = self._hold_against(index, made, processes)
        return Overlap(
            duplicates=duplicates, held_out=int(held.sum()), compared=len(index), leaked=leaked,
            near=len(found), where=index.where(found),
        )  # fmt: skip

    def _hold_against(self, index: HeldOut, made: NDArray[np.bool_], processes: int) -> dict[int, str]:
        """Train rows against held-out ones. The files are read again, which keeps memory small."""
        files, found = self.files, dict[int, str]()
        given = (piece for split in (Split.VALIDATE, Split.TEST) for piece in of_files(files, split))
        held_out = chain(given, chosen(files, Split.TEST, made, self._counts) if made.any() else ())
        many = min(len(self._held_out) + int(made.sum()), MAX_HELD_OUT)
        meter = Meter(self._on_progress, "signing the held-out rows of", num_rows=many)
        with closing(worked(_Signing(files), held_out, processes)) as lists:
            for rows in lists:
                meter.add(index.add(rows))
                if index.is_full:
                    break
        index.lay()
        train = chosen(files, Split.TRAIN, ~made, self._counts)
        doing = "looking for near copies in"
        meter = Meter(self._on_progress, doing, num_rows=len(made) - int(made.sum()))
        with closing(worked(_Comparing(files, index), train, processes)) as mets:
            for count, met in mets:
                found = met | found  # the first train row that comes near is told
                meter.add(count)
        return found


@dataclass(frozen=True)
class _Signing:
    files: DataFiles

    def __call__(self, piece: Piece) -> list[Signed]:
        return list(signed(_said(piece, self.files)))


@dataclass(frozen=True)
class _Comparing:
    files: DataFiles
    index: HeldOut

    def __call__(self, piece: Piece) -> tuple[int, dict[int, str]]:
        """How many rows there are, and which held-out rows they come near to."""
        rows = list(_said(piece, self.files))
        return len(rows), self.index.near(signed(rows))


def _said(piece: Piece, files: DataFiles) -> Iterator[tuple[Conversation, str]]:
    for row in rows_of(piece, files):
        if isinstance(row.value, Conversation):
            yield row.value, row.where


def _has_tools(value: Conversation) -> bool:
    return bool(value.tools) or any(message.get("tool_calls") for message in value.messages)


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
