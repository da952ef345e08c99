"""Taking a checkpoint home: in which form, to which place, and what was checked before it was offered."""

from typing import Annotated, ClassVar

from pydantic import Field

from datatunerx.resources.enums import ExportFormat, ExportPhase, ExportType
from datatunerx.resources.wire import LongText, Name, ShortText, Uri, Wire


class Export(Wire):
    """One export of a checkpoint. Another request is another entry; one that has ended stays as it is."""

    list_key: ClassVar[tuple[str, ...]] = ("name",)

    name: Name
    to: ExportFormat
    type: ExportType = ExportType.AUTO
    """How weights are stored; auto is the base's own for hf, f16 for gguf and ollama."""
    uri: Uri | None = None
    """A folder of the server that is not there yet (file:///folder), the same as an OCI image layout
    (oci-layout:///folder), or oci://registry/repository:tag. Default: the platform's own exports folder."""
    secret: Name | None = None
    """Secret with username and password (or token) of the registry."""
    plain_http: bool = False
    """Speak http to the registry, in place of https."""


class ExportCheck(Wire):
    """An export held against base + adapter."""

    prompts: int = 0
    """How many were asked, greedily."""
    differing: int = 0
    """How many are answered otherwise."""
    max_logit_difference: float | None = None
    tokens_equal: bool = False
    """Whether the exported model's own tokenizer and template write each prompt token by token alike."""


class ExportOutcome(Wire):
    """What an export has become."""

    uri: Uri
    digest: ShortText
    """SHA-256 of its export.json, or of the manifest in the registry."""
    bytes: int = 0
    check: ExportCheck = ExportCheck()


class ExportStatus(Wire):
    list_key: ClassVar[tuple[str, ...]] = ("name",)

    name: Name
    phase: ExportPhase = ExportPhase.PENDING
    reason: ShortText | None = None
    message: LongText | None = None
    run: ShortText | None = None
    outcome: ExportOutcome | None = None


Exports = Annotated[list[Export], Field(max_length=64)]
ExportStatuses = Annotated[list[ExportStatus], Field(max_length=64)]


class Origin(Wire):
    """With what a checkpoint was made: the same again gives the same bytes, but for what `inexact` names."""

    versions: dict[str, ShortText] = {}
    """Package -> version; also python's, and code: the digest of our own."""
    device: ShortText = ""
    threads: int = 0
    seed: int = 0
    command: ShortText = ""
    inexact: Annotated[list[ShortText], Field(max_length=16)] = []
    """What may round otherwise the next time; nothing on a CPU."""


class Rerun(Wire):
    """How training again from a checkpoint's record has gone."""

    asked: int = 0
    phase: ExportPhase = ExportPhase.PENDING
    run: ShortText | None = None
    same: bool | None = None
    """Whether its weights are the same, byte for byte."""
    message: LongText | None = None
