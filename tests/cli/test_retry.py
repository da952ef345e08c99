"""`dtx retry`: which objects it marks, and what it says where nothing failed or nobody acts."""

import pytest

from datatunerx.cli import change, retry
from datatunerx.cli.errors import CommandError, Exit
from datatunerx.resources import LLM, FinetuneExperiment, FinetuneJob, Scoring
from datatunerx.resources.wire import RETRY

SPEC = {"llm": "m", "dataset": "d", "hyperparameter": {"ref": "h"}}
MATRIX = {"matrix": {"llms": ["m"], "datasets": ["d"], "hyperparameters": ["h", "i"]}}
NOT_A_MODEL = {
    "type": "Ready", "status": "False", "reason": "NotAModel", "message": "no config.json",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}  # fmt: skip


@pytest.fixture
async def failed(api, monkeypatch):
    """Experiment e, of whose jobs e-h has failed and e-i succeeded, on an LLM that is not ready."""
    monkeypatch.setattr(retry, "SEEN_SECONDS", 0.3)
    await api.create(LLM.parse({"metadata": {"name": "m"}, "spec": {"source": "file:///m"}}))
    await api.patch_status(LLM, "m", {"status": {"conditions": [NOT_A_MODEL]}})
    made = await api.create(FinetuneExperiment.parse({"metadata": {"name": "e"}, "spec": MATRIX}))
    failure = {"job": "e-h", "phase": "Failed"}
    status = {"phase": "Succeeded", "failures": [failure]}
    await api.patch_status(FinetuneExperiment, "e", {"status": status})
    for name, phase in (("e-h", "Failed"), ("e-i", "Succeeded")):
        metadata = {"name": name, "ownerReferences": [made.owner_reference().dump()]}
        await api.create(FinetuneJob.parse({"metadata": metadata, "spec": {"finetune": SPEC}}))
        await api.patch_status(FinetuneJob, name, {"status": {"phase": phase}})


async def marked(api):
    kinds = ((LLM, "m"), (FinetuneJob, "e-h"), (FinetuneJob, "e-i"))
    return [RETRY in (await api.get(kind, name)).metadata.annotations for kind, name in kinds]


async def test_what_failed_of_an_experiment_is_marked_and_nothing_else(api, failed, capsys):
    with pytest.raises(CommandError, match="no controller has taken it up"):  # none is running here
        await retry.retry(api, "e", "default")
    assert await marked(api) == [True, True, False]
    told = capsys.readouterr().out
    assert "finetunejob/e-h: tried again, from its last whole checkpoint" in told
    assert "llm/m: inspected again" in told


async def test_a_job_may_be_named_alone_and_a_model_by_its_kind(api, failed):
    with pytest.raises(CommandError, match="no controller"):
        await retry.retry(api, "fj/e-h", "default")
    assert await marked(api) == [True, True, False]
    assert await retry.retry(api, "llm/m", "default") is Exit.OK


async def test_a_scoring_without_a_score_is_measured_again_unless_a_job_has_it(api, failed, capsys):
    job = (await api.get(FinetuneJob, "e-i")).owner_reference().dump()
    for name, score, owners in (("alone", None, []), ("scored", 0.5, []), ("of-job", None, [job])):
        spec = {"model": {"kind": "LLM", "name": "m"}, "dataset": "d"}
        made = {"metadata": {"name": name, "ownerReferences": owners}, "spec": spec}
        await api.create(Scoring.parse(made))
        await api.patch_status(Scoring, name, {"status": {"phase": "Succeeded", "score": score}})
    with pytest.raises(CommandError, match="no controller"):
        await retry.retry(api, "sc/alone", "default")
    assert "scoring/alone: measured again" in capsys.readouterr().out
    for name in ("scored", "of-job"):
        with pytest.raises(CommandError, match=f"nothing of sc/{name} has failed"):
            await retry.retry(api, f"sc/{name}", "default")


@pytest.mark.parametrize("target", ["fj/e-i", "e-none", "run/x"])
async def test_what_did_not_fail_or_is_not_there_is_refused(api, failed, target):
    await api.patch_status(LLM, "m", {"status": {"conditions": None}})
    said = {
        "fj/e-i": "nothing of fj/e-i has failed; it is Succeeded",
        "e-none": 'no experiment or job is called "e-none"',
        "run/x": "not found",
    }
    with pytest.raises(Exception, match=said[target]):
        await retry.retry(api, target, "default")
    assert await marked(api) == [False, False, False]


async def test_applying_what_failed_once_more_says_how_to_try_it_again(api, failed, tmp_path, capsys):
    manifest = tmp_path / "m.yaml"
    manifest.write_text(
        "apiVersion: datatunerx.io/v1beta1\nkind: LLM\nmetadata: {name: m}\nspec: {source: 'file:///m'}\n"
    )
    for _ in range(2):
        await change.apply(api, [str(manifest)], "default", dry_run=False, force=True)
    assert "llm/m has failed and stays as it is; to try what failed again: dtx retry llm/m" in (
        capsys.readouterr().out
    )
