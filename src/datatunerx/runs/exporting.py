"""Exports and reruns of a checkpoint into plans. Pure; the same request gives the same plan."""

import json
from collections.abc import Sequence
from urllib.parse import quote

from datatunerx.resources.enums import RunType
from datatunerx.resources.export import Export
from datatunerx.resources.material import LLM, Dataset
from datatunerx.resources.outcome import LLMCheckpoint
from datatunerx.runs.plan import (
    Access,
    AdapterFiles,
    CardFact,
    DataFiles,
    ExportPlan,
    ModelFiles,
    RunPlan,
    TuneJob,
    TunePlan,
    digest_of,
    identified,
)

CHECKPOINT = "checkpoint://"
"""Source of an LLM that is a checkpoint merged into its base."""
OCI, OCI_LAYOUT = "oci://", "oci-layout://"
"""A tag in a registry, and a folder that becomes an image layout."""
EXPORTING = ".exporting"
"""End of the name of a folder in which an export is being made."""


def adapter_files(checkpoint: LLMCheckpoint) -> AdapterFiles | None:
    """The adapter and its base as they were recorded; None if the record names no base."""
    spec = checkpoint.spec
    if not spec.base_uri or not spec.base_digest:
        return None
    model = ModelFiles(name=spec.llm, uri=spec.base_uri, digest=spec.base_digest)
    return AdapterFiles(model=model, uri=_as_uri(spec.uri), digest=spec.manifest_digest)


def export_plan(
    checkpoint: LLMCheckpoint,
    wanted: Export,
    adapter: AdapterFiles,
    llm: LLM | None,
    dataset: Dataset | None,
    data: DataFiles | None,
    root_uri: str,
) -> RunPlan:
    """The run that makes one export. Scores may come later: the card's facts are not part of the id."""
    uid = checkpoint.metadata.uid
    target = target_uri(wanted, uid, root_uri)
    part = ExportPlan(
        checkpoint=checkpoint.metadata.name, adapter=adapter, to=wanted.to, type=wanted.type,
        target_uri=target, layout=(wanted.uri or "").startswith(OCI_LAYOUT),
        work_uri=work_uri(target, uid, wanted.name, root_uri),
        plain_http=wanted.plain_http, access=Access(secret=wanted.secret) if wanted.secret else None,
    )  # fmt: skip
    plan = identified(RunType.EXPORT, root_uri, {"export": part}, f"{uid} {wanted.name}")
    told = part.model_copy(
        update={
            "data": data,
            "base_source": llm.spec.source if llm else "",
            "license": (llm.spec.license or "") if llm else "",
            "facts": card_facts(checkpoint, llm, dataset),
            "parameters": flat(json.loads(checkpoint.spec.parameters_json or "{}")),
        }
    )
    return plan.model_copy(update={"export": told})


def target_uri(wanted: Export, uid: str, root_uri: str) -> str:
    """Where it is put; `uid` is the checkpoint's."""
    if not wanted.uri:
        return f"{root_uri}/exports/{uid}/{wanted.name}"
    if wanted.uri.startswith(OCI_LAYOUT):
        return f"file://{wanted.uri.removeprefix(OCI_LAYOUT)}"
    return _as_uri(wanted.uri)


def work_uri(target_uri: str, uid: str, name: str, root_uri: str) -> str:
    """Where the export is made: beside its target, so that a rename publishes it."""
    mark = digest_of([uid, name])[:12]
    if target_uri.startswith(OCI):
        return f"{root_uri}/exports/.{mark}{EXPORTING}"
    folder, _, last = target_uri.rstrip("/").rpartition("/")
    return f"{folder}/.{last}.{mark}{EXPORTING}"


def card_facts(checkpoint: LLMCheckpoint, llm: LLM | None, dataset: Dataset | None) -> list[CardFact]:
    """Lineage, data and score, as lines of a table; what is not known is left out."""
    spec, status = checkpoint.spec, checkpoint.status
    report = dataset.status.report if dataset else None
    if dataset is not None and dataset.status.digest != spec.data_digest:
        report = None  # of other data than it was trained on
    rows = ", ".join(f"{n:,} {split}" for split, n in report.splits.items()) if report else ""
    found = [
        ("Base model", f"{spec.llm} {llm.spec.source if llm else ''}".strip()),
        ("Base digest", spec.base_digest),
        ("Parent checkpoint", spec.parent or ""),
        ("Data", spec.dataset),
        ("Data digest", spec.data_digest),
        ("Rows", rows),
        ("Rows dropped", f"{report.dropped:,} of {report.read:,}" if report else ""),
        ("Step", f"{spec.step:,}"),
        ("Score", f"{status.metric} {status.score:.4g}" if status.score is not None else "not measured"),
        ("Manifest", spec.manifest_digest),
    ]  # fmt: skip
    if spec.origin:
        found += [(name, version) for name, version in sorted(spec.origin.versions.items())]
        found += [("Device", spec.origin.device), ("Seed", str(spec.origin.seed))]
    return [CardFact(name=name, value=value) for name, value in found if value]


def flat(document: dict[str, object], prefix: str = "") -> dict[str, object]:
    """{lora: {rank: 8}} -> {lora.rank: 8}."""
    pairs: dict[str, object] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            pairs |= flat(value, f"{prefix}{key}.")
        else:
            pairs[f"{prefix}{key}"] = value
    return pairs


def rerun_plan(checkpoint: LLMCheckpoint, made_by: TunePlan, root_uri: str) -> RunPlan | None:
    """The same training once more, alone and elsewhere; None if the plan does not hold it.

    A job's bytes do not depend on its neighbours in a run, so it is trained without them.
    """
    job = next((job for job in made_by.jobs if job.name == checkpoint.spec.finetune), None)
    if job is None:
        return None
    salt = f"{checkpoint.metadata.uid} rerun {checkpoint.spec.rerun}"
    again: TuneJob = job.model_copy(
        update={"measure": None, "samples": [], "attempt": 0, "output_uri": rerun_uri(checkpoint, root_uri)}
    )
    data: Sequence[DataFiles] = [files for files in made_by.data if files.name == job.data]
    part = TunePlan(model=made_by.model, data=list(data), jobs=[again])
    return identified(RunType.TUNE, root_uri, {"tune": part}, salt)


def rerun_uri(checkpoint: LLMCheckpoint, root_uri: str) -> str:
    return f"{root_uri}/reruns/{checkpoint.metadata.uid}-{checkpoint.spec.rerun}"


def _as_uri(place: str) -> str:
    """A path is as good as a file:// URI."""
    return place if "://" in place else f"file://{quote(place)}"
