"""stop, resume and delete: whose spec is changed, and what is told of what cannot be done."""

import pytest

from datatunerx.cli import change
from datatunerx.cli.errors import CommandError, Exit
from datatunerx.cli.names import kind_and_name
from datatunerx.resources import Finetune, FinetuneExperiment, FinetuneJob, Hyperparameter

SPEC = {"llm": "m", "dataset": "d", "hyperparameter": {"ref": "h"}}
MATRIX = {"matrix": {"llms": ["m"], "datasets": ["d"], "hyperparameters": ["h"]}}


@pytest.fixture
async def family(api):
    """Experiment e, its job e-h, and that job's Finetune e-h."""

    async def create(model, name, spec, owner=None):
        owners = {"ownerReferences": [owner.owner_reference().dump()]} if owner else {}
        return await api.create(model.parse({"metadata": {"name": name} | owners, "spec": spec}))

    experiment = await create(FinetuneExperiment, "e", MATRIX)
    job = await create(FinetuneJob, "e-h", {"finetune": SPEC}, experiment)
    return await create(Finetune, "e-h", SPEC, job)


async def suspend(api, model, name, by=None):
    notes = {"metadata": {"annotations": {change.SUSPENDED_BY: by}}} if by else {}
    await api.patch(model, name, {"spec": {"suspend": True}} | notes)


async def suspended(api):
    kinds = ((FinetuneExperiment, "e"), (FinetuneJob, "e-h"), (Finetune, "e-h"))
    return [(await api.get(kind, name)).spec.suspend for kind, name in kinds]


async def test_stopping_a_finetune_suspends_its_job_and_names_the_job_to_resume(api, family, capsys):
    await change.stop(api, "ft/e-h", "default", None)
    assert await suspended(api) == [False, True, False]
    assert "dtx resume fj/e-h" in capsys.readouterr().out


async def test_resuming_a_finetune_resumes_the_job_that_suspended_it(api, family):
    await suspend(api, FinetuneJob, "e-h")
    await suspend(api, Finetune, "e-h", by="FinetuneJob/e-h")
    await change.resume(api, "ft/e-h", "default")
    # its own suspend is the controller's to take back, by the note it left
    assert await suspended(api) == [False, False, True]


async def test_a_finetune_that_was_suspended_twice_is_resumed_by_one_word(api, family):
    await suspend(api, FinetuneJob, "e-h")
    await suspend(api, Finetune, "e-h")
    await change.resume(api, "ft/e-h", "default")
    assert await suspended(api) == [False, False, False]


@pytest.mark.parametrize("target", ["fj/e-h", "ft/e-h"])
async def test_what_a_suspended_experiment_holds_is_not_resumed_and_the_experiment_is_named(
    api, family, target
):
    await suspend(api, FinetuneExperiment, "e")
    await suspend(api, FinetuneJob, "e-h", by="FinetuneExperiment/e")
    await suspend(api, Finetune, "e-h", by="FinetuneJob/e-h")
    with pytest.raises(CommandError, match="dtx resume fe/e$"):
        await change.resume(api, target, "default")
    assert await suspended(api) == [True, True, True]


async def test_deleting_what_others_use_is_no_success_and_names_them(api):
    group = {"metadata": {"name": "h", "finalizers": ["datatunerx.io/in-use"]}, "spec": {}}
    await api.create(Hyperparameter.parse(group))
    used = {"type": "InUse", "status": "True", "reason": "InUse", "message": "used by Finetune/x"}
    used["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    await api.patch_status(Hyperparameter, "h", {"status": {"conditions": [used]}})
    with pytest.raises(CommandError, match=r"Hyperparameter/h .* stays for now: used by Finetune/x"):
        await change.delete(api, [kind_and_name("hp/h")], "default", wait=True)
    await api.patch(Hyperparameter, "h", {"metadata": {"finalizers": None}})


async def test_deleting_without_waiting_does_not_say_that_it_is_gone(api, capsys):
    await api.create(Hyperparameter.parse({"metadata": {"name": "h"}, "spec": {}}))
    assert await change.delete(api, [kind_and_name("hp/h")], "default", wait=False) is Exit.OK
    assert "is marked for deletion" in capsys.readouterr().out
