"""A plan's jobs into jobs of the training loop: their rows as tokens, each dataset tokenised once."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datatunerx import storage
from datatunerx.data import ChatTemplate, TokenRows, tokenise
from datatunerx.data.gather import recall
from datatunerx.resources.enums import Split
from datatunerx.resources.training import TrainingParameters
from datatunerx.runs import DataFiles, Event, EventType, ModelFiles, TuneJob
from datatunerx.worker.journal import Journal
from datatunerx.worker.telling import telling

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "tokenizer.model",
)  # fmt: skip
_CONFIG = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"


@dataclass(frozen=True)
class Prepared:
    """A job with everything that needs no torch."""

    job: TuneJob
    folder: Path
    rows: TokenRows
    validate: TokenRows
    samples: list[tuple[str, list[int]]]


@dataclass
class Preparation:
    """What the jobs of one plan share."""

    model: ModelFiles
    data: dict[str, DataFiles]
    cache: Path
    journal: Journal
    template: ChatTemplate
    _rows: dict[tuple[object, ...], TokenRows] = field(default_factory=dict)

    def prepare(self, job: TuneJob) -> Prepared:
        """Raises `DataError`; what one job's data lacks concerns no other."""
        rows = self._tokens(job, Split.TRAIN)
        validate = self._tokens(job, Split.VALIDATE)
        self.journal.write(Event(type=EventType.DATA, job=job.name, report=rows.report))
        return Prepared(
            job=job,
            folder=storage.local_path(job.output_uri),
            rows=rows,
            validate=validate,
            samples=[(text, self.template.prompt_ids(_asked(job, text))) for text in job.samples],
        )

    def _tokens(self, job: TuneJob, split: Split) -> TokenRows:
        wanted = job.parameters
        key = (
            job.data, split, wanted.cutoff_length, wanted.too_long, wanted.truncate_side, wanted.untrainable
        )  # fmt: skip
        if key not in self._rows:
            self.journal.activity(f"tokenising the {split} split of {job.data}", job.name)
            # On a full disk the cache cannot be written; the run waits as it does for checkpoints.
            self._rows[key] = self.journal.with_space(self._tokenise(job.data, split, wanted))
        return self._rows[key]

    def _tokenise(self, name: str, split: Split, wanted: TrainingParameters) -> Callable[[], TokenRows]:
        fetched = storage.local_path(self.journal.plan.fetched_uri)
        return lambda: tokenise(
            recall(self.data[name], fetched), split,
            tokenizer_dir=storage.local_path(self.model.uri), template=self.model.template,
            cutoff_length=wanted.cutoff_length, too_long=wanted.too_long, untrainable=wanted.untrainable,
            truncate_side=wanted.truncate_side,
            cache_dir=self.cache, model_digest=self.model.digest,
            on_progress=telling(self.journal, name),
        )  # fmt: skip


def _asked(job: TuneJob, text: str) -> list[dict[str, Any]]:
    """A sample prompt as the model gets it."""
    system = job.sample_system_prompt
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": text}]


def files_beside(model_dir: Path, template: ChatTemplate) -> dict[str, bytes]:
    """The tokenizer and the template as trained with: a checkpoint holds them, so nobody names them again.

    The template stands in one place only, lest another reader finds the base model's own.
    """
    found = {name: model_dir / name for name in _TOKENIZER_FILES if (model_dir / name).is_file()}
    beside = {name: path.read_bytes() for name, path in found.items()}
    if _CONFIG in beside:
        config = json.loads(beside[_CONFIG])
        config.pop("chat_template", None)
        beside[_CONFIG] = json.dumps(config, ensure_ascii=False, indent=2).encode()
    return beside | {TEMPLATE_FILE: template.text.encode()}
