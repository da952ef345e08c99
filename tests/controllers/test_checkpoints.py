"""A checkpoint is Ready only while its files are those that were written, and stays while it is used."""

import pytest

from datatunerx.resources import Finetune, FinetuneExperiment, LLMCheckpoint, Scoring
from datatunerx.resources.finetune import FinetuneSpec
from datatunerx.resources.outcome import LLMCheckpointSpec, ModelRef, ScoringSpec
from datatunerx.resources.wire import ObjectMeta
from datatunerx.runs.manifest import PINNED
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


async def test_an_export_that_failed_where_nothing_can_be_removed_has_failed(platform, make_objects, root):
    """A file stands where its folder should be: what is left there cannot even be looked for."""
    await platform.apply(*make_objects(1))
    await platform.ended(FinetuneExperiment, "e")
    (root / "a-file").touch()
    wanted = {"name": "home", "to": "hf", "uri": f"file://{root}/a-file/home"}
    await platform.api.patch(LLMCheckpoint, "e-g0", {"spec": {"exports": [wanted]}})

    async def told():
        exports = (await platform.api.get(LLMCheckpoint, "e-g0")).status.exports
        return exports[0] if exports and exports[0].phase == "Failed" else None

    failed = await platform.until(told)
    assert "may be left there" in failed.message and "a-file" in failed.message


async def test_a_rerun_says_whether_the_same_bytes_came_of_it_and_keeps_nothing(platform, make_objects):
    stopping = {"patience": 2, "measure": "score"}
    await platform.apply(*make_objects(1, earlyStopping=stopping))
    await platform.ended(FinetuneExperiment, "e")
    first = await platform.api.get(LLMCheckpoint, "e-g0")
    told = platform.backend.of("tune")[0].plan.tune.jobs[0].early_stop

    async def again(asked):
        await platform.api.patch(LLMCheckpoint, "e-g0", {"spec": {"rerun": asked}})

        async def said():
            rerun = (await platform.api.get(LLMCheckpoint, "e-g0")).status.rerun
            return rerun if rerun and rerun.asked == asked and rerun.phase == "Succeeded" else None

        rerun = await platform.until(said)
        plan = platform.backend.of("tune")[-1].plan
        assert [job.measure for job in plan.tune.jobs] == [None] and f"-{asked}" in plan.tune.jobs[
            0
        ].output_uri
        assert plan.tune.jobs[0].early_stop == told and told.score, "it ends where it ended"
        folder = local_path(plan.tune.jobs[0].output_uri)
        await platform.until(lambda: answered(not folder.exists()))
        return rerun

    rerun = await again(1)
    assert rerun.same and "the same weights, byte for byte" in rerun.message
    platform.backend.behaviour.weights = b"other"
    rerun = await again(2)
    assert rerun.same is False and "gave other weights" in rerun.message
    now = await platform.api.get(LLMCheckpoint, "e-g0")
    assert now.spec.uri == first.spec.uri and now.status.condition("Ready").status == "True"


async def test_a_pin_reaches_the_worker_and_outlives_every_object(platform, make_objects):
    await platform.apply(*make_objects(1))
    await platform.ended(FinetuneExperiment, "e")
    first = await platform.api.get(LLMCheckpoint, "e-g0")
    mark = local_path(first.spec.uri) / PINNED
    # what a user writes to keep a checkpoint of a training that goes on
    spec = first.spec.model_copy(update={"pinned": True})
    await platform.apply(LLMCheckpoint(metadata=ObjectMeta(name="mine"), spec=spec))
    await platform.until(lambda: answered(mark.exists()))
    await platform.api.patch(LLMCheckpoint, "mine", {"spec": {"pinned": False}})
    await platform.until(lambda: answered(not mark.exists()))
    await platform.api.patch(LLMCheckpoint, "mine", {"spec": {"pinned": True}})
    await platform.until(lambda: answered(mark.exists()))

    await platform.api.delete(LLMCheckpoint, "mine")
    await platform.api.delete(FinetuneExperiment, "e")

    async def gone():
        return not [*await platform.api.list(LLMCheckpoint), *await platform.api.list(Finetune)]

    await platform.until(gone)
    assert (mark.parent / "adapter").exists()


async def test_a_pin_writes_nothing_into_a_folder_that_is_not_ours(platform, root):
    (root / "elsewhere").mkdir()
    spec = LLMCheckpointSpec(
        finetune="f", llm="l", dataset="d", step=1, pinned=True, uri=(root / "elsewhere").as_uri()
    )
    await platform.apply(LLMCheckpoint(metadata=ObjectMeta(name="mine"), spec=spec))

    async def looked_at():
        return (await platform.api.get(LLMCheckpoint, "mine")).status.condition("Ready")

    await platform.until(looked_at)
    assert not list((root / "elsewhere").iterdir())


async def answered(value):
    return value
