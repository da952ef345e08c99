"""A checkpoint in another form: made beside its target, checked against base + adapter, then put in place.

Whatever goes wrong, nothing is at the target, and what was made is removed.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datatunerx import storage
from datatunerx.data import ChatTemplate, DataError, Problem, questions
from datatunerx.data.gather import recall
from datatunerx.resources.enums import ExportFormat, ExportType, Precision, RunPhase, Split
from datatunerx.resources.export import ExportCheck, ExportOutcome
from datatunerx.runs import RunResult
from datatunerx.runs.plan import AdapterFiles, ExportPlan
from datatunerx.storage import registry
from datatunerx.storage.layout import lay_out
from datatunerx.storage.paths import refuse_private
from datatunerx.worker.background import check_model, load
from datatunerx.worker.card import card, in_words
from datatunerx.worker.credentials import Secrets, credentials_for
from datatunerx.worker.journal import Journal

if TYPE_CHECKING:
    from datatunerx.modeling.exported import Asked

PROMPTS = 20
RECORD = "export.json"
"""Written last: every file with its size and SHA-256, and what was checked."""
GGUF = "model.gguf"
STORED = (
    "Hello! Who are you?", "What can you help me with?", "Summarise: the parcel came late and wet.",
    "Translate to French: good morning.", "What is 17 plus 25?", "Name three colours.", "Write a rain haiku.",
    "Is a tomato a fruit?", "Explain gravity to a child.", "Give me a JSON object with a name and an age.",
    "What day comes after Monday?", "Correct this sentence: he go to school.", "Who wrote Hamlet?",
    "List the steps to make tea.", "What is the capital of Japan?", "Classify: I want my money back.",
    "Write one line of Python that prints 1 to 5.", "What is the opposite of cold?", "Tell me a short joke.",
    "Reply with yes or no: is water wet?",
)  # fmt: skip
"""Asked where the data has fewer than PROMPTS questions."""


class CannotExport(ValueError):
    """The checkpoint or the target cannot be used; the message says what to do."""


class NotTheSame(ValueError):
    """The export is not what was trained, so it is not offered."""


@dataclass(frozen=True)
class Chat:
    messages: list[dict[str, Any]]
    tools: Sequence[Any]
    ids: list[int]
    """As trained with."""


def export(plan: ExportPlan, journal: Journal, secrets: Secrets) -> RunResult:
    """Make, check, publish. Raises CannotExport, NotTheSame and what the parts raise; leaves nothing then."""
    pushed = plan.target_uri.startswith(registry.SCHEME)
    who = credentials_for(plan.access, secrets)
    if pushed:
        registry.must_be_free(plan.target_uri, who, plain_http=plan.plain_http)
    else:
        _must_be_free(plan, journal)
    check_adapter(plan.adapter, storage.local_path(journal.plan.models_uri))
    with _workplace(storage.local_path(plan.work_uri)) as place:
        template = ChatTemplate.load(storage.local_path(plan.adapter.uri))
        chats = _chats(plan, template, journal)
        kind, check = _make(plan, place, template, chats, journal)
        (place / "README.md").write_text(card(plan, kind, check), encoding="utf-8")
        record = _record(plan, place, kind, check, chats)
        size = sum(path.stat().st_size for path in place.iterdir())
        digest = hashlib.sha256(record.read_bytes()).hexdigest()
        if pushed or plan.layout:
            digest = lay_out(place, sorted(place.iterdir()), record)
        if pushed:
            journal.activity(f"pushing {size / 1e6:,.1f} MB to {plan.target_uri}")
            registry.push(plan.target_uri, place, who, plain_http=plan.plain_http)
        else:
            target = storage.local_path(plan.target_uri)
            if not storage.publish_dir(place, target):
                raise CannotExport(f"{target}: something came to be there meanwhile; choose another folder")
    outcome = ExportOutcome(uri=plan.target_uri, digest=digest, bytes=size, check=check)
    message = in_words(check)
    return RunResult(plan_id=journal.plan.id, phase=RunPhase.SUCCEEDED, message=message, export=outcome)


def check_adapter(adapter: AdapterFiles, models: Path) -> None:
    """Raise unless base and adapter are, byte for byte, those that were recorded."""
    from datatunerx.training.checkpoints import DamagedCheckpoint, read, verify

    check_model(adapter.model, models)
    folder = storage.local_path(adapter.uri)
    found = read(folder)
    if found is None:
        raise DamagedCheckpoint(f"{folder}: no whole checkpoint is there; train it again")
    if adapter.digest and found.digest != adapter.digest:
        raise DamagedCheckpoint(f"{folder}: another checkpoint than was published; train it again")
    verify(found)


def _must_be_free(plan: ExportPlan, journal: Journal) -> None:
    target = storage.local_path(plan.target_uri)
    own = storage.local_path(journal.plan.output_uri).parents[1] / "exports"
    home = storage.local_path(journal.plan.private_uri) if journal.plan.private_uri else None
    try:
        refuse_private(target, plan.target_uri, home, own)
    except storage.StorageError:
        raise CannotExport(f"{target} lies in the server's own folders; choose one outside") from None
    if target.exists() or target.is_symlink():
        raise CannotExport(f"{target} is there already; choose another folder, nothing is overwritten")
    need = _estimate(plan)
    free = storage.free_bytes(plan.target_uri)
    if need > free:
        raise storage.DiskFull(
            f"{target}: the export takes about {need / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free"
        )


def _estimate(plan: ExportPlan) -> int:
    """Bytes at the most: the merged weights in the base's type, and beside them what is made of them."""
    folder = storage.local_path(
        plan.adapter.uri if plan.to is ExportFormat.ADAPTER else plan.adapter.model.uri
    )
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return size if plan.to in (ExportFormat.ADAPTER, ExportFormat.HF) else 2 * size


