"""What others use stays when it is deleted, says who uses it, and goes when they are gone."""

import pytest

from datatunerx.resources import LLM, Dataset, Finetune, FinetuneExperiment, Hyperparameter
from datatunerx.resources.material import DataPlugin
from datatunerx.resources.outcome import ScoringPlugin

PLUGIN = {"provider": "entry-point", "entryPoint": "json:loads"}


async def test_users_end_well_with_what_was_deleted_under_them(platform, make_objects):
    platform.backend.behaviour.wait_at = 1
    platform.backend.behaviour.refuse_scoring = {"e-g0"}  # measured in a run of its own, afterwards
    objects = make_objects(1)
    await platform.apply(*objects)

    async def trains():
        found = await platform.api.list(Finetune)
        return found and found[0].status.phase == "Running"

    await platform.until(trains)
    for obj in objects[:-1]:
        await platform.api.delete(type(obj), obj.metadata.name)
    await platform.api.patch(FinetuneExperiment, "e", {"spec": {"suspend": True}})

    async def suspended():
        return (await platform.api.get(FinetuneExperiment, "e")).status.phase == "Suspended"

    await platform.until(suspended)
    platform.backend.behaviour.wait_at = None
    await platform.api.patch(FinetuneExperiment, "e", {"spec": {"suspend": False}})
    assert (await platform.ended(FinetuneExperiment, "e")).status.jobs.succeeded == 1

    async def gone():
        return not [found for obj in objects[:-1] for found in await platform.api.list(type(obj))]

    await platform.until(gone)


@pytest.mark.parametrize(
    ("model", "name", "user"),
    [
        (LLM, "base", "FinetuneExperiment/e"),
        (Dataset, "data", "FinetuneExperiment/e"),
        (Hyperparameter, "g0", "FinetuneExperiment/e"),
        (ScoringPlugin, "judge", "FinetuneExperiment/e"),
        (DataPlugin, "maker", "Dataset/made"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_an_object_in_use_stays_and_names_its_users(platform, make_objects, model, name, user):
    objects = make_objects(1, suspend=True, scoring={"plugins": [{"ref": "judge"}]})
    made = {
        "subsets": [{"splits": {"train": ["file:///data/train.jsonl"]}}],
        "plugin": {"ref": "maker"},
    }
    objects.append(Dataset.parse({"metadata": {"name": "made"}, "spec": made}))
    for kind, of in (("judge", ScoringPlugin), ("maker", DataPlugin)):
        objects.append(of.parse({"metadata": {"name": kind}, "spec": PLUGIN}))
    await platform.apply(*objects)

    async def held():
        found = await platform.api.get(model, name)
        return found.metadata.finalizers and user in found.status.used_by

    await platform.until(held)
    await platform.api.delete(model, name)

    async def in_use():
        return (await platform.api.get(model, name)).status.condition("InUse")

    assert user in (await platform.until(in_use)).message
    user_model = {"FinetuneExperiment": FinetuneExperiment, "Dataset": Dataset}[user.split("/")[0]]
    await platform.api.delete(user_model, user.split("/")[1])

    async def gone():
        return name not in [found.metadata.name for found in await platform.api.list(model)]

    await platform.until(gone)
