"""A checkpoint is Ready only while its files are those that were written, and stays while it is used."""

import pytest

from datatunerx.resources import Finetune, FinetuneExperiment, LLMCheckpoint, Scoring
from datatunerx.resources.finetune import FinetuneSpec
from datatunerx.resources.outcome import ModelRef, ScoringSpec
from datatunerx.resources.wire import ObjectMeta
from datatunerx.storage import local_path


def cut(folder):
    (folder / "adapter").write_bytes(b"x")


def lose(folder):
    (folder / "adapter").unlink()


def replace(folder):
    manifest = folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")


def forget(folder):
    (folder / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [(cut, "FilesDamaged"), (lose, "FilesMissing"), (replace, "FilesChanged"), (forget, "FilesDamaged")],
)
async def test_what_happened_to_its_files_is_told(platform, make_objects, harm, reason):
    await platform.apply(*make_objects(1))
    await platform.ended(FinetuneExperiment, "e")

    async def ready(status):
        checkpoint = await platform.api.get(LLMCheckpoint, "e-g0")
        found = checkpoint.status.condition("Ready")
        return checkpoint if found and found.status == status else None

    checkpoint = await platform.until(lambda: ready("True"))
    harm(local_path(checkpoint.spec.uri))
    checkpoint = await platform.until(lambda: ready("False"))
    assert checkpoint.status.condition("Ready").reason == reason


async def test_a_deleted_checkpoint_stays_with_its_files_until_its_users_are_done(platform, make_objects):
    await platform.apply(*make_objects(1))
    await platform.ended(FinetuneExperiment, "e")
    checkpoint = await platform.api.get(LLMCheckpoint, "e-g0")
    files = local_path(checkpoint.spec.uri)
    waits = Finetune(
        metadata=ObjectMeta(name="next"),
        spec=FinetuneSpec.model_validate(
            {"llm": "to-come", "dataset": "data", "hyperparameter": {"ref": "g0"}, "resumeFrom": "e-g0"}
        ),
    )
    spec = ScoringSpec(model=ModelRef(name="e-g0"), dataset="to-come")
    await platform.apply(waits, Scoring(metadata=ObjectMeta(name="s"), spec=spec))

    async def used():
        checkpoint = await platform.api.get(LLMCheckpoint, "e-g0")
        return checkpoint.status.used_by == ["Finetune/next", "Scoring/s"]

    await platform.until(used)
    await platform.api.delete(LLMCheckpoint, "e-g0")

    async def in_use():
        checkpoint = await platform.api.get(LLMCheckpoint, "e-g0")
        return checkpoint.status.condition("InUse")

    assert "Finetune/next, Scoring/s" in (await platform.until(in_use)).message
    assert files.is_dir()
    await platform.api.delete(Finetune, "next")
    await platform.api.delete(Scoring, "s")

    async def gone():
        return not await platform.api.list(LLMCheckpoint)

    await platform.until(gone)
    assert not files.exists()
