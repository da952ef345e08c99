"""The way from a command to a server, and from what went wrong to an exit code."""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from datatunerx.app.settings import Settings, SettingsError, settings_from
from datatunerx.cli.errors import BadInput, CommandError, Exit, NoServer
from datatunerx.client import Api, ApiError, Invalid, Unreachable
from datatunerx.client.https import Https
from datatunerx.client.kubeconfig import Access, KubeconfigError, load


def settings(kubeconfig: Path | None = None) -> Settings:
    """From the environment; an option wins over it."""
    try:
        found = settings_from()
    except SettingsError as error:
        raise BadInput(str(error)) from None
    return replace(found, other_kubeconfig=kubeconfig.expanduser().absolute()) if kubeconfig else found


@asynccontextmanager
async def connected(found: Settings) -> AsyncIterator[Api]:
    """The API of the running server. Raises NoServer when there is none."""
    async with Https(access(found)) as transport:
        yield Api(transport)


def access(found: Settings) -> Access:
    try:
        return load(found.kubeconfig)
    except KubeconfigError as error:
        raise NoServer(str(error)) from None


async def answers(api: Api) -> bool:
    """Whether the server takes our token now."""
    try:
        await api.raw("/version")
    except Unreachable:
        return False
    return True


def _loop(work: Coroutine[Any, Any, Exit | None]) -> Exit | None:
    """On uvloop, where there is one: a write then costs the server half the processor time."""
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run(work)
    return uvloop.run(work)


def run(work: Coroutine[Any, Any, Exit | None]) -> None:
    """Run a command to its end and leave with its exit code; what went wrong is told on standard error."""
    # What the client logs while it retries is for servers; a command tells its user in its own words.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        code = _loop(work) or Exit.OK
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.OK
    except (CommandError, ApiError) as error:
        told = explained(error) if isinstance(error, ApiError) else str(error)
        print("\n".join(f"error: {line}" for line in told.splitlines()), file=sys.stderr)
        code = exit_code(error)
    sys.exit(int(code))


def with_api(kubeconfig: Path | None, command: Callable[[Api], Awaitable[Exit]]) -> None:
    """Run a command that needs a running server."""

    async def work() -> Exit:
        async with connected(settings(kubeconfig)) as api:
            return await command(api)

    run(work())


def exit_code(error: Exception) -> Exit:
    """What a failure is to a script."""
    match error:
        case CommandError():
            return error.code
        case Unreachable():
            return Exit.UNREACHABLE
        case Invalid():
            return Exit.USAGE
    return Exit.FAILED


def explained(error: ApiError) -> str:
    """The server's words; each field of an invalid object on its own line."""
    if isinstance(error, Invalid) and error.causes:
        return "\n".join(f"{cause.field}: {cause.message}" for cause in error.causes)
    return error.message
