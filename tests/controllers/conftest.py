"""A real server in this process, and a backend whose workers are pretended but whose files are real."""

import asyncio
import hashlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from datatunerx.client import Api, InProcess
from datatunerx.compute.backend import RunState, Submission
from datatunerx.controllers import Settings, run_controllers
from datatunerx.resources.crds import crd_manifests
from datatunerx.resources.enums import FinetunePhase, RunPhase
from datatunerx.resources.experiment import MetricResult
from datatunerx.resources.finetune import CheckpointRef, Progress, Sample
from datatunerx.resources.material import DataReport, MadeData
from datatunerx.runs import (
    DataFacts,
    Event,
    EventType,
    JobOutcome,
    ModelFacts,
    ModelState,
    RunPlan,
    RunResult,
    ScoreOutcome,
    ServedModels,
    ServingState,
    TuneJob,
)
from datatunerx.runs.draws import Draws, MetricDraws, draws_uri
from datatunerx.runs.files import COMMANDS, EVENTS, LOG, MODELS, RESULT
from datatunerx.runs.result import PluginFacts
from datatunerx.server.app import KubeApp, create_app
from datatunerx.server.tokens import Tokens
from datatunerx.storage import local_path
from datatunerx.store import Store
from datatunerx.telemetry.events import encode

NUM_STEPS = 3
BASE_SCORE = 0.2


@dataclass
class Behaviour:
    """What becomes of the trainings of a name, and how they score."""

    fail: dict[str, str] = field(default_factory=dict)
    """Job -> reason of its failure."""
    why: str = "rows 3 and 4"
    """Message of a failure."""
    die: dict[str, int] = field(default_factory=dict)
    """Job -> how many runs that carry it die before it is done."""
    scores: dict[str, float | None] = field(default_factory=dict)
    """Job (empty: the base) -> score; None is a score that could not be measured."""
    broken_sources: set[str] = field(default_factory=set)
    wait_at: int | None = None
    """Trainings do not go beyond this step, until it is None: for tests that meet them on their way."""
    slow_scoring: bool = False
    """Runs that have trained all their jobs go on measuring."""
    refuse_scoring: set[str] = field(default_factory=set)
    """Jobs without a score in the result of their run."""
    plugins: dict[str, PluginFacts] = field(default_factory=dict)
    """What plugins say of themselves, by the name of their object."""
    extra: dict[str, MetricResult] = field(default_factory=dict)
    """Further metrics that every measure finds."""
    draws: dict[str, list[float]] = field(default_factory=dict)
    """Subject (empty: the base; scored: in a run of its own) -> its draws of the metric that ranks."""
    weights: bytes = b"w"
    """What trainings write as their adapter's weights."""
    early: set[str] = field(default_factory=set)
    """Jobs that stop early at step 2, and were best at step 1."""
    splits: dict[str, int] = field(default_factory=lambda: {"train": 8, "validate": 1, "test": 1})
    """Rows that every inspection finds."""
    scores_die: list[int | str] = field(default_factory=list)
    """How the next score runs end early: an exit code, or "stop" for an interruption from outside."""


