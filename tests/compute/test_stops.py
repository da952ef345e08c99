"""Fifteen seconds after Stop nothing of a run is alive, whatever it was doing."""

import asyncio
import itertools
import json
import time

import pytest

from datatunerx.compute import Submission
from datatunerx.modeling.intact import digest
from datatunerx.resources.enums import Metric, RunType, Split
from datatunerx.resources.finetune import GenerationSettings
from datatunerx.resources.material import AutoSplit
from datatunerx.resources.training import TrainingParameters
from datatunerx.runs import DataFiles, MeasurePlan, ModelFiles, TuneJob, TunePlan
from datatunerx.runs.plan import identified

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

PROMISED_SECONDS = 15.0
ENDLESS = {"maxSteps": 1_000_000, "batchSize": 4, "cutoffLength": 64, "precision": "float32"}
MANY = 200_000
"""Rows that take longer to tokenise, or to measure a loss on, than a test waits."""


class Trainings:
    """Real workers in the places of the compute tests."""

    def __init__(self, place, model, rows):
        self.place, self.model = place, model
        self.line = [json.dumps(row) + "\n" for row in rows]

    def files(self, name, train, validate=0, test=0):
        splits = {}
        for split, count in ((Split.TRAIN, train), (Split.VALIDATE, validate), (Split.TEST, test)):
            if count:
                path = self.place.home / f"{name}-{split}.jsonl"
                if not path.exists():
                    path.write_text("".join(itertools.islice(itertools.cycle(self.line), count)))
                splits[split] = [path.as_uri()]
        return DataFiles(name=name, splits=splits, auto_split=AutoSplit(validate=0, test=0))

    def submission(self, data, scored=False, **parameters) -> Submission:
        """A run whose plan is a training on these files; it never ends by itself."""
        run = self.place.run("")
        folder = self.place.folder(run.run)
        measure = MeasurePlan(
            data=data.name, metrics=[Metric.EXACT_MATCH], generation=GenerationSettings(max_new_tokens=64)
        )
        job = TuneJob(
            name="a", namespace="default", uid=run.run, data=data.name, measure=measure if scored else None,
            parameters=TrainingParameters.model_validate(ENDLESS | parameters),
            output_uri=(folder / "artifacts").as_uri(),
        )  # fmt: skip
        model = ModelFiles(name="tiny", uri=self.model.as_uri(), digest=digest(self.model))
        plan = identified(
            RunType.TUNE,
            self.place.home.as_uri(),
            {"tune": TunePlan(model=model, data=[data], jobs=[job])},
            run.run,
        ).model_copy(update={"output_uri": folder.as_uri()})
        (folder / "plan.json").write_text(plan.model_dump_json(by_alias=True, exclude_none=True))
        return run

    def said(self, run, *words):
        path = self.place.folder(run) / "events.jsonl"
        return path.exists() and any(all(w in line for w in words) for line in path.read_text().splitlines())

    def is_saving(self, run):
        return any((self.place.folder(run) / "artifacts").glob(".saving-*"))


@pytest.fixture
def trainings(place, tiny_model, colour_rows):
    return Trainings(place, tiny_model, colour_rows)


def start_at(trainings, moment):
    """A submission, and what tells that its worker has come to the moment."""
    few = trainings.files("few", 24)
    match moment:
        case "starting":
            return trainings.submission(few), lambda run: bool(trainings.place.processes(run))
        case "tokenising":
            many = trainings.submission(trainings.files("many", MANY))
            return many, lambda run: trainings.said(run, "tokenising many:")
        case "training":
            return trainings.submission(few), lambda run: trainings.said(run, '"progress"')
        case "saving":
            saved = trainings.submission(few, saveEvery=1, lora={"rank": 64})
            return saved, trainings.is_saving
        case "evaluating":
            measured = trainings.submission(trainings.files("measured", 24, validate=20_000), evalEvery=1)
            return measured, lambda run: trainings.said(run, '"metrics"', '"loss"')
        case "scoring":
            asked = trainings.submission(trainings.files("asked", 24, test=20_000), scored=True, maxSteps=1)
            return asked, lambda run: trainings.said(run, "scoring a on")
        case "ignoring":
            return trainings.place.run("ignore"), trainings.place.ready
    raise ValueError(moment)


MOMENTS = ("tokenising", "saving", "evaluating")
ALL_MOMENTS = (*MOMENTS, "starting", "training", "scoring", "ignoring")
TRIALS = [
    pytest.param(MOMENTS, id="each moment once"),
    pytest.param(
        tuple(itertools.islice(itertools.cycle(ALL_MOMENTS), 100)),
        id="a hundred",
        marks=[pytest.mark.long, pytest.mark.timeout(7200)],
    ),
]


@pytest.mark.parametrize("moments", TRIALS)
async def test_fifteen_seconds_after_stop_nothing_of_the_run_is_alive(
    place, backend, trainings, ended, moments
):
    slowest = 0.0
    for number, moment in enumerate(moments):
        run, has_come = start_at(trainings, moment)
        await backend.submit(run)
        while not has_come(run.run):
            state = await backend.phase(run.run)
            assert not state.phase.terminal, f"{moment}: {state}"
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.003 * (number % 7))
        assert place.processes(run.run), f"{moment}: nothing was running"
        asked = time.monotonic()
        await backend.stop(run.run)
        while place.processes(run.run):
            assert time.monotonic() - asked < PROMISED_SECONDS, f"alive after {moment}, trial {number}"
            await asyncio.sleep(0.05)
        slowest = max(slowest, time.monotonic() - asked)
        assert (await ended(backend, run.run, seconds=2)).phase.value == "Stopped", moment
    print(f"{len(moments)} stops, the slowest took {slowest:.1f} s")
