"""Objects into plans: pure, stable, and named so that nothing meets."""

import pytest

from datatunerx.resources import (
    LLM,
    Dataset,
    Finetune,
    FinetuneExperiment,
    Hyperparameter,
    TrainingParameters,
)
from datatunerx.resources.enums import Precision
from datatunerx.resources.finetune import Measure
from datatunerx.resources.training import HyperparameterRef
from datatunerx.runs.compile import (
    MAX_NAME,
    Training,
    Unresolved,
    adapter_weights,
    base_names,
    combinations,
    data_files,
    groups,
    inspect_data,
    inspect_model,
    measure_plan,
    parameters,
    relative_paths,
    tune,
    unsupported,
)
from datatunerx.runs.plan import DataFiles, ModelFiles


def experiment(name="exp", jobs=(), **matrix):
    spec = {"jobs": list(jobs)} | ({"matrix": matrix} if matrix else {})
    return FinetuneExperiment.parse({"metadata": {"name": name}, "spec": spec})


def names(found):
    return [c.name for c in combinations(found)]


def test_a_dimension_with_one_value_is_left_out_of_the_names():
    assert names(experiment(llms=["m"], datasets=["d"], hyperparameters=["a", "b"])) == ["exp-a", "exp-b"]
    assert names(experiment(llms=["m", "n"], datasets=["d"], hyperparameters=["a"])) == ["exp-m", "exp-n"]
    assert names(experiment(llms=["m"], datasets=["d"], hyperparameters=["a"])) == ["exp-a"]


def test_listed_jobs_and_the_matrix_stand_side_by_side():
    job = {"name": "mine", "llm": "m", "dataset": "d", "hyperparameter": {"ref": "a"}}
    found = experiment(jobs=[job], llms=["m"], datasets=["d"], hyperparameters=["a", "b"])
    assert names(found) == ["exp-mine", "exp-a", "exp-b"]


def test_names_never_meet_and_never_grow_too_long():
    long = [f"{'x' * 60}-{i}" for i in range(3)]
    found = names(experiment(llms=long, datasets=["d", "e"], hyperparameters=["a"]))
    assert len(set(found)) == 6 and all(len(name) <= MAX_NAME for name in found)
    tricky = names(experiment(llms=["a", "a-b"], datasets=["b-c", "c"], hyperparameters=["h"]))
    assert len(set(tricky)) == 4


def test_the_bases_score_is_never_called_as_a_job_is():
    found = experiment(llms=["m"], datasets=["d"], hyperparameters=["base", "b"])
    (base,) = base_names(found).values()
    assert base not in names(found) and base.startswith("exp-base-")
    assert base_names(experiment(llms=["m"], datasets=["d"], hyperparameters=["a"])) == {
        ("m", "d"): "exp-base"
    }
    several = base_names(experiment(llms=["base", "n"], datasets=["d", "e"], hyperparameters=["a"]))
    assert len(set(several.values())) == 4


def test_a_value_named_twice_is_one_job():
    assert names(experiment(llms=["m", "m"], datasets=["d"], hyperparameters=["a", "b"])) == [
        "exp-a",
        "exp-b",
    ]


def group(name, **spec):
    return Hyperparameter.parse({"metadata": {"name": name}, "spec": spec})


def test_parameters_go_from_defaults_over_the_chain_to_the_jobs_own():
    known = {
        g.metadata.name: g
        for g in (
            group("base", learningRate=1e-3, batchSize=4, lora={"rank": 4, "dropout": 0.1}),
            group("child", extends="base", batchSize=2, lora={"rank": 16}),
        )
    }
    ref = HyperparameterRef.model_validate({"ref": "child", "overrides": {"seed": 7}})
    found = parameters(ref, known)
    assert (found.learning_rate, found.batch_size, found.seed) == (1e-3, 2, 7)
    assert (found.lora.rank, found.lora.dropout, found.lora.alpha) == (16, 0.1, 16.0)


def test_a_missing_or_circular_group_is_named():
    with pytest.raises(Unresolved, match="no Hyperparameter 'x'") as missing:
        parameters(HyperparameterRef(ref="x"), {})
    assert missing.value.reason == "HyperparameterNotFound"
    circle = {"a": group("a", extends="b"), "b": group("b", extends="a")}
    with pytest.raises(Unresolved, match="a -> b -> a") as error:
        parameters(HyperparameterRef(ref="a"), circle)
    assert error.value.reason == "CircularExtends"


def test_what_no_engine_takes_is_said_with_what_works():
    assert unsupported(TrainingParameters()) is None
    assert "lora" in unsupported(TrainingParameters(method="full"))
    assert "SFT" in unsupported(TrainingParameters(objective="DPO"))