@contextmanager
def _workplace(place: Path) -> Iterator[Path]:
    """A fresh folder, gone afterwards unless it was renamed."""
    shutil.rmtree(place, ignore_errors=True)
    made = [parent for parent in place.parents if not parent.exists()]
    try:
        place.mkdir(parents=True)
        yield place
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        for parent in made:  # the folders on the way, where nothing else came into them
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        raise
    shutil.rmtree(place, ignore_errors=True)


def _chats(plan: ExportPlan, template: ChatTemplate, journal: Journal) -> list[Chat]:
    """The first questions of the test split, and stored ones where those are too few."""
    bad: list[Problem] = []
    found: list[tuple[list[dict[str, Any]], Sequence[Any]]] = []
    if plan.data is not None:
        files = recall(plan.data, storage.local_path(journal.plan.fetched_uri))
        for split in (Split.TEST, Split.VALIDATE, Split.TRAIN):
            if found:
                break
            try:
                found = [(row.messages, row.tools) for row in questions(files, split, PROMPTS, bad.append)]
            except (DataError, OSError) as error:
                journal.warn(f"stored prompts are asked, for the data cannot be read: {error}")
                break
    found = _without_control_tokens(found, template, journal)
    found += [([{"role": "user", "content": text}], ()) for text in STORED[: PROMPTS - len(found)]]
    chats = [Chat(messages, tools, template.prompt_ids(messages, tools)) for messages, tools in found]
    return [chat for chat in chats if len(chat.ids) + 32 < _context(plan)] or chats[-1:]


def _without_control_tokens(
    found: list[tuple[list[dict[str, Any]], Sequence[Any]]], template: ChatTemplate, journal: Journal
) -> list[tuple[list[dict[str, Any]], Sequence[Any]]]:
    """Those that can be written alike elsewhere: only here does a control token in a text stay a text."""
    pattern = template.encoder.pattern(template.encoder.control)
    kept = [each for each in found if not pattern.search(json.dumps(each, ensure_ascii=False))]
    if len(kept) < len(found):
        journal.warn(
            f"{len(found) - len(kept)} of the {len(found)} questions hold a control token of the model as "
            "text and are not asked: here it stays text, other programs take it for the token"
        )
    return kept


def _context(plan: ExportPlan) -> int:
    config = json.loads((storage.local_path(plan.adapter.model.uri) / "config.json").read_text())
    return int(config["max_position_embeddings"])


def _make(
    plan: ExportPlan, place: Path, template: ChatTemplate, chats: Sequence[Chat], journal: Journal
) -> tuple[str, ExportCheck]:
    """The files of the export, checked; (how the weights are stored, what was found)."""
    _must_be_possible(plan)
    asked = _ask(plan, template, chats, journal)
    source = storage.local_path(plan.adapter.uri)
    if plan.to is ExportFormat.ADAPTER:
        _copy_adapter(plan, source, place)
        return "f32", _check_adapter_copy(plan, place, template, chats, asked, journal)
    from datatunerx.modeling.merge import merge
    from datatunerx.modeling.to_gguf import write_gguf

    base = storage.local_path(plan.adapter.model.uri)
    if plan.to is ExportFormat.HF:
        merge(base, source, place, dtype=_dtype(plan.type), stop_ids=template.stop_ids, tell=journal.activity)
        kind = json.loads((place / "config.json").read_text()).get("dtype") or plan.type.value
        return str(kind), _check(place, None, template, chats, asked, journal)
    merged = place / ".merged"
    merged.mkdir()
    merge(base, source, merged, stop_ids=template.stop_ids, tell=journal.activity)
    kind = _gguf_type(plan.type)
    journal.activity(f"writing {GGUF} in {kind.value}")
    write_gguf(merged, place / GGUF, kind.value, plan.checkpoint, journal.activity)
    shutil.rmtree(merged)
    if plan.to is ExportFormat.OLLAMA:
        from datatunerx.data.modelfile import modelfile

        written = modelfile(template, GGUF, [chat.messages for chat in chats if not chat.tools])
        (place / "Modelfile").write_text(written, encoding="utf-8")
    return kind.value, _check(place, GGUF, template, chats, asked, journal)


