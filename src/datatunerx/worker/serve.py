"""Base and adapters behind one endpoint, until nobody asks any more or somebody says stop."""

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from datatunerx import storage
from datatunerx.resources.enums import Engine as EngineName
from datatunerx.resources.enums import RunPhase, StopMode
from datatunerx.runs import Event, EventType, RunResult, ServedModels, ServePlan, ServingState, Verb, files
from datatunerx.worker.background import check_model, load
from datatunerx.worker.commands import Commands
from datatunerx.worker.journal import Journal
from datatunerx.worker.stopping import Stopping

if TYPE_CHECKING:  # a run that is served by another engine needs none of it
    from datatunerx.serving.app import Service
    from datatunerx.serving.endpoint import Endpoint
    from datatunerx.worker.shelf import Shelf

LOOK_SECONDS = 0.25
"""Between two looks at commands, models and the time."""
MODELS_BYTES = 64 << 20


def serve(plan: ServePlan, journal: Journal, stopping: Stopping) -> RunResult:
    """Raises `ModelChanged`, `UnusableModel`; a single model that cannot be served fails nothing else."""
    check_model(plan.model, storage.local_path(journal.plan.models_uri))
    token = bearer_token(storage.local_path(journal.uri(files.TOKEN)))
    if plan.engine is EngineName.VLLM:
        from datatunerx.worker.vllm import serve_by_vllm

        return serve_by_vllm(plan, journal, stopping, token)
    serving = _open(plan, journal, token)
    with stopping.deferred():
        try:
            serving.tell()
            journal.pulse = serving.state
            return serving.until_told(stopping)
        finally:
            serving.service.engine.close()
            serving.endpoint.stop()


def _open(plan: ServePlan, journal: Journal, token: str) -> "Serving":
    import torch
    from tokenizers import Tokenizer

    from datatunerx.serving.app import Service, create_app
    from datatunerx.serving.catalogue import Catalogue
    from datatunerx.serving.endpoint import Endpoint
    from datatunerx.serving.engine import Engine
    from datatunerx.worker.shelf import Shelf

    model_dir = storage.local_path(plan.model.uri)
    journal.activity(f"loading the base {plan.model.name}")
    # The cores are the engine's alone: with helpers of two threads, more than there are cores, libgomp lets
    # them sleep between any two products, and a step takes twice as long (docs/log.md).
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    base = load(model_dir, plan.precision)
    engine = Engine(
        base, cache_tokens=plan.max_tokens, max_rows=plan.max_rows, max_waiting=plan.max_waiting,
        threads=threads,
    )  # fmt: skip
    service = Service(engine, Catalogue(), Tokenizer.from_file(str(model_dir / "tokenizer.json")))
    shelf = Shelf(base, plan.model, service.catalogue)
    wanted = WantedModels(plan, journal)
    journal.activity("loading adapters and templates")
    wanted.changed()
    shelf.serve(wanted.now().models)
    endpoint = Endpoint(create_app(service, token))
    engine.start()
    endpoint.start()
    journal.activity(f"serving {plan.model.name}: {len(service.catalogue.models)} models")
    return Serving(plan, journal, service, shelf, wanted, endpoint)


@dataclass
class Serving:
    """A run whose endpoint listens."""

    plan: ServePlan
    journal: Journal
    service: "Service"
    shelf: "Shelf"
    wanted: "WantedModels"
    endpoint: "Endpoint"

    def state(self) -> ServingState:
        load = self.service.engine.load
        return ServingState(
            requests=load.requests, rows=load.rows, completed=self.service.completed,
            last_request=self.service.last_request,
        )  # fmt: skip

    def tell(self) -> None:
        """Where it listens, and what each model is."""
        more = {"url": self.endpoint.url, "models": self.service.catalogue.states}
        self.journal.write(Event(type=EventType.SERVING, serving=self.state().model_copy(update=more)))

    def until_told(self, stopping: Stopping) -> RunResult:
        """Look at commands, at the wanted models and at the time, until the run is to end."""
        commands, since = Commands(self.journal), time.time()
        while not stopping.asked:
            time.sleep(LOOK_SECONDS)
            said = [one.mode for one in commands.new() if one.verb is Verb.STOP]
            if StopMode.DISCARD in said:
                break
            if said:
                self._finish_answers(stopping)
                return ended(self.journal, "Stopped", "stopped when its answers were done")
            idle = time.time() - max(since, self.service.last_request or 0)
            if self.plan.idle_seconds is not None and idle >= self.plan.idle_seconds and not self._busy():
                self._finish_answers(stopping)
                return ended(self.journal, "Idle", f"no request for {self.plan.idle_seconds:g} s")
            if self.wanted.changed():
                self.shelf.serve(self.wanted.now().models)
                self.tell()
        return ended(self.journal, "Stopped", "stopped; answers under way were broken off")

    def _busy(self) -> bool:
        return self.service.engine.load.requests > 0

    def _finish_answers(self, stopping: Stopping) -> None:
        """Take nothing new, and wait for what is in hand; a signal ends the patience."""
        self.service.engine.refuse()
        while self._busy() and not stopping.asked:
            time.sleep(LOOK_SECONDS / 5)


def ended(journal: Journal, reason: str, message: str) -> RunResult:
    """A serving run that was to end has succeeded."""
    return RunResult(plan_id=journal.plan.id, phase=RunPhase.SUCCEEDED, reason=reason, message=message)


class WantedModels:
    """What is to be served: the models file beside the plan if there is one, else the plan's own list."""

    def __init__(self, plan: ServePlan, journal: Journal) -> None:
        self._journal = journal
        self._now = ServedModels(models=plan.models)
        self._path = storage.local_path(journal.uri(files.MODELS))
        self._seen: tuple[int, int, int] | None = None

    def changed(self) -> bool:
        """Whether something else is wanted than at the last look. A broken file changes nothing."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return False
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            wanted = ServedModels.model_validate_json(storage.read_bytes(str(self._path), limit=MODELS_BYTES))
        except (storage.StorageError, ValidationError) as error:
            self._journal.warn(
                f"{files.MODELS} was not followed, the models stay: {' '.join(str(error).split())}"
            )
            return False
        changed, self._now = wanted != self._now, wanted
        return changed

    def now(self) -> ServedModels:
        return self._now


def bearer_token(path: Path) -> str:
    """What clients must show: read from its file, which is made if it is not there yet."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        found = path.read_text(encoding="ascii").strip()
        if found:
            return found
        path.unlink()  # a worker died between the file and its content
        return bearer_token(path)
    with os.fdopen(handle, "w") as file:
        file.write(made := secrets.token_urlsafe(32))
    return made
