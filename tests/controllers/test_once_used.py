"""What a training, a score or a run was made from stays as it was: nothing would act on a change."""

import pytest

from datatunerx.client.errors import Invalid
from datatunerx.resources import Finetune, FinetuneExperiment, FinetuneJob, LLMCheckpoint, Run, Scoring

GROUP = {"ref": "other"}


async def refused(platform, model, name, spec):
    with pytest.raises(Invalid) as caught:
        await platform.api.patch(model, name, {"spec": spec})
    return str(caught.value)


async def test_what_is_in_training_or_trained_is_not_changed(platform, make_objects):
    platform.backend.behaviour.wait_at = 1
    await platform.apply(*make_objects(1))

    async def training():
        found = await platform.api.list(Finetune)
        return found and found[0].status.run

    await platform.until(training)
    said = await refused(platform, Finetune, "e-g0", {"hyperparameter": GROUP})
    assert "hyperparameter is immutable once the training has begun; make a new object instead" in said
    await platform.api.patch(Finetune, "e-g0", {"spec": {"priority": 3}})
    changed = {"finetune": {"hyperparameter": GROUP}}
    assert "once its Finetune is made" in await refused(platform, FinetuneJob, "e-g0", changed)
    changed = {"scoring": {"metrics": ["bleu"]}}
    assert "once its jobs are made" in await refused(platform, FinetuneExperiment, "e", changed)

    platform.backend.behaviour.wait_at = None
    await platform.ended(FinetuneExperiment, "e")
    assert "has begun" in await refused(platform, Finetune, "e-g0", {"llm": "another"})
    assert "uri is immutable" in await refused(platform, LLMCheckpoint, "e-g0", {"uri": "/elsewhere"})
    await platform.api.patch(LLMCheckpoint, "e-g0", {"spec": {"pinned": True}})
    said = await refused(platform, Scoring, "e-g0", {"measure": {"metrics": ["bleu"]}})
    assert "measure is immutable once it is being scored" in said
    await platform.api.patch(Scoring, "e-g0", {"spec": {"compareWith": ["e-base"]}})
    run = (await platform.api.list(Run))[0].metadata.name
    assert "planUri is immutable" in await refused(platform, Run, run, {"planUri": "file:///plan.json"})


async def test_what_has_ended_says_that_it_has_seen_a_later_spec(platform, make_objects):
    await platform.apply(*make_objects(1))
    before = (await platform.ended(FinetuneExperiment, "e")).status
    changes = {FinetuneExperiment: "e", FinetuneJob: "e-g0", Finetune: "e-g0"}
    for model, name in changes.items():
        await platform.api.patch(model, name, {"spec": {"suspend": True}})
    await platform.api.patch(Scoring, "e-g0", {"spec": {"compareWith": ["nowhere"]}})

    async def seen():
        found = [await platform.api.get(model, name) for model, name in (changes | {Scoring: "e-g0"}).items()]
        said = [
            {o.status.observed_generation, *(c.observed_generation for c in o.status.conditions)}
            for o in found
        ]
        return said == [{2}] * 4

    await platform.until(seen)
    after = (await platform.api.get(FinetuneExperiment, "e")).status
    assert (after.phase, after.finished_at, after.best) == (before.phase, before.finished_at, before.best)


async def test_what_has_not_begun_or_has_failed_may_be_changed(platform, make_objects):
    platform.backend.behaviour.fail = {"failed": "OutOfMemory"}
    llm, data, group, _ = make_objects(1)
    spec = {"llm": "base", "dataset": "data", "hyperparameter": {"ref": "g0"}}
    for name, more in (("waits", {"suspend": True}), ("failed", {})):
        await platform.apply(Finetune.parse({"metadata": {"name": name}, "spec": spec | more}))
    await platform.apply(llm, data, group)
    await platform.ended(Finetune, "failed")
    for name in ("waits", "failed"):
        smaller = {"hyperparameter": {"overrides": {"batchSize": 1}}, "llm": "base"}
        await platform.api.patch(Finetune, name, {"spec": smaller})
    said = await refused(platform, Finetune, "waits", {"dataset": "another"})
    assert "dataset is immutable" in said
