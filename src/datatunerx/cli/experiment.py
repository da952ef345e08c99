"""Commands that run an experiment to its verdict: tune, demo, watch."""

import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console

from datatunerx.app.settings import Settings
from datatunerx.cli import tune as objects
from datatunerx.cli.change import apply_one, plural
from datatunerx.cli.check import checked
from datatunerx.cli.connect import access, answers, connected, exit_code, explained
from datatunerx.cli.documents import Json, load
from datatunerx.cli.errors import BadInput, CommandError, Exit, NoServer
from datatunerx.cli.follow import Place, follow
from datatunerx.cli.names import kind_and_name, of_model
from datatunerx.cli.text import as_yaml
from datatunerx.cli.trainable import untrainable
from datatunerx.client import Api, ApiError
from datatunerx.compute.devices import CPU, slots
from datatunerx.resources import FinetuneExperiment
from datatunerx.resources.wire import RETRY, now

EXAMPLE = "support-tickets"
PIPE_WIDTH = 140


def console() -> Console:
    """Standard output; wide where nobody's terminal limits it."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


async def tune(
    found: Settings, request: objects.Request, namespace: str, *, dry_run: str | None, followed: bool
) -> Exit:
    if dry_run not in (None, "json", "yaml"):
        raise BadInput(f"-o {dry_run}: must be json or yaml")
    bodies = objects.build(request, Path.cwd())
    if dry_run is not None:
        print(json.dumps(bodies, indent=2) if dry_run == "json" else as_yaml(bodies).rstrip(), flush=True)
        if told := untrainable(bodies, _gpus(found)):
            raise CommandError("\n".join(told))
        return Exit.OK
    async with platform(found, may_start=followed) as (api, embedded):
        name = await send(api, bodies, namespace)
        if not followed:
            print(f"Follow it with: dtx watch fe/{name}")
            return Exit.OK
        return await follow(api, Place(name, namespace, found.kubeconfig, embedded), console())


def _gpus(found: Settings) -> int | None:
    """GPUs of the machine that will train, if that is this one."""
    if found.other_kubeconfig is not None:
        return None
    names = slots(found.gpus)
    return 0 if names == [CPU] else len(names)


async def demo(found: Settings, folder: Path | None, namespace: str) -> Exit:
    """Apply the example and follow it."""
    where = folder or example_folder()
    bodies = checked(load([str(where)]))
    async with platform(found) as (api, embedded):
        name = await send(api, bodies, namespace)
        return await follow(api, Place(name, namespace, found.kubeconfig, embedded), console())


async def watch(found: Settings, name: str | None, namespace: str) -> Exit:
    """Follow an experiment that runs, or tell the verdict of one that ended; the newest if none is named."""
    async with connected(found) as api:
        if name is None:
            experiments = await api.list(FinetuneExperiment, namespace)
            if not experiments:
                raise CommandError(f"no experiments in namespace {namespace}; start one with dtx tune")
            name = max(experiments, key=lambda e: e.metadata.creation_timestamp or "").metadata.name
        elif "/" in name:  # as every other command takes it
            kind, name = kind_and_name(name)
            if kind.kind != FinetuneExperiment.__name__:
                raise BadInput(
                    f"{kind.kind} cannot be watched to a verdict; name an experiment, as in fe/{name}"
                )
        place = Place(name, namespace, found.kubeconfig, embedded=False, patient=True)
        return await follow(api, place, console())


@asynccontextmanager
async def platform(found: Settings, *, may_start: bool = True) -> AsyncIterator[tuple[Api, bool]]:
    """The running server's API; where there is none, the platform in this process, told by True."""
    if found.kubeconfig.exists():
        async with connected(found) as api:
            if await answers(api):
                yield api, False
                return
    if found.other_kubeconfig is not None:
        server = access(found).server
        raise NoServer(f"{server}, named by {found.other_kubeconfig}, does not answer; is it running?")
    if not may_start:
        raise NoServer("--no-follow needs a server that stays: run `dtx up --detach` first")
    from datatunerx.app.up import StartError, platform_in_process
    from datatunerx.telemetry.logging import log_to

    found.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    log_to(found.home / "server.log")  # the screen belongs to the progress bars
    try:
        async with platform_in_process(found, any_port=True) as started:
            yield Api(started.transport), True
    except StartError as error:
        raise NoServer(str(error)) from None


async def send(api: Api, bodies: Sequence[Json], namespace: str) -> str:
    """Apply the objects; the name of their experiment, taken up again if it was suspended."""
    names = [body["metadata"]["name"] for body in bodies if body["kind"] == "FinetuneExperiment"]
    if len(names) != 1:
        raise BadInput(f"expected one FinetuneExperiment to follow, found {len(names)}; apply them instead")
    is_new = False
    for body in bodies:
        try:
            done = await apply_one(api, body, namespace, force=True)
            is_new |= body["kind"] == "FinetuneExperiment" and done.endswith(" created")
            print(done, flush=True)
        except ApiError as error:
            title = f"{body['kind']}/{body['metadata']['name']}"
            failure = CommandError("\n".join(f"{title}: {line}" for line in explained(error).splitlines()))
            failure.code = exit_code(error)
            raise failure from None
    await _look_again(api, bodies, namespace)
    name = str(names[0])
    experiment = await api.get(FinetuneExperiment, name, namespace)
    if experiment.status.phase.terminal:
        if not is_new:  # what cannot be trained at all ends at once
            print(f"{name} has ended already; this is its verdict.")
            if experiment.status.failures:
                print(f"To try again what failed of it: dtx retry {name}")
            print(f"To run all of it again, first: dtx delete fe/{name}")
    elif experiment.spec.suspend:
        await api.patch(FinetuneExperiment, name, {"spec": {"suspend": False}}, namespace)
        print(f"{name} was suspended and goes on from its last whole checkpoints")
    return name


async def _look_again(api: Api, bodies: Sequence[Json], namespace: str) -> None:
    """Have what failed its inspection inspected once more: the cause may be gone."""
    for body in bodies:
        if body["kind"] not in ("LLM", "Dataset"):
            continue
        kind, name = plural(of_model(body["kind"])), body["metadata"]["name"]
        conditions = (await api.get(kind, name, namespace)).get("status", {}).get("conditions", [])
        if any(c["type"] == "Ready" and c["status"] == "False" for c in conditions):
            await api.patch(kind, name, {"metadata": {"annotations": {RETRY: now()}}}, namespace)


def example_folder() -> Path:
    """examples/support-tickets: of the clone this was installed from, or below the current folder."""
    places = [Path(__file__).resolve().parents[3] / "examples" / EXAMPLE, Path.cwd() / "examples" / EXAMPLE]
    for place in places:
        if place.is_dir():
            return place
    raise BadInput(
        f"the example is not installed; clone the repository and name it: dtx demo --dir examples/{EXAMPLE}"
    )
