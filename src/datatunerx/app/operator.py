"""The operator: the same controllers through the API of any cluster, one leader of however many run."""

import asyncio
import os
import signal
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datatunerx.app.control import claim_compute, controlled
from datatunerx.app.settings import Settings
from datatunerx.app.up import StartError, either, make_private
from datatunerx.client import Api
from datatunerx.client.errors import ApiError, NotFound
from datatunerx.client.https import Https
from datatunerx.client.kubeconfig import Access, KubeconfigError, in_cluster, load
from datatunerx.client.lease import Fenced, Lease, Pace
from datatunerx.client.transport import Transport
from datatunerx.resources.kinds import KINDS
from datatunerx.resources.wire import API_VERSION
from datatunerx.store import Locked
from datatunerx.store.lock import DirectoryLock

LEASE = "datatunerx-operator"
INSTALL = "install them: dtx crds | kubectl apply --server-side -f -"


@dataclass(frozen=True)
class Election:
    """Which Lease decides who leads, and how soon another takes over."""

    name: str = LEASE
    namespace: str | None = None
    """None is the access's own: in a pod that of the pod."""
    pace: Pace = Pace()


def access_for(settings: Settings, context: str | None) -> Access:
    """--kubeconfig or DTX_KUBECONFIG; else KUBECONFIG; else the pod's account; else the server of the home.

    Raises StartError.
    """
    path = settings.other_kubeconfig
    if path is None and settings.kubectl_kubeconfig:
        if os.pathsep in settings.kubectl_kubeconfig:
            raise StartError("KUBECONFIG names several files; give the one meant with --kubeconfig")
        path = Path(settings.kubectl_kubeconfig).expanduser().absolute()
    try:
        if path is None and context is None and (found := in_cluster()):
            return found
        return load(path or settings.kubeconfig, context)
    except KubeconfigError as error:
        raise StartError(str(error)) from None


async def operate_until_stopped(
    settings: Settings, access: Access, election: Election, say: Callable[[str], None]
) -> None:
    """Lead, or stand by to lead, until Ctrl-C or SIGTERM. Raises StartError, also when a part breaks."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    os.umask(0o077)
    try:
        make_private(settings.home)
    except OSError as error:
        raise StartError(f"{settings.home}: {error.strerror}; name another folder with DTX_HOME") from None
    stopping = asyncio.create_task(stop.wait())
    async with Https(access) as transport:
        await _check_kinds(Api(transport), access.server)
        identity = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        namespace = election.namespace or access.namespace
        lease = Lease(Api(transport), election.name, namespace, identity, election.pace)
        say(f"dtx operator {identity} on {access.server}; runs are processes here, under {settings.home}")
        say(f"  standing by for lease {namespace}/{election.name}")
        seat = _Seat(settings.home, say)
        while not stop.is_set():
            acquiring = asyncio.create_task(lease.acquire(seat.taken))
            await either(acquiring, stopping)
            if not acquiring.done():
                acquiring.cancel()
                break
            await acquiring
            say(f"leading as {identity}")
            await _lead(transport, lease, settings, stopping)
            say(
                "stopping; workers that train go on" if stop.is_set() else "not leading any more; standing by"
            )
            seat.leave()
        await lease.release()


async def _lead(
    transport: Transport, lease: Lease, settings: Settings, stopping: "asyncio.Task[bool]"
) -> None:
    """Act for as long as the lease can be kept; give it back when asked to stop."""
    keeping = asyncio.create_task(lease.keep())
    try:
        async with controlled(Api(Fenced(transport, lease)), settings) as controlling:
            await either(stopping, keeping, controlling)
            if controlling.done():
                raise StartError(f"the controllers broke: {controlling.exception()!r}; see the log above")
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await lease.release()


class _Seat:
    """The right to run things in the home; a candidate without it only watches the lease."""

    def __init__(self, home: Path, say: Callable[[str], None]) -> None:
        self._home, self._say = home, say
        self._lock: DirectoryLock | None = None
        self._told = ""

    def taken(self) -> bool:
        """Whether it is ours, now or already."""
        if self._lock is None:
            try:
                self._lock = claim_compute(self._home)
            except Locked as error:
                if str(error) != self._told:
                    self._told = str(error)
                    self._say(f"  waiting: {error}")
                return False
        return True

    def leave(self) -> None:
        if self._lock:
            self._lock.release()
            self._lock = None


async def _check_kinds(api: Api, server: str) -> None:
    """Without its CRDs an operator would wait for ever and say nothing."""
    try:
        served = await api.raw(f"/apis/{API_VERSION}")
    except NotFound:
        raise StartError(f"{server} does not serve {API_VERSION}; {INSTALL}") from None
    except ApiError as error:
        raise StartError(error.message) from None
    missing = [kind.plural for kind in KINDS if f'"{kind.plural}"'.encode() not in served]
    if missing:
        raise StartError(f"{server} does not serve {', '.join(missing)} of {API_VERSION}; {INSTALL}")
