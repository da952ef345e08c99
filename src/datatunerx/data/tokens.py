"""Rows into token ids and labels, cut to length by the stated policies, every cut and drop counted."""

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from datatunerx.data.cache import RowWriter, TokenRows, cached, code_version
from datatunerx.data.errors import DataError, Problem, TemplateError
from datatunerx.data.formats import Conversation
from datatunerx.data.lengths import Cut
from datatunerx.data.meter import Meter, Progress
from datatunerx.data.pieces import Piece, of_split, processes_for, rows_of, worked
from datatunerx.data.report import Tally
from datatunerx.data.rows import BATCH_ROWS, Row, unchanged_digest
from datatunerx.data.templates import MASKING_VERSION, ChatTemplate, Example, LeftOut, Rendered
from datatunerx.resources.enums import Split, TooLong, TruncateSide, Untrainable
from datatunerx.resources.material import DataReport
from datatunerx.runs.plan import DataFiles, digest_of

UNMASKED = "the chat template does not take the row"


def tokenise(
    files: DataFiles,
    split: Split,
    *,
    tokenizer_dir: Path,
    template: str | None,
    cutoff_length: int,
    too_long: TooLong,
    untrainable: Untrainable,
    cache_dir: Path,
    truncate_side: TruncateSide = TruncateSide.RIGHT,
    on_progress: Progress | None = None,
    model_digest: str = "",
    processes: int | None = None,
) -> TokenRows:
    """The split's rows as tokens, from the cache under `cache_dir` or into it.

    `processes` is in how many they are made, which changes nothing in them; as many as the data is worth and
    there are cores for, if it is not said. `on_progress` hears of the pass that divides the train rows, if
    splits are made of them, and of the one that tokenises.

    Raises DataError if the files are not those that were inspected, if a policy says so, or if the split has
    rows and none can be trained on. A split without rows gives no rows.
    """
    chat = ChatTemplate.load(tokenizer_dir, template)
    digest = unchanged_digest(files, cache_dir / "digests")
    cut = Cut(cutoff_length, too_long, untrainable, truncate_side)
    key = cache_key(files, split, digest, chat, tokenizer_dir, cut, model_digest)

    def build(writer: RowWriter) -> DataReport:
        many = processes or processes_for(files, split)
        pieces = of_split(files, split, many, on_progress)
        made = worked(_Tokenising(files, split, chat, cut), pieces, many)
        with closing(made):
            meter = Meter(on_progress, "tokenising", num_rows=files.rows.get(split, 0))
            return _write(writer, made, split, chat, cut, meter)

    return cached(cache_dir / "tokens" / key, build)


def cache_key(
    files: DataFiles,
    split: Split,
    digest: str,
    chat: ChatTemplate,
    tokenizer_dir: Path,
    cut: Cut,
    model_digest: str,
) -> str:
    """Digest of everything that the tokens depend on."""
    made_of: dict[str, Any] = {
        "content": digest,
        "split": split,
        "reading": files.model_copy(update={"digest": "", "name": "", "rows": {}}).dump(),
        "tokenizer": hashlib.sha256((tokenizer_dir / "tokenizer.json").read_bytes()).hexdigest(),
        "specialTokens": chat.tokens,
        "model": model_digest,
        "template": chat.text,
        "day": date.today().isoformat() if "strftime_now" in chat.text else "",
        "cutoff": cut.cutoff,
        "tooLong": cut.too_long,
        "side": cut.side if cut.too_long is TooLong.TRUNCATE else "",
        "untrainable": cut.untrainable,
        "masking": MASKING_VERSION,
        "code": code_version(),
        "libraries": {name: version(name) for name in ("tokenizers", "jinja2")},
    }
    return digest_of(made_of)


class Block(NamedTuple):
    """What becomes of a piece: the rows that are used, end to end, and the account of all."""

    file: str
    ids: bytes
    labels: bytes
    """Both int32 [tokens]."""
    lengths: "array[int]"
    lines: "array[int]"
    """Of each row its number of tokens, and the line it was made of."""
    tally: Tally
    cut: Cut


@dataclass(frozen=True)
class _Tokenising:
    """Rows into tokens, in whichever process."""

    files: DataFiles
    split: Split
    chat: ChatTemplate
    cut: Cut

    def __call__(self, piece: Piece) -> Block:
        tally, cut = Tally(self.chat.end_ids), self.cut.anew()
        ids, labels, lengths, lines = list[bytes](), list[bytes](), array("q"), array("q")
        rows = _single_answers(rows_of(piece, self.files))
        for row, example in encoded(rows, self.chat):
            used = example if isinstance(example, Problem) else cut.apply(row, example)
            if isinstance(used, Problem):
                tally.drop(used)
                continue
            for one in used.examples:
                ids.append(one.ids.tobytes())
                labels.append(one.labels.tobytes())
                lengths.append(len(one.ids))
                lines.append(row.line)
            tally.keep(self.split, [one.labels for one in used.examples], cut_tokens=used.cut_tokens)
        return Block(piece.uri, b"".join(ids), b"".join(labels), lengths, lines, tally, cut)


def _write(
    writer: RowWriter,
    blocks: Iterable[Block],
    split: Split,
    chat: ChatTemplate,
    cut: Cut,
    meter: Meter,
) -> DataReport:
    tally = Tally(chat.end_ids)
    for block in blocks:
        writer.append(block.ids, block.labels, block.lengths, block.file, block.lines)
        tally.add(block.tally)
        cut.learn(block.cut)
        meter.add(block.tally.read)
    if tally.read and not tally.kept[split]:
        raise cut.nothing_kept(tally, split)
    return tally.report()


def _single_answers(rows: Iterator[Row]) -> Iterator[Row]:
    """The rows, for an objective that learns every answer it is given. Raises DataError for rows that hold
    answers which are not wanted: to leave those out in silence is not for us to choose."""
    for row in rows:
        if isinstance(row.value, Conversation) and row.value.rejected is not None:
            fix = (
                "set objective to DPO; or train on the chosen answers alone, by the Dataset's features: "
                "name: completion, mapTo: chosen (name: messages if they are whole conversations)"
            )
            raise DataError("objective SFT does not learn from pairs", row.file, row.line, "rejected", fix)
        if isinstance(row.value, Conversation) and row.value.label is not None:
            fix = (
                "set objective to KTO; or write the wanted answers into a file without the label column, "
                "or set the Dataset's format to prompt-completion to train on all of them"
            )
            raise DataError("objective SFT does not learn from labels", row.file, row.line, "label", fix)
        yield row


def encoded(rows: Iterator[Row], chat: ChatTemplate) -> Iterator[tuple[Row, Example | Problem]]:
    """The rows in order, each with its tokens or the Problem that keeps it from having any."""
    while batch := list(islice(rows, BATCH_ROWS)):
        good = [row.value for row in batch if isinstance(row.value, Conversation)]
        rendered = chat.rendered_batch(good)
        examples = iter(chat.encode_batch([one for one in rendered if isinstance(one, Rendered)]))
        made = iter([next(examples) if isinstance(one, Rendered) else one for one in rendered])
        for row in batch:
            example = row.value if isinstance(row.value, Problem) else next(made)
            yield row, _unmasked(row, example) if isinstance(example, TemplateError) else example


def _unmasked(row: Row, error: TemplateError) -> Problem:
    if isinstance(error, LeftOut):
        return Problem(f"chat template: {error.message}", row.file, row.line, fix=error.fix)
    return Problem(UNMASKED, row.file, row.line, found=error.message, fix=error.fix)