def _must_be_possible(plan: ExportPlan) -> None:
    """Told before the base is loaded. Raises CannotExport and CannotWriteGguf."""
    if plan.to is ExportFormat.HF:
        _dtype(plan.type)
    elif plan.to is ExportFormat.ADAPTER:
        if plan.type is not ExportType.AUTO:
            raise CannotExport(f"type {plan.type.value}: an adapter is exported as it was trained; use auto")
    else:
        from datatunerx.modeling.to_gguf import must_be_writable

        must_be_writable(storage.local_path(plan.adapter.model.uri), _gguf_type(plan.type).value)


def _gguf_type(type: ExportType) -> ExportType:
    return ExportType.FLOAT16 if type is ExportType.AUTO else type


def _dtype(type: ExportType) -> Any:
    import torch

    known = {
        ExportType.AUTO: None, ExportType.FLOAT32: torch.float32, ExportType.FLOAT16: torch.float16,
        ExportType.BFLOAT16: torch.bfloat16,
    }  # fmt: skip
    if type not in known:
        raise CannotExport(
            f"type {type.value} is one of gguf and ollama; hf takes {', '.join(t.value for t in known)}"
        )
    return known[type]


def _ask(plan: ExportPlan, template: ChatTemplate, chats: Sequence[Chat], journal: Journal) -> "list[Asked]":
    """What base + adapter answer, in float32, whatever it was trained in."""
    from datatunerx.modeling.exported import ask
    from datatunerx.modeling.peft_format import load_adapter

    journal.activity(f"asking base and adapter {len(chats)} questions")
    base = load(storage.local_path(plan.adapter.model.uri), Precision.FLOAT32)
    adapter = load_adapter(storage.local_path(plan.adapter.uri), base)
    return ask(base, adapter, [chat.ids for chat in chats], template.stop_ids)


def _copy_adapter(plan: ExportPlan, source: Path, place: Path) -> None:
    from datatunerx.modeling.merge import copy_tokenizer
    from datatunerx.modeling.peft_format import CONFIG, WEIGHTS

    shutil.copyfile(source / WEIGHTS, place / WEIGHTS)
    config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    if plan.base_source.startswith("hf://"):  # a path of this machine means nothing elsewhere
        name, _, revision = plan.base_source.removeprefix("hf://").partition("@")
        config |= {"base_model_name_or_path": name} | ({"revision": revision} if revision else {})
    (place / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    copy_tokenizer(source, storage.local_path(plan.adapter.model.uri), place)


def _check_adapter_copy(
    plan: ExportPlan, place: Path, template: ChatTemplate, chats: Sequence[Chat], asked: "Sequence[Asked]",
    journal: Journal,
) -> ExportCheck:  # fmt: skip
    from datatunerx.modeling.exported import compare, with_engine
    from datatunerx.modeling.peft_format import load_adapter

    _same_tokens(place, None, chats, journal)
    base = load(storage.local_path(plan.adapter.model.uri), Precision.FLOAT32)
    found = compare(asked, with_engine(base, load_adapter(place, base)), template.stop_ids)
    return ExportCheck(
        prompts=found.prompts, differing=found.differing, max_logit_difference=found.max_logit_difference,
        tokens_equal=True,
    )  # fmt: skip


def _check(
    place: Path, gguf: str | None, template: ChatTemplate, chats: Sequence[Chat], asked: "Sequence[Asked]",
    journal: Journal,
) -> ExportCheck:  # fmt: skip
    """Load it as anybody would, and ask it the same."""
    import torch

    from datatunerx.modeling.exported import compare, load_folder, with_transformers

    _same_tokens(place, gguf, chats, journal)
    journal.activity("asking the exported model the same questions")
    model = load_folder(place, torch.float32 if gguf else None, gguf)
    found = compare(asked, with_transformers(model), template.stop_ids)
    return ExportCheck(
        prompts=found.prompts, differing=found.differing, max_logit_difference=found.max_logit_difference,
        tokens_equal=True,
    )  # fmt: skip


def _same_tokens(place: Path, gguf: str | None, chats: Sequence[Chat], journal: Journal) -> None:
    """Raise NotTheSame unless the export's own tokenizer and template write each prompt as trained with."""
    from datatunerx.modeling.exported import tokenizer_of

    journal.activity("writing the prompts with the exported tokenizer")
    write = tokenizer_of(place, gguf)
    for chat in chats:
        found = write(chat.messages, chat.tools)
        if found != chat.ids:
            at = next(
                (n for n, pair in enumerate(zip(found, chat.ids, strict=False)) if pair[0] != pair[1]), 0
            )
            said = str(chat.messages[-1].get("content"))[:80]
            raise NotTheSame(
                f"the exported tokenizer writes a prompt otherwise than the model was trained with, from its "
                f"token {at} on ({len(found)} tokens, {len(chat.ids)} then): {said!r}; it is not offered"
            )


def _record(plan: ExportPlan, place: Path, kind: str, check: ExportCheck, chats: Sequence[Chat]) -> Path:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": storage.sha256_of(path)}
        for path in sorted(place.iterdir())
    }
    document = {
        "version": 1, "checkpoint": plan.checkpoint, "manifest": plan.adapter.digest,
        "base": plan.adapter.model.digest, "to": plan.to.value, "type": kind, "check": check.dump(),
        "prompts": [chat.messages for chat in chats], "files": files,
    }  # fmt: skip
    path = place / RECORD
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
    return path
