"""A Dataset of test rows alone: models are scored by it, and none is trained on it."""

import pytest

from datatunerx.client import ApiError
from datatunerx.resources import Dataset, FinetuneExperiment, Scoring


def rows_to_score_by(name="asked", **splits):
    spec = {"subsets": [{"splits": splits or {"test": ["file:///data/asked.jsonl"]}}]}
    return Dataset.parse({"metadata": {"name": name}, "spec": spec})


async def test_an_experiment_is_scored_by_them(platform, make_objects):
    await platform.apply(rows_to_score_by(), *make_objects(1, scoring={"dataset": "asked"}))
    status = (await platform.ended(FinetuneExperiment, "e")).status
    assert status.phase == "Succeeded" and status.ranking[0].rank == 1
    (worker,) = platform.backend.of("tune")
    (asked,) = [files for files in worker.plan.tune.data if files.name == "asked"]
    assert asked.splits == {"test": ["file:///data/asked.jsonl"]}


async def test_a_model_is_scored_by_them(platform, make_objects):
    spec = {"model": {"kind": "LLM", "name": "base"}, "dataset": "asked"}
    alone = Scoring.parse({"metadata": {"name": "s"}, "spec": spec})
    await platform.apply(rows_to_score_by(), make_objects(1)[0], alone)

    async def scored():
        return (await platform.api.get(Scoring, "s")).status.score is not None

    assert await platform.until(scored)


async def test_nothing_is_trained_on_them_and_the_dataset_is_named(platform, make_objects):
    platform.backend.behaviour.splits = {"test": 3}
    llm, _, *groups, experiment = make_objects(1)
    experiment.spec.matrix.datasets = ["asked"]
    await platform.apply(llm, rows_to_score_by(), *groups, experiment)
    (failure,) = (await platform.ended(FinetuneExperiment, "e")).status.failures
    assert failure.reason == "NoTrainSplit"
    assert "Dataset asked has no files in splits.train" in failure.message
    assert "scoring.dataset" in failure.message
    assert platform.backend.of("tune") == []


async def test_a_subset_without_any_file_is_refused(platform):
    with pytest.raises(ApiError, match="a subset names no file"):
        await platform.api.create(rows_to_score_by(test=[]))
