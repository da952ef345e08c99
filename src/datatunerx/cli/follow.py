"""Follows one experiment through the API to its verdict."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from datatunerx.cli import verdict
from datatunerx.cli.errors import CommandError, Exit
from datatunerx.cli.progress import Scene, blocked, short_job, stuck
from datatunerx.cli.screen import screen
from datatunerx.client import Api, Informer, NotFound, Unreachable
from datatunerx.resources import (
    LLM,
    Dataset,
    Finetune,
    FinetuneExperiment,
    FinetuneJob,
    Hyperparameter,
    LLMCheckpoint,
    Resource,
    Scoring,
)
from datatunerx.resources.enums import JobPhase
from datatunerx.storage.errors import StorageError
from datatunerx.storage.paths import is_local, local_path

DRAW_SECONDS = 0.25
PING_SECONDS = 5.0
PINGS = 3
"""Unanswered in a row before the server counts as gone."""
STUCK_SECONDS = 3.0
"""How long nothing can begin before an impatient watcher gives up."""
SUSPEND_SECONDS = 30.0
"""How long a Ctrl-C waits for checkpoints to be written."""


T = TypeVar("T", bound=Resource)


@dataclass(frozen=True)
class Place:
    """Which experiment, and who keeps it going."""

    name: str
    namespace: str
    kubeconfig: Path
    embedded: bool
    """True if the platform runs in this process and ends with it."""
    patient: bool = False
    """True waits on when nothing can begin before somebody mends something."""


@dataclass(frozen=True)
class Report:
    """What an experiment came to, gathered from its objects and files."""

    experiment: FinetuneExperiment
    answers: tuple[list[verdict.Answer], list[verdict.Answer]] | None = None
    """Of the base and of the best job."""
    winner: verdict.Winner | None = None


async def follow(api: Api, place: Place, console: Console) -> Exit:
    """Draw until the experiment ends, then tell its verdict. Ctrl-C leaves it in good order."""
    scene = Scene(place.name)
    async with _interrupts() as interrupted, _mirror(api, scene, place.namespace) as informers:
        await _draw(api, scene, place, console, interrupted, informers)
        if interrupted.is_set() and not scene.ended:
            return await _leave(api, scene, place, console, interrupted)
    if scene.experiment is None:
        raise CommandError(f"FinetuneExperiment/{place.name} was deleted")
    if not scene.ended and not scene.suspended:
        raise CommandError(
            "\n".join([*blocked(scene), f"nothing of {place.name} can begin before this is mended"])
        )
    if not scene.ended:
        console.print(f"{place.name} is suspended. Take it up again with: dtx resume fe/{place.name}")
        return Exit.FAILED
    return await tell(api, place, console)


async def tell(api: Api, place: Place, console: Console) -> Exit:
    """The verdict of an ended experiment."""
    found = await report(api, place)
    console.print()
    draw(found, place, console)
    if found.experiment.status.phase == "Succeeded" and found.experiment.status.best is not None:
        return Exit.OK
    console.print()
    console.print(verdict.last_line(found.experiment), style="bold red", soft_wrap=True)
    return Exit.FAILED


async def report(api: Api, place: Place) -> Report:
    """Everything the verdict is drawn from."""
    experiment = await api.get(FinetuneExperiment, place.name, place.namespace)
    best = experiment.status.best
    if best is None:
        return Report(experiment)
    answers = await _answers(api, experiment, best.job, place.namespace)
    return Report(experiment, answers, await _winner(api, best.checkpoint, place.namespace))


def draw(found: Report, place: Place, console: Console) -> None:
    experiment, best = found.experiment, found.experiment.status.best
    if experiment.status.ranking:
        console.print(verdict.ranking(experiment))
    for line in verdict.reasons(experiment):
        console.print(line)
    if best is not None and found.answers is not None:
        shown = verdict.side_by_side(*found.answers, job=short_job(best.job, place.name))
        if shown is not None:
            console.print()
            console.print(shown)
    steps = verdict.next_steps(
        place.name, found.winner, place.kubeconfig,
        recommended=verdict.beats_base(experiment), serving=not place.embedded,
    )  # fmt: skip
    console.print()
    console.print(steps, markup=False, highlight=False, soft_wrap=True)


async def _draw(
    api: Api,
    scene: Scene,
    place: Place,
    console: Console,
    interrupted: asyncio.Event,
    informers: Sequence[Informer[Any]],
) -> None:
    """Until it ended, is suspended, stuck or deleted, or Ctrl-C."""
    loop = asyncio.get_running_loop()
    last_ping, unanswered, moved = loop.time(), 0, loop.time()
    with screen(console) as drawn:
        while not interrupted.is_set():
            scene.whole = all(informer.synced.is_set() for informer in informers)
            drawn.show(scene)
            if scene.experiment is None or scene.ended or (scene.suspended and _quiet(scene)):
                return
            if place.patient or not stuck(scene):
                moved = loop.time()
            if loop.time() - moved > STUCK_SECONDS:
                return
            if loop.time() - last_ping > PING_SECONDS:
                last_ping = loop.time()
                unanswered = 0 if await _pong(api) else unanswered + 1
                if unanswered >= PINGS:
                    raise Unreachable(
                        0, "Unreachable",
                        "the server no longer answers; what trains goes on. "
                        f"Start it again with `dtx up`, then: dtx watch fe/{scene.name}",
                    )  # fmt: skip
            with suppress(TimeoutError):
                await asyncio.wait_for(interrupted.wait(), DRAW_SECONDS)


async def _leave(api: Api, scene: Scene, place: Place, console: Console, interrupted: asyncio.Event) -> Exit:
    """After Ctrl-C: let it go on elsewhere, or suspend it here."""
    if not place.embedded:
        console.print(f"Training goes on. Look again with: dtx watch fe/{place.name}")
        return Exit.INTERRUPTED
    if scene.jobs and not _phases(scene) & {JobPhase.PENDING, JobPhase.FINETUNING}:
        console.print("All is trained. Scoring goes on in its worker without this command; to see it:")
        console.print(f"    dtx up    and then    dtx watch fe/{place.name}")
        return Exit.INTERRUPTED
    console.print("Suspending: each job saves a checkpoint. Ctrl-C again leaves at once.")
    interrupted.clear()
    await api.patch(FinetuneExperiment, place.name, {"spec": {"suspend": True}}, place.namespace)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SUSPEND_SECONDS
    while not _saved(scene) and loop.time() < deadline and not interrupted.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(interrupted.wait(), DRAW_SECONDS)
    if _saved(scene):
        console.print("Suspended; what was trained is kept. The same command takes it up again, or:")
        if JobPhase.SCORING in _phases(scene):
            console.print("(The scoring of what is trained goes on in its worker without this command.)")
    else:
        console.print(
            "Left before all was saved; the worker finishes its step and saves by itself. Go on with:"
        )
    console.print(f"    dtx up    and then    dtx resume fe/{place.name}")
    return Exit.INTERRUPTED


def _quiet(scene: Scene) -> bool:
    """Nothing of it is at work."""
    return not _phases(scene) & {JobPhase.FINETUNING, JobPhase.SCORING} and bool(scene.experiment)


def _saved(scene: Scene) -> bool:
    """It is suspended and none trains. Scoring is not waited for: it saves nothing, and needs no server."""
    return scene.suspended and JobPhase.FINETUNING not in _phases(scene)


def _phases(scene: Scene) -> set[JobPhase]:
    return {job.status.phase for job in scene.jobs.values()}


async def _pong(api: Api) -> bool:
    try:
        await asyncio.wait_for(api.raw("/readyz"), PING_SECONDS)
    except (Unreachable, TimeoutError):
        return False
    return True


@asynccontextmanager
async def _interrupts() -> AsyncIterator[asyncio.Event]:
    """An event that Ctrl-C and SIGTERM set, instead of ending the process."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        loop.add_signal_handler(number, event.set)
    try:
        yield event
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


