"""What cannot be trained is said where nothing has been started yet."""

import pytest

from datatunerx.cli.trainable import untrainable
from datatunerx.resources.wire import API_VERSION


def group(name, **spec):
    return {"apiVersion": API_VERSION, "kind": "Hyperparameter", "metadata": {"name": name}, "spec": spec}


def test_what_needs_a_gpu_is_said_on_a_machine_without_one_and_by_every_group_that_inherits_it():
    objects = [group("base", method="qlora"), group("r8", extends="base"), group("fine", method="lora")]
    told = untrainable(objects, 0)
    wanted = "Hyperparameter/base, r8: method qlora needs a GPU, and this machine has none; what works: lora"
    assert told[0] == wanted
    assert not any("fine" in line for line in told)
    assert not any("needs a GPU" in line for line in untrainable(objects, 1))
    assert not any("needs a GPU" in line for line in untrainable(objects, None))


@pytest.mark.parametrize("spec", [{}, {"extends": "elsewhere", "method": "qlora"}, {"lora": {"rank": 4}}])
def test_what_can_be_trained_or_is_not_known_whole_is_no_fault(spec):
    assert untrainable([group("g", **spec)], 0) == []


def test_a_dry_run_shows_the_objects_and_fails_with_the_reason(lonely, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    asked = ("tune", "--llm", "hf://a/b", "--data", str(tmp_path / "rows.jsonl"), "--dry-run")
    lonely.environment["DTX_GPUS"] = "0"
    said = lonely(*asked, "--set", "method=qlora", code=1)
    assert (
        "kind: FinetuneExperiment" in said and "method qlora needs a GPU, and this machine has none" in said
    )
    lonely(*asked, code=0)
