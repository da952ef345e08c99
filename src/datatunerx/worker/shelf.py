"""The models of a serving run: adapters and templates, checked, loaded, and kept while they are wanted."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from datatunerx import storage
from datatunerx.data import ChatTemplate, DataError
from datatunerx.modeling.adapters import Adapter
from datatunerx.modeling.base import Base
from datatunerx.modeling.peft_format import WEIGHTS, UnreadableAdapter, load_adapter
from datatunerx.runs import ModelFiles, ModelState, ServedModel
from datatunerx.runs.manifest import MANIFEST
from datatunerx.serving.catalogue import Catalogue, Identity, Model, template_digest
from datatunerx.training import checkpoints
from datatunerx.worker.failure import explain
from datatunerx.worker.prepare import TEMPLATE_FILE


class NotServed(ValueError):
    """A model that cannot be served; `reason` is one word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Loaded(NamedTuple):
    adapter: Adapter | None
    digest: str | None
    """What identifies the adapter's files."""


class Shelf:
    """Fills a catalogue with what is to be served over one base."""

    def __init__(self, base: Base, model: ModelFiles, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._base, self._files = base, model
        self._wanted: list[ServedModel] = []
        self._templates: dict[str | None, ChatTemplate] = {}

    def serve(self, wanted: Sequence[ServedModel]) -> None:
        """Serve these and no others. What cannot be served says why and keeps nobody else from it."""
        before = {model.name: model for model in self.catalogue.models}
        same = {one.name for one in wanted if one in self._wanted} & before.keys()
        models: dict[str, Model] = {}
        states: list[ModelState] = []
        for one in wanted:
            if one.name in models:
                continue
            try:
                models[one.name] = before[one.name] if one.name in same else self._model(one)
                states.append(ModelState(name=one.name, ready=True))
            except (NotServed, UnreadableAdapter, DataError, storage.StorageError, OSError) as error:
                reason, message = explain(error)
                if isinstance(error, NotServed):
                    reason = error.reason
                states.append(ModelState(name=one.name, ready=False, reason=reason, message=message))
        self._wanted = list(wanted)
        self.catalogue.replace(models, states)

    def _model(self, wanted: ServedModel) -> Model:
        loaded = self._adapter(wanted)
        template = self._template(wanted)
        identity = Identity(
            base=self._files.digest, adapter=loaded.digest, template=template_digest(template),
            precision=str(self._base.dtype).removeprefix("torch."),
        )  # fmt: skip
        return Model(wanted.name, loaded.adapter, template, identity, int(time.time()))

    def _adapter(self, wanted: ServedModel) -> Loaded:
        if wanted.adapter_uri is None:
            return Loaded(None, None)
        if wanted.base_digest and wanted.base_digest != self._files.digest:
            raise NotServed(
                "BaseMismatch",
                f"this adapter was trained on a base with digest {wanted.base_digest[:12]}, and "
                f"{self._files.name} has {self._files.digest[:12]}; serve it over its own base",
            )
        folder = storage.local_path(wanted.adapter_uri)
        digest = _checked(folder, wanted.adapter_digest)
        return Loaded(load_adapter(folder, self._base, wanted.name), digest)

    def _template(self, wanted: ServedModel) -> ChatTemplate:
        text = wanted.template
        if text is None and wanted.adapter_uri is not None:
            beside = storage.local_path(wanted.adapter_uri) / TEMPLATE_FILE
            text = beside.read_text(encoding="utf-8") if beside.is_file() else None
        text = text or self._files.template
        if text not in self._templates:
            self._templates[text] = ChatTemplate.load(storage.local_path(self._files.uri), text)
        return self._templates[text]


def _checked(folder: Path, wanted: str) -> str:
    """What identifies the adapter's files, once they are what their manifest says."""
    if not (folder / MANIFEST).is_file() and not wanted:
        weights = folder / WEIGHTS  # made elsewhere: there is nothing to hold it against
        return hashlib.sha256(weights.read_bytes()).hexdigest()
    found = checkpoints.read(folder)
    if found is None:
        raise NotServed(
            "DamagedAdapter", f"{folder}: its manifest or one of the files it names is missing or cut"
        )
    if wanted and found.digest != wanted:
        raise NotServed(
            "AdapterChanged", f"{folder}: its manifest has digest {found.digest[:12]}, not {wanted[:12]}"
        )
    try:
        checkpoints.verify(found)
    except checkpoints.DamagedCheckpoint as error:
        raise NotServed("DamagedAdapter", str(error)) from error
    return found.digest
