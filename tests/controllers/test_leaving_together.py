"""Trainings that share a Run and are all suspended leave it together, and none takes that for its end."""

from types import SimpleNamespace

from datatunerx.controllers.finetune import end_unless_needed
from datatunerx.controllers.folder import was_told
from datatunerx.resources import Finetune, Run
from datatunerx.runs import Command, Verb


async def test_every_suspended_training_is_told_before_its_run_is_stopped(tmp_path):
    plan_uri = (tmp_path / "runs" / "p" / "plan.json").as_uri()
    spec = {"type": "tune", "planId": "p", "planUri": plan_uri, "serves": ["Finetune/a", "Finetune/b"]}
    run = Run.parse({"metadata": {"name": "r"}, "spec": spec})
    asked = {"llm": "m", "dataset": "d", "hyperparameter": {"ref": "h"}, "suspend": True}
    trainings = {n: Finetune.parse({"metadata": {"name": n}, "spec": asked}) for n in ("a", "b")}
    told_when_stopped = []

    async def patch(model, name, body, namespace):
        told_when_stopped.extend(
            n for n in trainings if was_told(plan_uri, Command(verb=Verb.SUSPEND, job=n))
        )

    world = SimpleNamespace(get=lambda model, namespace, name: trainings.get(name))
    await end_unless_needed(SimpleNamespace(world=world, api=SimpleNamespace(patch=patch)), run)

    assert told_when_stopped == ["a", "b"]