@dataclass
class Worker:
    """One pretended process. Each `step` does a little, as a real one would between two looks at it."""

    submission: Submission
    plan: RunPlan
    behaviour: Behaviour
    phase: RunPhase = RunPhase.PENDING
    exit_code: int | None = None
    stopping: bool = False
    hangs: bool = False
    paths: bool = False
    """Checkpoints are told of by path instead of by URI."""
    done: dict[str, JobOutcome] = field(default_factory=dict)
    steps: int = 0
    requests: int = 0
    """Of a serving worker: in hand."""

    @property
    def folder(self) -> Path:
        return local_path(self.plan.output_uri)

    def emit(self, **event: Any) -> None:
        with open(self.folder / EVENTS, "ab") as file:
            file.write(encode(Event(**event)))

    def end(self, result: RunResult | None, code: int) -> None:
        if result:
            (self.folder / RESULT).write_text(result.model_dump_json(by_alias=True, exclude_none=True))
        self.exit_code = code
        self.phase = RunPhase.SUCCEEDED if code == 0 else RunPhase.FAILED
        if self.stopping:
            self.phase = RunPhase.STOPPED

    def step(self) -> None:
        if self.phase.terminal or self.hangs:
            return
        self.phase = RunPhase.RUNNING
        at = self.behaviour.wait_at
        waits = self.plan.tune is not None and at is not None and self.steps >= at
        self.steps += not waits
        with open(self.folder / LOG, "a") as file:
            file.write(f"step {self.steps}\n")
        self.emit(type=EventType.HEARTBEAT, activity="training")
        if self.plan.tune:
            self._tune(waits)
        elif self.plan.score:
            self._score()
        elif self.plan.serve:
            self._serve()
        else:
            self._inspect()

    def _inspect(self) -> None:
        plan_id = self.plan.id
        if part := self.plan.inspect_model:
            if part.source in self.behaviour.broken_sources:
                broken = RunResult(
                    plan_id=plan_id, phase=RunPhase.FAILED, reason="NotAModel", message="no config.json there"
                )
                return self.end(broken, 1)
            facts = ModelFacts(
                architecture="LlamaForCausalLM", parameters=1000, context_length=2048, bytes=4000,
                cache_width=64, digest=f"digest-of-{part.source}", local_uri=f"{self.plan.models_uri}/x",
            )  # fmt: skip
            return self.end(RunResult(plan_id=plan_id, phase=RunPhase.SUCCEEDED, model=facts), 0)
        if self.plan.inspect_plugin:
            plugin = self.behaviour.plugins.get(self.plan.inspect_plugin.plugin.name, PluginFacts())
            return self.end(RunResult(plan_id=plan_id, phase=RunPhase.SUCCEEDED, plugin=plugin), 0)
        if self.plan.make_data:
            uri = f"{self.plan.output_uri}/made/train.jsonl"
            name = f"make-{plan_id[:10]}"
            made = MadeData(run=name, digest="digest-of-data", rows=3, splits={"train": [uri]})
            return self.end(RunResult(plan_id=plan_id, phase=RunPhase.SUCCEEDED, made=made), 0)
        splits = self.behaviour.splits
        report = DataReport(format="messages", read=10, kept=sum(splits.values()), splits=splits)
        data = DataFacts(digest="digest-of-data", report=report)
        self.end(RunResult(plan_id=plan_id, phase=RunPhase.SUCCEEDED, data=data), 0)

    def _tune(self, waits: bool) -> None:
        assert self.plan.tune
        wanted = self._commands()
        for job in self.plan.tune.jobs:
            if job.name in self.done or waits and job.name not in wanted and not self.stopping:
                continue
            if self.behaviour.die.get(job.name, 0) > job.attempt:
                return self.end(None, -9)
            self._train(job, wanted.get(job.name))
        if self.behaviour.slow_scoring and not self.stopping:
            return
        if len(self.done) == len(self.plan.tune.jobs) and (self.steps > NUM_STEPS + 1 or self.stopping):
            self.end(self._tuned(), 0)

    def _train(self, job: TuneJob, command: dict[str, Any] | None) -> None:
        step = min(self.steps, NUM_STEPS)
        folder = f"{job.output_uri}/checkpoint-{step}"
        local_path(folder).mkdir(parents=True, exist_ok=True)
        manifest = json.dumps({"step": step, "files": {"adapter": {"bytes": 10}}}).encode()
        local_path(folder).joinpath("adapter").write_bytes(b"x" * 10)
        local_path(folder).joinpath("manifest.json").write_bytes(manifest)
        local_path(folder).joinpath("adapter_model.safetensors").write_bytes(self.behaviour.weights)
        digest = hashlib.sha256(manifest).hexdigest()
        checkpoint = CheckpointRef(step=step, uri=folder, digest=digest, bytes=10)
        if self.paths:
            checkpoint = checkpoint.model_copy(update={"uri": str(local_path(folder))})
        self.emit(type=EventType.PROGRESS, job=job.name, progress=Progress(step=step, steps=NUM_STEPS))
        self.emit(type=EventType.METRICS, job=job.name, step=step, values={"loss": 1.0 / step})
        self.emit(type=EventType.CHECKPOINT, job=job.name, checkpoint=checkpoint)
        self.emit(type=EventType.SAMPLE, job=job.name, sample=Sample(step=step, prompt="p", answer="a"))
        outcome = JobOutcome(phase=FinetunePhase.RUNNING, step=step, steps=NUM_STEPS, checkpoint=checkpoint)
        reason = self.behaviour.fail.get(job.name)
        if command and command["verb"] == "stop":
            kept = None if command.get("mode") == "discard" else checkpoint
            outcome = outcome.model_copy(update={"phase": FinetunePhase.STOPPED, "checkpoint": kept})
        elif command or self.stopping:
            outcome = outcome.model_copy(update={"phase": FinetunePhase.SUSPENDED})
        elif reason:
            outcome = JobOutcome(
                phase=FinetunePhase.FAILED, reason=reason, message=self.behaviour.why, step=step
            )
        elif job.name in self.behaviour.early and step == 2:
            best = checkpoint.model_copy(update={"step": 1, "uri": f"{job.output_uri}/checkpoint-1"})
            told = {"reason": "StoppedEarly", "message": "stopped early at step 2 of 3; best at step 1: 0.5"}
            outcome = outcome.model_copy(
                update={"phase": FinetunePhase.SUCCEEDED, "checkpoint": best, **told}
            )
        elif step >= NUM_STEPS:
            outcome = outcome.model_copy(update={"phase": FinetunePhase.SUCCEEDED})
        else:
            return
        self.done[job.name] = outcome
        self.emit(type=EventType.JOB, job=job.name, outcome=outcome)

    def _commands(self) -> dict[str, dict[str, Any]]:
        found = sorted((self.folder / COMMANDS).glob("*.json"))
        said = [json.loads(path.read_bytes()) for path in found]
        return {command["job"]: command for command in said}

    def _tuned(self) -> RunResult:
        assert self.plan.tune
        scores = [
            self._outcome("", measure.key(), measure.metrics[0]) for measure in self.plan.tune.baselines
        ]
        for job in self.plan.tune.jobs:
            won = self.done[job.name].phase is FinetunePhase.SUCCEEDED
            if job.measure and won and job.name not in self.behaviour.refuse_scoring:
                scores.append(self._outcome(job.name, job.measure.key(), job.measure.metrics[0]))
        return RunResult(plan_id=self.plan.id, phase=RunPhase.SUCCEEDED, jobs=self.done, scores=scores)

    def _score(self) -> None:
        assert self.plan.score
        if self.behaviour.scores_die:
            how = self.behaviour.scores_die.pop(0)
            self.stopping = how == "stop"
            return self.end(None, -15 if isinstance(how, str) else how)
        measure = self.plan.score.measure
        adapter = self.plan.score.adapter_uri
        score = self._outcome("" if adapter is None else "scored", measure.key(), measure.metrics[0])
        self.end(RunResult(plan_id=self.plan.id, phase=RunPhase.SUCCEEDED, scores=[score]), 0)

    def _serve(self) -> None:
        """Say what is served; go when told to, unless a request is in hand."""
        assert self.plan.serve
        models = self.plan.serve.models
        if (self.folder / MODELS).exists():
            models = ServedModels.model_validate_json((self.folder / MODELS).read_bytes()).models
        told = bool(self._commands())
        if told and not self.requests:
            return self.end(RunResult(plan_id=self.plan.id, phase=RunPhase.STOPPED, reason="Stopped"), 3)
        states = [ModelState(name=model.name, ready=True) for model in models]
        state = ServingState(url="http://127.0.0.1:1/v1", models=states, requests=self.requests)
        self.emit(type=EventType.SERVING, serving=state)

    def _outcome(self, subject: str, measure: str, metric: str) -> ScoreOutcome:
        value = self.behaviour.scores.get(subject, BASE_SCORE if not subject else 0.5)
        if value is None:
            result = MetricResult(why_missing="no row has a reference")
        else:
            result = MetricResult(value=value, low=value - 0.05, high=value + 0.05, n=20)
        uri = f"{self.plan.output_uri}/predictions/{subject or 'base'}-{measure}.jsonl"
        local_path(uri).parent.mkdir(parents=True, exist_ok=True)
        local_path(uri).touch()
        if draws := self.behaviour.draws.get(subject):
            rows = f"{len(draws)} rows"
            made = MetricDraws(value=value or 0.0, higher_is_better=True, n=20, rows=rows, draws=draws)
            local_path(draws_uri(uri)).write_text(
                Draws(metrics={metric: made}).model_dump_json(by_alias=True)
            )
        metrics = {metric: result} | self.behaviour.extra
        return ScoreOutcome(subject=subject, measure=measure, metrics=metrics, predictions_uri=uri)


