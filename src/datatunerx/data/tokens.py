"""Rows into token ids and labels, cut to length by the stated policies, every cut and drop counted."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datatunerx.data.cache import RowWriter, TokenRows, cached, code_version
from datatunerx.data.errors import DataError, Problem, TemplateError
from datatunerx.data.formats import Conversation
from datatunerx.data.report import Tally
from datatunerx.data.rows import Row, batches, read_rows, unchanged_digest
from datatunerx.data.templates import MASKING_VERSION, ChatTemplate, Example, Rendered
from datatunerx.resources.enums import Split, TooLong, Untrainable
from datatunerx.resources.material import DataReport
from datatunerx.runs.plan import DataFiles, digest_of

Progress = Callable[[int, float], None]
"""Called with the rows read so far and rows per second."""
TOO_LONG = "longer than cutoffLength"
UNTRAINABLE = "no trained token within cutoffLength"
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
    on_progress: Progress | None = None,
    model_digest: str = "",
) -> TokenRows:
    """The split's rows as tokens, from the cache under `cache_dir` or into it.

    Raises DataError if the files are not those that were inspected, if a policy says so, or if the split has
    rows and none can be trained on. A split without rows gives no rows.
    """
    chat = ChatTemplate.load(tokenizer_dir, template)
    digest = unchanged_digest(files)
    key = cache_key(
        files, split, digest, chat, tokenizer_dir, cutoff_length, too_long, untrainable, model_digest
    )
    cut = _Cut(cutoff_length, too_long, untrainable)

    def build(writer: RowWriter) -> DataReport:
        return _write(writer, _single_answers(read_rows(files, split)), split, chat, cut, on_progress)

    return cached(cache_dir / "tokens" / key, build)


def cache_key(
    files: DataFiles,
    split: Split,
    digest: str,
    chat: ChatTemplate,
    tokenizer_dir: Path,
    cutoff_length: int,
    too_long: TooLong,
    untrainable: Untrainable,
    model_digest: str,
) -> str:
    """Digest of everything that the tokens depend on."""
    made_of: dict[str, Any] = {
        "content": digest,
        "split": split,
        "reading": files.model_copy(update={"digest": "", "name": ""}).dump(),
        "tokenizer": hashlib.sha256((tokenizer_dir / "tokenizer.json").read_bytes()).hexdigest(),
        "specialTokens": chat.tokens,
        "model": model_digest,
        "template": chat.text,
        "day": date.today().isoformat() if "strftime_now" in chat.text else "",
        "cutoff": cutoff_length,
        "tooLong": too_long,
        "untrainable": untrainable,
        "masking": MASKING_VERSION,
        "code": code_version(),
        "libraries": {name: version(name) for name in ("tokenizers", "jinja2")},
    }
    return digest_of(made_of)


class _Cut:
    """The length policies, and what is needed to say what would have helped."""

    def __init__(self, cutoff_length: int, too_long: TooLong, untrainable: Untrainable) -> None:
        self.cutoff, self.too_long, self.untrainable = cutoff_length, too_long, untrainable
        self.longest_prompt = 0
        self.shortest_too_long: int | None = None

    def apply(self, row: Row, example: Example) -> tuple[Example, bool] | Problem:
        """The example as it is used, and whether it was cut. Raises DataError where a policy is error."""
        length = len(example.ids)
        first = next(iter((example.labels >= 0).nonzero()[0].tolist()), length)
        is_cut = length > self.cutoff
        if is_cut and self.too_long is not TooLong.TRUNCATE:
            problem = Problem(
                TOO_LONG, row.file, row.line, found=f"{length} tokens, cutoffLength {self.cutoff}",
                fix=f"raise cutoffLength to {length}, shorten the row, or set tooLong to truncate",
            )  # fmt: skip
            if self.too_long is TooLong.ERROR:
                raise problem.error()
            self.shortest_too_long = min(length, self.shortest_too_long or length)
            return problem
        if first >= min(length, self.cutoff):
            problem = Problem(
                UNTRAINABLE, row.file, row.line,
                found=f"its prompt is {first} tokens, cutoffLength {self.cutoff}",
                fix=f"raise cutoffLength to at least {first + 1}, or shorten the prompt",
            )  # fmt: skip
            if self.untrainable is Untrainable.ERROR:
                raise problem.error()
            self.longest_prompt = max(self.longest_prompt, first)
            return problem
        return Example(example.ids[: self.cutoff], example.labels[: self.cutoff]), is_cut

    def nothing_kept(self, tally: Tally, split: Split) -> DataError:
        """Why no row is left."""
        if tally.count(UNTRAINABLE):
            return DataError(
                f"cutoffLength {self.cutoff} leaves no trained token in any row; the longest prompt is "
                f"{self.longest_prompt} tokens",
                tally.problems[0].file, field="cutoffLength",
                fix=f"raise cutoffLength to at least {self.longest_prompt + 1}",
            )  # fmt: skip
        if self.shortest_too_long is not None:
            return DataError(
                f"every row is longer than cutoffLength {self.cutoff}; the shortest is "
                f"{self.shortest_too_long} tokens",
                tally.problems[0].file, field="cutoffLength",
                fix=f"raise cutoffLength to at least {self.shortest_too_long}, or set tooLong to truncate",
            )  # fmt: skip
        return tally.nothing_kept(split)


def _write(
    writer: RowWriter,
    rows: Iterator[Row],
    split: Split,
    chat: ChatTemplate,
    cut: _Cut,
    on_progress: Progress | None,
) -> DataReport:
    tally, begun = Tally(), time.monotonic()
    for batch in batches(rows):
        for row, example in encoded(batch, chat):
            used = example if isinstance(example, Problem) else cut.apply(row, example)
            if isinstance(used, Problem):
                tally.drop(used)
                continue
            (ids, labels), is_cut = used
            writer.append(ids, labels, row.file, row.line)
            tally.keep(split, labels, truncated=is_cut)
        if on_progress is not None:
            on_progress(tally.read, tally.read / max(time.monotonic() - begun, 1e-9))
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


def encoded(batch: Sequence[Row], chat: ChatTemplate) -> Iterator[tuple[Row, Example | Problem]]:
    """The rows in order, each with its tokens or the Problem that keeps it from having any."""
    good = [row.value for row in batch if isinstance(row.value, Conversation)]
    rendered = chat.rendered_batch(good)
    examples = iter(chat.encode_batch([one for one in rendered if isinstance(one, Rendered)]))
    made = iter([next(examples) if isinstance(one, Rendered) else one for one in rendered])
    for row in batch:
        example = row.value if isinstance(row.value, Problem) else next(made)
        yield row, _unmasked(row, example) if isinstance(example, TemplateError) else example


def _unmasked(row: Row, error: TemplateError) -> Problem:
    return Problem(UNMASKED, row.file, row.line, found=error.message, fix=error.fix)