def llm(uid="u1"):
    return LLM.parse({"metadata": {"name": "m", "uid": uid}, "spec": {"source": "file:///m"}})


def dataset(*train):
    subsets = [{"name": str(i), "splits": {"train": [uri]}} for i, uri in enumerate(train)]
    return Dataset.parse({"metadata": {"name": "d", "uid": "u2"}, "spec": {"subsets": subsets}})


def test_the_same_object_gives_the_same_plan_and_another_one_another():
    assert inspect_model(llm(), "file:///r") == inspect_model(llm(), "file:///r")
    assert inspect_model(llm(), "file:///r").id != inspect_model(llm("u9"), "file:///r").id
    assert inspect_model(llm(), "file:///r").id != inspect_model(llm(), "file:///r", salt="1").id


def test_what_an_inspection_found_does_not_change_its_plan():
    before, after = dataset("file:///a"), dataset("file:///a")
    after.status.digest = "found"
    assert inspect_data(before, None, "file:///r").id == inspect_data(after, None, "file:///r").id


def test_all_subsets_files_are_in_their_splits_and_relative_ones_are_found():
    found = data_files(dataset("file:///a", "file:///b"))
    assert found.splits == {"train": ["file:///a", "file:///b"]}
    assert relative_paths(dataset("file:///a", "b.jsonl", "/abs")) == ["b.jsonl"]


def training(name, digest="x", rank=8, priority=0, baseline=None, **parameters_):
    spec = {"llm": "m", "dataset": "d", "hyperparameter": {"ref": "h"}, "priority": priority}
    return Training(
        finetune=Finetune.parse({"metadata": {"name": name, "uid": f"uid-{name}"}, "spec": spec}),
        model=ModelFiles(name="m", uri="file:///m", digest=digest),
        num_parameters=135_000_000,
        data=(DataFiles(name="d", splits={"train": ["file:///a"]}, digest="dd"),),
        parameters=TrainingParameters(lora={"rank": rank}, **parameters_),
        baseline=baseline,
    )


def test_the_order_of_trainings_does_not_change_the_plan():
    one = tune([training("a"), training("b")], "file:///r")
    two = tune([training("b"), training("a")], "file:///r")
    assert one == two and [job.name for job in one.tune.jobs] == ["a", "b"]
    assert one.tune.jobs[0].output_uri == "file:///r/artifacts/uid-a"


def test_equal_baselines_are_measured_once():
    measure = measure_plan(Measure(), "d")
    plan = tune([training("a", baseline=measure), training("b", baseline=measure)], "file:///r")
    assert len(plan.tune.baselines) == 1 and measure.data == "d"
    assert measure_plan(Measure(dataset="other"), "d").data == "other"


def packs(trainings, **settings):
    given = {"auto": Precision.FLOAT32, "memory_bytes": 16 << 30, "devices": 1} | settings
    return [[t.name for t in pack] for pack in groups(trainings, **given)]


def test_trainings_of_one_base_and_precision_share_a_run():
    found = [training("a"), training("b", precision="float32"), training("c", precision="bfloat16")]
    assert packs([*found, training("d", digest="y")]) == [["a", "b"], ["c"], ["d"]]


def test_one_that_asks_for_more_gpus_does_not_take_its_neighbours_along():
    found = [training("a"), training("b"), training("c")]
    for each, asked in zip(found, (0, 1, 2), strict=True):
        each.finetune.spec.resources.accelerators = asked
    assert packs(found) == [["a", "b"], ["c"]]


def test_one_whose_worker_died_beside_others_has_a_run_to_itself():
    found = [training(name) for name in "abcd"]
    for each in found[1:3]:
        each.finetune.status.alone = True
    assert packs(found) == [["a", "d"], ["b"], ["c"]]


def test_free_devices_share_the_work():
    assert packs([training(n) for n in "abcd"], devices=2) == [["a", "b"], ["c", "d"]]


def test_what_does_not_fit_beside_the_base_waits_for_the_next_run():
    per_job = 16 * adapter_weights(135_000_000, 64)
    memory = int(135_000_000 * 4 + (1 << 30) + 2.5 * per_job)
    assert packs([training(n, rank=64) for n in "abc"], memory_bytes=memory) == [["a", "b"], ["c"]]
    assert packs([training("a", rank=1024)], memory_bytes=1) == [["a"]]  # alone it may try


def test_the_urgent_goes_first():
    assert packs([training("a"), training("b", digest="y", priority=5)]) == [["b"], ["a"]]


def test_the_estimate_of_an_adapter_is_near_the_truth():
    assert 0.8 < adapter_weights(135_000_000, 8) / 2_440_000 < 1.3  # SmolLM2-135M, all linear layers