class PretendBackend:
    """Remembers what was submitted. Workers move when `step` is called, or by themselves when `alive`."""

    def __init__(self) -> None:
        self.behaviour = Behaviour()
        self.workers: dict[str, Worker] = {}
        self.submissions: list[Submission] = []
        self.paths = False

    async def submit(self, submission: Submission) -> None:
        if submission.run in self.workers:
            return
        self.submissions.append(submission)
        plan = RunPlan.model_validate_json(local_path(submission.plan_uri).read_bytes())
        self.workers[submission.run] = Worker(submission, plan, self.behaviour, paths=self.paths)

    async def phase(self, run: str) -> RunState | None:
        worker = self.workers.get(run)
        return RunState(worker.phase, worker.exit_code) if worker else None

    async def stop(self, run: str) -> None:
        worker = self.workers.get(run)
        if worker and not worker.phase.terminal:
            worker.stopping = True
            if worker.phase is RunPhase.PENDING or not worker.plan.tune or worker.hangs:
                worker.end(None, -15)

    def step(self) -> None:
        for worker in list(self.workers.values()):
            worker.step()

    def of(self, type_: str) -> list[Worker]:
        return [w for w in self.workers.values() if w.submission.type == type_]


@dataclass
class Platform:
    """A server with its controllers, which can be killed and started again on the same data."""

    api: Api
    backend: PretendBackend
    settings: Settings
    root: Path
    store: Store
    app: KubeApp
    pace: float = 0.02
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    def start_controllers(self) -> None:
        self._stop = asyncio.Event()
        self._tasks = [
            asyncio.create_task(run_controllers(self.api, self.backend, self.settings, stop=self._stop)),
            asyncio.create_task(self._work()),
        ]

    async def kill_controllers(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(self.pace)
            self.backend.step()

    async def apply(self, *objects: Any) -> None:
        for obj in objects:
            await self.api.create(obj)

    async def until(self, look: Callable[[], Any], seconds: float = 60) -> Any:
        """What `look`, an async function, returns once that is true."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := await look()):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"not so within {seconds} s") from None
        return found

    async def ended(self, model: Any, name: str, seconds: float = 60) -> Any:
        """The object, once its phase is terminal."""

        async def look() -> Any:
            obj = await self.api.get(model, name)
            return obj if obj.status.phase.terminal else None

        return await self.until(look, seconds)


@pytest.fixture
def root() -> Any:
    """Where the data lies: in memory if there is such a place, for fsync is not what is tested here."""
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shm if shm.is_dir() else None))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def platform(root: Path) -> AsyncIterator[Platform]:
    store = Store.open(root / "db")
    app = create_app(store, crd_manifests(), tokens=Tokens({}))
    await app.start()
    settings = Settings(
        root_uri=f"file://{root}/data", settle_seconds=0.3, poll_seconds=0.02, status_seconds=0.05,
        heartbeat_seconds=0.0, resync_seconds=1.0,
    )  # fmt: skip
    made = Platform(Api(InProcess(app)), PretendBackend(), settings, root, store, app)
    made.start_controllers()
    yield made
    await made.kill_controllers()
    await app.stop()
    await store.close()


@pytest.fixture
def make_objects() -> Callable[..., list[Any]]:
    """The objects of an experiment with as many groups as asked for."""
    from datatunerx.resources import LLM, Dataset, FinetuneExperiment, Hyperparameter

    def make(groups: int = 2, name: str = "e", **spec: Any) -> list[Any]:
        names = [f"g{i}" for i in range(groups)]
        found: list[Any] = [
            LLM.parse({"metadata": {"name": "base"}, "spec": {"source": "file:///models/base"}}),
            Dataset.parse(
                {
                    "metadata": {"name": "data"},
                    "spec": {"subsets": [{"splits": {"train": ["file:///data/train.jsonl"]}}]},
                }
            ),
        ]
        for i, group in enumerate(names):
            found.append(
                Hyperparameter.parse({"metadata": {"name": group}, "spec": {"lora": {"rank": 4 * (i + 1)}}})
            )
        matrix = {"llms": ["base"], "datasets": ["data"], "hyperparameters": names}
        found.append(
            FinetuneExperiment.parse({"metadata": {"name": name}, "spec": {"matrix": matrix} | spec})
        )
        return found

    return make


@pytest.fixture
def make_backend() -> type[PretendBackend]:
    return PretendBackend
