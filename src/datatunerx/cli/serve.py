"""Commands around the server itself: up, operator, crds, kubeconfig."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datatunerx.app.settings import Settings, SettingsError, folders
from datatunerx.cli.connect import access, answers, connected, settings
from datatunerx.cli.errors import BadInput, CommandError, Exit, NoServer
from datatunerx.client import NotFound

DETACH_SECONDS = 20.0
END_SECONDS = 5.0
"""Between asking a server that does not answer to end and killing it."""


async def up(
    host: str | None, port: int | None, *, detach: bool, controllers: bool = True,
    tls_cert: Path | None = None, tls_key: Path | None = None, allow_paths: Sequence[Path] = (),
) -> Exit:  # fmt: skip
    """Serve until Ctrl-C or SIGTERM, or start a process that does."""
    found = settings()
    port = found.port if port is None else port
    found = replace(found, host=host or found.host, port=port, controllers=controllers)
    if tls_cert or tls_key:
        files = [path.expanduser().absolute() if path else None for path in (tls_cert, tls_key)]
        found = replace(found, tls_certificate=files[0], tls_key=files[1])
    if allow_paths:
        try:
            found = replace(found, allow_paths=folders(allow_paths, "--allow-path"))
        except SettingsError as error:
            raise BadInput(str(error)) from None
    if detach:
        return await _detached(found)
    from datatunerx.app.up import StartError, serve_until_stopped
    from datatunerx.telemetry.logging import log_to

    log_to(None, logging.WARNING)
    try:
        await serve_until_stopped(found, _say)
    except StartError as error:
        raise CommandError(str(error)) from None
    return Exit.OK


async def operator(
    found: Settings, context: str | None, compute: str, name: str, namespace: str | None,
    pace: tuple[float, float, float],
) -> Exit:  # fmt: skip
    """Run the controllers against another process's server until Ctrl-C or SIGTERM."""
    from datatunerx.app.operator import Election, access_for, operate_until_stopped
    from datatunerx.app.up import StartError
    from datatunerx.client.lease import Pace
    from datatunerx.telemetry.logging import log_to

    if compute != "local":
        raise BadInput(f"--compute {compute}: only local is built; running runs on a cluster is not yet")
    try:
        election = Election(name, namespace, Pace(*pace))
    except ValueError as error:
        raise BadInput(f"--lease-duration, --renew-deadline, --retry-period: {error}") from None
    log_to(None, logging.INFO)
    try:
        await operate_until_stopped(found, access_for(found, context), election, _say)
    except StartError as error:
        raise CommandError(str(error)) from None
    return Exit.OK


async def _detached(found: Settings) -> Exit:
    """Start `dtx up` as a process of its own and wait for its first answer; without one it is ended."""
    found = replace(found, other_kubeconfig=None)  # it writes the one of its home, whatever commands use
    log = found.home / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    log.touch(mode=0o600)
    before = _stamp(found.kubeconfig)
    command = [sys.executable, "-m", "datatunerx.cli", "up", "--host", found.host, "--port", str(found.port)]
    command += [] if found.controllers else ["--no-controllers"]
    with log.open("ab") as output:
        said_before = output.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            env={**os.environ, "DTX_HOME": str(found.home), **_tls(found), **_allowed(found)},
        )  # fmt: skip
    answered = False
    try:
        answered = await _answered(found, process, before)
    finally:
        ended_by_itself = process.poll() is not None
        if not answered:
            _end(process)
    if answered:
        _say(f"dtx is up (pid {process.pid}); it logs to {log}; stop it with: kill {process.pid}")
        _say("  the console: dtx console prints a link that logs in once")
        return Exit.OK
    if ended_by_itself:
        said = log.read_bytes()[said_before:].decode(errors="replace").strip().splitlines()
        raise CommandError("\n".join(line.removeprefix("error: ") for line in said[-3:]))
    raise NoServer(f"no answer within {DETACH_SECONDS:.0f} s, so it was ended; see {log}")


def _tls(found: Settings) -> dict[str, str]:
    files = {"DTX_TLS_CERT": found.tls_certificate, "DTX_TLS_KEY": found.tls_key}
    return {name: str(path) for name, path in files.items() if path}


def _allowed(found: Settings) -> dict[str, str]:
    return {"DTX_ALLOW_PATHS": os.pathsep.join(map(str, found.allow_paths))}


async def _answered(found: Settings, process: "subprocess.Popen[bytes]", before: int) -> bool:
    """Wait for the first answer; False if there is none in time or the process ended."""
    deadline = time.monotonic() + DETACH_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if _stamp(found.kubeconfig) != before:
            async with connected(found) as api:
                if await answers(api):
                    return True
        await asyncio.sleep(0.05)
    return False


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def print_crds(form: str) -> None:
    from datatunerx.cli.text import as_yaml
    from datatunerx.resources.crds import crd_manifests

    manifests = crd_manifests()
    if form not in ("yaml", "json"):
        raise BadInput(f"-o {form}: must be yaml or json")
    print(json.dumps(manifests, indent=2) if form == "json" else as_yaml(manifests).rstrip())


def print_kubeconfig(*, path: bool) -> None:
    found = settings().kubeconfig
    if not found.exists():
        raise NoServer(f"{found}: no such file; `dtx up` writes it")
    print(found if path else found.read_text().rstrip())


async def print_console(found: Settings) -> Exit:
    """A link to the console of the running server that logs in once, with the kubeconfig's own token."""
    server = access(found).server
    async with connected(found) as api:
        try:
            answer = json.loads(await api.raw("/console/link"))
        except NotFound:
            raise CommandError(f"{server} has no console; one that `dtx up` serves has") from None
    print(f"{server}{answer['path']}")
    return Exit.OK


def _say(line: str) -> None:
    print(line, flush=True)


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