@asynccontextmanager
async def _mirror(api: Api, scene: Scene, namespace: str) -> AsyncIterator[Sequence[Informer[Any]]]:
    """Keep the scene as the API has it, by these informers."""

    def on_experiment(old: FinetuneExperiment | None, new: FinetuneExperiment | None) -> None:
        if _name(new or old) == scene.name:
            scene.experiment = new

    def on_job(old: FinetuneJob | None, new: FinetuneJob | None) -> None:
        owners = [(o.kind, o.name) for body in (new or old,) if body for o in body.metadata.owner_references]
        if ("FinetuneExperiment", scene.name) in owners:
            _keep(scene.jobs, _name(new or old), new)

    def on_finetune(old: Finetune | None, new: Finetune | None) -> None:
        _keep(scene.finetunes, _name(new or old), new)

    def on_material(old: Resource | None, new: Resource | None) -> None:
        body = new or old
        if body is not None:
            _keep(scene.materials, f"{body.kind}/{body.metadata.name}", new)

    try:
        scene.experiment = await api.get(FinetuneExperiment, scene.name, namespace)
    except NotFound:
        raise CommandError(f'no experiment is called "{scene.name}" here; see dtx get fe') from None
    informers: list[Informer[Any]] = [
        Informer(api, FinetuneExperiment, on_experiment, namespace),
        Informer(api, FinetuneJob, on_job, namespace),
        Informer(api, Finetune, on_finetune, namespace),
        Informer(api, LLM, on_material, namespace),
        Informer(api, Dataset, on_material, namespace),
        Informer(api, Hyperparameter, on_material, namespace),
    ]
    tasks = [asyncio.create_task(each.run()) for each in informers]
    try:
        yield informers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _name(body: Resource | None) -> str:
    return body.metadata.name if body else ""


def _keep(kept: dict[str, T], name: str, body: T | None) -> None:
    if body is None:
        kept.pop(name, None)
    else:
        kept[name] = body


async def _answers(
    api: Api, experiment: FinetuneExperiment, job: str, namespace: str
) -> tuple[list[verdict.Answer], list[verdict.Answer]] | None:
    """Stored answers of the base and of the winner; None when one of them is not at hand."""
    base = verdict.base_row(experiment, job)
    ours = next((row for row in experiment.status.ranking if row.name == job and not row.base), None)
    if base is None or ours is None or not base.scoring or not ours.scoring:
        return None
    read: list[list[verdict.Answer]] = []
    for name in (base.scoring, ours.scoring):
        uri = (await api.get(Scoring, name, namespace)).status.predictions_uri
        if not uri or not is_local(uri):
            return None
        try:
            read.append(verdict.read_answers(local_path(uri)))
        except StorageError as error:
            raise CommandError(f"Scoring/{name}: status.predictionsUri: {error}") from None
    return read[0], read[1]


async def _winner(api: Api, checkpoint: str | None, namespace: str) -> verdict.Winner | None:
    if not checkpoint:
        return None
    spec = (await api.get(LLMCheckpoint, checkpoint, namespace)).spec
    base = spec.base_uri or (await api.get(LLM, spec.llm, namespace)).status.local_uri
    return verdict.Winner(_folder(base), _folder(spec.uri)) if base else None


def _folder(uri: str) -> str:
    return str(local_path(uri)) if is_local(uri) else uri
