"""Following an experiment through the API: what is drawn, and the verdict with its figures."""

import asyncio
import io
import json
import os
import signal

import pytest
from rich.console import Console

from datatunerx.cli.errors import CommandError, Exit
from datatunerx.cli.follow import Place, follow
from datatunerx.cli.progress import Scene, job_lines
from datatunerx.client import Api
from datatunerx.resources import (
    LLM,
    Dataset,
    Finetune,
    FinetuneExperiment,
    FinetuneJob,
    Hyperparameter,
    LLMCheckpoint,
    Scoring,
)

MATRIX = {"matrix": {"llms": ["m"], "datasets": ["d"], "hyperparameters": ["slow", "fast"]}}
SPEC = {"llm": "m", "dataset": "d", "hyperparameter": {"ref": "slow"}}


class World:
    """Writes objects as the controllers would."""

    def __init__(self, api: Api, folder) -> None:
        self.api, self.folder = api, folder

    async def begin(self):
        await self.create(LLM, "m", {"source": "hf://a/m"})
        await self.create(Dataset, "d", {"subsets": [{"splits": {"train": ["hf://a/d"]}}]})
        for name in ("slow", "fast"):
            await self.create(Hyperparameter, name, {})
        self.experiment = await self.create(FinetuneExperiment, "e", MATRIX)
        for name in ("e-slow", "e-fast"):
            job = await self.create(FinetuneJob, name, {"finetune": SPEC}, self.experiment)
            await self.create(Finetune, name, SPEC, job)

    async def create(self, model, name, spec, owner=None):
        metadata = {"name": name}
        if owner is not None:
            metadata["ownerReferences"] = [owner.owner_reference().dump()]
        return await self.api.create(model.parse({"metadata": metadata, "spec": spec}))

    async def status(self, model, name, **status):
        await self.api.patch_status(model, name, {"status": status})

    async def predictions(self, name, answers):
        path = self.folder / f"{name}.jsonl"
        rows = [
            {"row": i, "question": f"q{i}", "reference": "yes", "answer": a} for i, a in enumerate(answers)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        spec = {"model": {"name": "e-fast"}, "dataset": "d"}
        await self.create(Scoring, name, spec)
        await self.status(Scoring, name, phase="Succeeded", predictionsUri=path.as_uri())

    async def end(self):
        await self.predictions("e-base", ["no"] * 5)
        await self.predictions("e-fast", ["yes"] * 5)
        uri = (self.folder / "artifacts" / "step-1").as_uri()
        spec = {"finetune": "e-fast", "llm": "m", "dataset": "d", "uri": uri, "step": 1}
        await self.create(LLMCheckpoint, "e-fast", spec)
        await self.status(LLM, "m", localUri=(self.folder / "models" / "m").as_uri())
        row = {"llm": "m", "dataset": "d", "n": 5}
        score = {"score": 0.875, "low": 0.75, "high": 1.0}
        await self.status(
            FinetuneExperiment, "e", phase="Succeeded", metric="exact-match",
            ranking=[
                row | score | {"rank": 1, "name": "e-fast", "scoring": "e-fast", "checkpoint": "e-fast"},
                row | {"rank": 2, "name": "m", "base": True, "scoring": "e-base", "score": 0.125},
                row | {"name": "e-slow"},
            ],
            best={"job": "e-fast", "checkpoint": "e-fast", "score": 0.875, "why": "e-fast scored 0.875."},
            failures=[{"job": "e-slow", "phase": "Failed", "reason": "NonFiniteLoss", "message": "row 7"}],
        )  # fmt: skip


@pytest.fixture
async def world(api, tmp_path):
    found = World(api, tmp_path)
    await found.begin()
    return found


def place(tmp_path, **more):
    return Place("e", "default", tmp_path / "kubeconfig", **({"embedded": False} | more))


async def until(out, text):
    async with asyncio.timeout(60):
        while text not in out.getvalue():
            await asyncio.sleep(0.02)


async def test_an_experiment_is_followed_to_its_verdict(world, tmp_path):
    out = io.StringIO()
    console = Console(file=out, width=120)
    following = asyncio.create_task(follow(world.api, place(tmp_path), console))
    await until(out, "slow  Pending")
    await world.status(
        Finetune, "e-fast", phase="Running", metrics={"loss": 1.25, "evalScore": 0.5},
        progress={
            "step": 3, "steps": 9, "tokensPerSecond": 210.4, "etaSeconds": 65, "activity": "training"
        },
    )  # fmt: skip
    await world.status(FinetuneJob, "e-fast", phase="Finetuning")
    await until(out, "fast  Finetuning  step 3/9  loss 1.25  210 tokens/s  ETA 1:05  score 0.5 on validate")
    await world.end()
    assert await asyncio.wait_for(following, 60) is Exit.OK
    said = out.getvalue()
    assert "Recommended: e-fast. fast scored 0.875." in said
    assert "m (untouched base)" in said and "0.125" in said and "[0.750, 1.000]" in said
    assert "e-slow Failed: NonFiniteLoss: row 7" in said
    assert [f"q{i}" in said for i in range(5)] == [True, False, True, False, True]
    assert f"PeftModel.from_pretrained(base, '{tmp_path}/artifacts/step-1')" in said
    assert f"kubectl --kubeconfig {tmp_path}/kubeconfig get fe" in said
    assert "The recommended checkpoint lies in" in said


async def test_a_best_job_below_the_base_is_not_recommended(world, tmp_path):
    row = {"llm": "m", "dataset": "d"}
    await world.end()
    await world.status(
        FinetuneExperiment, "e", phase="Succeeded", metric="exact-match",
        ranking=[
            row | {"rank": 1, "name": "m", "base": True, "score": 0.5},
            row | {"rank": 2, "name": "e-fast", "score": 0.25},
        ],
        best={
            "job": "e-fast", "checkpoint": "e-fast", "score": 0.25, "baseScore": 0.5,
            "why": "It does not beat the base.",
        },
    )  # fmt: skip
    out = io.StringIO()
    await follow(world.api, place(tmp_path), Console(file=out, width=120))
    assert "None beats the base. The best job: e-fast." in out.getvalue()
    assert "=>" not in out.getvalue()
    assert "The best job's checkpoint lies in" in out.getvalue()


async def test_why_nothing_could_be_ranked_is_told_once_with_all_whom_it_concerns(world, tmp_path):
    row = {"llm": "m", "dataset": "d", "metrics": {"f1": {"whyMissing": "row 7: not JSON"}}}
    await world.status(
        FinetuneExperiment, "e", phase="Succeeded", metric="f1", message="none has a score",
        ranking=[row | {"name": "e-fast"}, row | {"name": "e-slow"}],
    )  # fmt: skip
    out = io.StringIO()
    assert await follow(world.api, place(tmp_path), Console(file=out, width=120)) is Exit.FAILED
    assert out.getvalue().splitlines()[-1].startswith("Nothing is recommended: none has a score; score by")
    assert "No recommendation: none has a score" in out.getvalue()
    assert out.getvalue().count("No f1 of fast, slow: row 7: not JSON") == 1


async def test_a_failed_experiment_exits_with_1(world, tmp_path):
    failure = {
        "job": "e-slow",
        "phase": "Failed",
        "reason": "OutOfMemory",
        "message": "",
        "logTail": "last words",
    }
    await world.status(
        FinetuneExperiment, "e", phase="Failed", message="no job succeeded", failures=[failure]
    )
    out = io.StringIO()
    assert await follow(world.api, place(tmp_path), Console(file=out, width=120)) is Exit.FAILED
    last = out.getvalue().splitlines()[-1]
    assert last == "Nothing is recommended: no job succeeded; mend what is said above, then: dtx retry e"
    assert "No recommendation: no job succeeded" in out.getvalue() and "last words" in out.getvalue()


async def test_what_can_never_begin_is_given_up_with_its_reason(world, tmp_path, monkeypatch):
    monkeypatch.setattr("datatunerx.cli.follow.STUCK_SECONDS", 0.2)
    ready = {"type": "Ready", "status": "False", "reason": "NotAModel", "message": "no config.json in it"}
    await world.status(LLM, "m", conditions=[ready])
    with pytest.raises(CommandError, match="LLM/m: NotAModel: no config.json in it"):
        await follow(world.api, place(tmp_path), Console(file=io.StringIO()))


async def test_what_the_data_lacks_is_said_before_it_is_trained_on(world, tmp_path):
    lost = {"reason": "not UTF-8", "count": 2, "where": ["a.jsonl:2", "a.jsonl:7"]}
    report = {"read": 9, "kept": 7, "dropped": 2, "reasons": [lost], "splits": {"train": 7}}
    await world.status(Dataset, "d", report=report)
    out = io.StringIO()
    following = asyncio.create_task(follow(world.api, place(tmp_path), Console(file=out, width=120)))
    await until(out, "Dataset/d: 2 of 9 rows are left out: 2 not UTF-8 (a.jsonl:2, a.jsonl:7)")
    await until(out, "Dataset/d: no row is in the test split, so nothing can be scored; name files for it")
    await world.end()
    await asyncio.wait_for(following, 60)
    assert out.getvalue().count("rows are left out") == 1


async def test_ctrl_c_leaves_a_training_elsewhere_alone(world, tmp_path):
    out = io.StringIO()
    following = asyncio.create_task(follow(world.api, place(tmp_path), Console(file=out)))
    await until(out, "Pending")
    os.kill(os.getpid(), signal.SIGINT)
    assert await asyncio.wait_for(following, 60) is Exit.INTERRUPTED
    assert "Training goes on" in out.getvalue() and "dtx watch fe/e" in out.getvalue()
    assert (await world.api.get(FinetuneExperiment, "e")).spec.suspend is False


async def test_ctrl_c_suspends_what_would_end_with_this_process(world, tmp_path):
    await world.status(FinetuneJob, "e-fast", phase="Finetuning")
    out = io.StringIO()
    following = asyncio.create_task(follow(world.api, place(tmp_path, embedded=True), Console(file=out)))
    await until(out, "Finetuning")
    os.kill(os.getpid(), signal.SIGINT)
    await until(out, "Suspending")
    async with asyncio.timeout(60):
        while not (await world.api.get(FinetuneExperiment, "e")).spec.suspend:
            await asyncio.sleep(0.02)
    await world.status(FinetuneJob, "e-fast", phase="Suspended")
    assert await asyncio.wait_for(following, 60) is Exit.INTERRUPTED
    assert "dtx resume fe/e" in out.getvalue()


async def test_ctrl_c_while_only_scoring_is_left_suspends_nothing_and_waits_for_nothing(world, tmp_path):
    for name in ("e-slow", "e-fast"):
        await world.status(FinetuneJob, name, phase="Scoring")
    out = io.StringIO()
    following = asyncio.create_task(follow(world.api, place(tmp_path, embedded=True), Console(file=out)))
    await until(out, "fast  Scoring")
    os.kill(os.getpid(), signal.SIGINT)
    assert await asyncio.wait_for(following, 60) is Exit.INTERRUPTED
    assert "Scoring goes on in its worker" in out.getvalue() and "dtx watch fe/e" in out.getvalue()
    assert (await world.api.get(FinetuneExperiment, "e")).spec.suspend is False


async def test_ctrl_c_waits_for_what_trains_and_not_for_what_is_scored(world, tmp_path):
    await world.status(FinetuneJob, "e-slow", phase="Finetuning")
    await world.status(FinetuneJob, "e-fast", phase="Scoring")
    out = io.StringIO()
    following = asyncio.create_task(follow(world.api, place(tmp_path, embedded=True), Console(file=out)))
    await until(out, "fast  Scoring")
    os.kill(os.getpid(), signal.SIGINT)
    await until(out, "Suspending")
    await world.status(FinetuneJob, "e-slow", phase="Suspended")
    assert await asyncio.wait_for(following, 60) is Exit.INTERRUPTED
    assert "Suspended; what was trained is kept" in out.getvalue()
    assert "scoring of what is trained goes on" in out.getvalue() and "dtx resume fe/e" in out.getvalue()


async def test_an_experiment_that_is_not_there_is_told(api, tmp_path):
    with pytest.raises(CommandError, match='no experiment is called "e"'):
        await follow(api, place(tmp_path), Console(file=io.StringIO()))


@pytest.mark.parametrize("width", [80, 160])
async def test_on_a_terminal_each_job_has_a_bar(world, tmp_path, width):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width)
    following = asyncio.create_task(follow(world.api, place(tmp_path), console))
    await world.status(Finetune, "e-fast", phase="Running", progress={"step": 3, "steps": 9})
    await world.status(FinetuneJob, "e-fast", phase="Finetuning")
    await until(out, "3/9")
    assert "━" in out.getvalue()  # before the verdict, whose table has such lines too
    await world.end()
    assert await asyncio.wait_for(following, 60) is Exit.OK


def test_a_job_that_stopped_early_says_so_beside_its_score():
    early = {"type": "StoppedEarly", "status": "True", "reason": "StoppedEarly"}
    status = {"phase": "Succeeded", "metric": "f1", "score": 0.5}
    for conditions, said in (([early], "f1 0.5, stopped early"), ([], "f1 0.5")):
        job = {"metadata": {"name": "e-a"}, "spec": {"finetune": SPEC}}
        made = FinetuneJob.parse(job | {"status": status | {"conditions": conditions}})
        assert [line.doing for line in job_lines(Scene("e", jobs={"e-a": made}))] == [said]
