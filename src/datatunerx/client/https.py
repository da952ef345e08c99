"""The API over HTTPS: a kube-apiserver, or our own server from another process."""

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Self

import aiohttp
from yarl import URL

from datatunerx.client.errors import Unauthorized, Unreachable, from_answer
from datatunerx.client.exec_plugin import ExecPluginError
from datatunerx.client.kubeconfig import Access
from datatunerx.client.transport import AGENT, Response, lines

CONNECT_SECONDS = 10
REQUEST_SECONDS = 60


class Https:
    """Use as `async with Https(access) as transport`; connections are kept and shared."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        secure = self._access.server.startswith("https://")
        connector = aiohttp.TCPConnector(ssl=tls_context(self._access) if secure else False, limit=100)
        self._session = aiohttp.ClientSession(
            connector=connector, headers={"User-Agent": AGENT}, read_bufsize=1 << 20, trust_env=False
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS, connect=CONNECT_SECONDS)
        try:
            async with self._open().request(
                method,
                self._url(path, query),
                data=BytesIO(body) if body else body,  # whole bytes would hold up the loop
                headers=await self._headers(headers),
                timeout=timeout,
                server_hostname=self._access.tls_name,
            ) as answer:
                return Response(
                    answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read()
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error

    async def stream(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> AsyncIterator[bytes]:
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS)
        try:
            async with self._open().request(
                "GET" if body is None else "POST",
                self._url(path, query),
                data=body,
                headers=await self._headers(headers),
                timeout=timeout,
                server_hostname=self._access.tls_name,
            ) as answer:
                if answer.status != 200:
                    raise from_answer(answer.status, await answer.read())
                async for line in lines(answer.content.iter_any(), path):
                    yield line
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error

    def _open(self) -> aiohttp.ClientSession:
        assert self._session, "use the transport inside `async with`"
        return self._session

    def _url(self, path: str, query: Mapping[str, str] | None) -> URL:
        return URL(self._access.server + path).with_query(dict(query or {}))

    async def _headers(self, headers: Mapping[str, str] | None) -> dict[str, str]:
        access = self._access
        try:
            token = await asyncio.to_thread(access.bearer) if access.plugin else access.bearer()
        except ExecPluginError as error:
            raise Unauthorized(0, "NoToken", str(error)) from None
        return dict(headers or {}) | ({"Authorization": f"Bearer {token}"} if token else {})

    def _unreachable(self, error: Exception) -> Unreachable:
        server, why = self._access.server, str(error) or type(error).__name__
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            fix = "the certificate is not signed by the CA in the kubeconfig; is this another server's file?"
        elif isinstance(error, TimeoutError):
            fix = "it did not answer in time; is it overloaded or behind a firewall?"
        else:
            fix = "start it with `dtx up`, or name another server with --kubeconfig"
        return Unreachable(0, "Unreachable", f"{server} cannot be reached ({why}); {fix}")


def tls_context(access: Access) -> ssl.SSLContext:
    """Trusts the access's own CA only (the system's if it names none) and shows its client certificate."""
    context = ssl.create_default_context(cadata=access.ca.decode() if access.ca else None)
    if not access.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if access.client_certificate and access.client_key:
        # ssl reads certificates from files only; these are 0600 and gone before the context is used.
        with tempfile.TemporaryDirectory() as folder:
            certificate, key = Path(folder, "certificate"), Path(folder, "key")
            certificate.write_bytes(access.client_certificate)
            key.touch(mode=0o600)
            key.write_bytes(access.client_key)
            context.load_cert_chain(certificate, key)
    return context
