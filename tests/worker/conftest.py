"""A tiny model that learns in seconds, its tokenizer, and plans for real worker processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datatunerx.modeling.intact import digest
from datatunerx.resources.enums import Metric, RunType, Split
from datatunerx.resources.finetune import GenerationSettings
from datatunerx.resources.material import AutoSplit
from datatunerx.resources.training import TrainingParameters
from datatunerx.runs import (
    Command,
    DataFiles,
    Event,
    InspectDataPlan,
    MeasurePlan,
    ModelFiles,
    RunPlan,
    RunResult,
    TuneJob,
    TunePlan,
)
from datatunerx.runs.plan import identified
from datatunerx.storage import write_atomic
from datatunerx.telemetry.events import read_events

COLOURS = ("red", "green", "blue")


class Room:
    """A data root with plans in it, and real worker processes that do them."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root, self.root_uri, self.model_dir = root, root.as_uri(), model
        self.workers: list[subprocess.Popen[str]] = []

    @property
    def model(self) -> ModelFiles:
        return ModelFiles(name="tiny", uri=self.model_dir.as_uri(), digest=digest(self.model_dir))

    def data(self, name: str = "colours", rows: list | None = None, **splits: list) -> DataFiles:
        """Rows are objects, or lines as they are."""
        made = {}
        for split, content in {"train": self.rows(24) if rows is None else rows, **splits}.items():
            path = self.root / f"{name}-{split}.jsonl"
            lines = [row if isinstance(row, str) else json.dumps(row) for row in content]
            path.write_text("".join(line + "\n" for line in lines))
            made[Split(split)] = [path.as_uri()]
        return DataFiles(name=name, splits=made, auto_split=AutoSplit(validate=0, test=0))

    @staticmethod
    def rows(count: int) -> list:
        """A question names a colour, and the answer is that colour."""
        said = [COLOURS[n % 3] for n in range(count)]
        return [
            {"messages": [
                {"role": "user", "content": f"say {word}"}, {"role": "assistant", "content": word}
            ]}
            for word in said
        ]  # fmt: skip

    def job(self, name: str, data: DataFiles, measure: MeasurePlan | None = None, **parameters) -> TuneJob:
        told = {
            "maxSteps": 6,
            "batchSize": 4,
            "learningRate": 1e-2,
            "precision": "float32",
            "cutoffLength": 64,
        }
        return TuneJob(
            name=name, namespace="default", uid=f"uid-{name}", data=data.name, measure=measure,
            parameters=TrainingParameters.model_validate(told | parameters),
            output_uri=f"{self.root_uri}/artifacts/uid-{name}",
        )  # fmt: skip

    def measure(self, data: DataFiles, **fields) -> MeasurePlan:
        settings = {
            "metrics": [Metric.EXACT_MATCH],
            "generation": GenerationSettings(max_new_tokens=8),
        } | fields
        return MeasurePlan(data=data.name, **settings)

    def tune(self, data: list[DataFiles], jobs: list[TuneJob], salt: str = "", **fields) -> RunPlan:
        content = TunePlan(model=self.model, data=data, jobs=jobs, **fields)
        return identified(RunType.TUNE, self.root_uri, {"tune": content}, salt)

    def inspect_data(self, data: DataFiles, model: ModelFiles | None = None) -> RunPlan:
        content = InspectDataPlan(data=data, model=model)
        return identified(RunType.INSPECT, self.root_uri, {"inspect_data": content})

    def start(self, plan: RunPlan, **environment: str) -> "subprocess.Popen[str]":
        uri = f"{plan.output_uri}/plan.json"
        write_atomic(uri, plan.model_dump_json(by_alias=True, exclude_none=True).encode())
        log = (self.folder(plan) / "worker.log").open("a")
        worker = subprocess.Popen(
            [sys.executable, "-m", "datatunerx.worker", uri], stdout=log, stderr=log, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "2000"} | environment,
            start_new_session=True,
        )  # fmt: skip
        log.close()
        self.workers.append(worker)
        return worker

    def run(self, plan: RunPlan, **environment: str) -> tuple[int, RunResult]:
        code = self.start(plan, **environment).wait(timeout=110)
        return code, self.result(plan)

    def folder(self, plan: RunPlan) -> Path:
        return Path(plan.output_uri.removeprefix("file://"))

    def log(self, plan: RunPlan) -> str:
        return (self.folder(plan) / "worker.log").read_text()

    def result(self, plan: RunPlan) -> RunResult:
        path = self.folder(plan) / "result.json"
        assert path.exists(), self.log(plan)
        return RunResult.model_validate_json(path.read_bytes())

    def events(self, plan: RunPlan) -> list[Event]:
        return read_events(self.folder(plan) / "events.jsonl", 0)[0]

    def say(self, plan: RunPlan, **command) -> None:
        said = Command.model_validate(command)
        write_atomic(
            f"{plan.output_uri}/commands/{said.file_name}", said.model_dump_json(by_alias=True).encode()
        )

    def wait_for(self, plan: RunPlan, wanted, seconds: float = 60.0) -> list[Event]:
        """Until one of the run's events is wanted."""
        end = time.monotonic() + seconds
        while True:
            found = [event for event in self.events(plan) if wanted(event)]
            if found:
                return found
            assert time.monotonic() < end, f"waited in vain\n{self.log(plan)}"
            time.sleep(0.05)


@pytest.fixture
def room(tmp_path, tiny_model):
    room = Room(tmp_path, tiny_model)
    yield room
    for worker in room.workers:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
