"""A thousand informers that hear nothing cost almost nothing."""

import asyncio
import ssl
import time

import aiohttp
import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WATCHERS = 1000
PATH = "/apis/datatunerx.io/v1beta1/namespaces/default/finetunes?watch=1&resourceVersion=1"


async def open_watches(server, count, hold):
    """Open them, run `hold`, and return what it returned and how many heard of the change it made."""
    context = ssl.create_default_context(cafile=str(server.home / "tls" / "ca.crt"))
    headers = {"Authorization": f"Bearer {server.token}"}
    files = psutil.Process().num_fds()
    connector = aiohttp.TCPConnector(limit=0, ssl=context)
    async with aiohttp.ClientSession(server.url, headers=headers, connector=connector) as session:
        some = asyncio.Semaphore(20)  # TLS handshakes are what costs

        async def open_one():
            async with some:
                return await session.get(PATH)

        watches = await asyncio.gather(*(open_one() for _ in range(count)))
        found = await hold()
        unrelated = {"metadata": {"name": "unrelated"}}
        assert (await session.post("/api/v1/namespaces/default/configmaps", json=unrelated)).status == 201
        spec = {"llm": "l", "dataset": "d", "hyperparameter": {"ref": "h"}}
        body = {
            "apiVersion": "datatunerx.io/v1beta1",
            "kind": "Finetune",
            "metadata": {"name": "f"},
            "spec": spec,
        }
        assert (await session.post(PATH.split("?")[0], json=body)).status == 201
        lines = await asyncio.wait_for(asyncio.gather(*(w.content.readline() for w in watches)), 120)
        for watch in watches:
            watch.close()
    async with asyncio.timeout(60):  # TLS says goodbye after `close`; what the loop leaves open is a warning
        while psutil.Process().num_fds() > files:
            await asyncio.sleep(0.05)
    return found, sum(b'"ADDED"' in line for line in lines)


async def test_a_thousand_idle_watchers_cost_almost_nothing(server):
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss

    async def idle():
        await asyncio.sleep(1)
        memory, cpu, start = process.memory_info().rss, sum(process.cpu_times()[:2]), time.monotonic()
        await asyncio.sleep(5)
        return memory, (sum(process.cpu_times()[:2]) - cpu) / (time.monotonic() - start)

    (memory, cpu), heard = await open_watches(server, WATCHERS, idle)

    each = (memory - before) / WATCHERS
    print(f"{WATCHERS} idle watchers: {each / 1024:.0f} KiB each, {cpu:.2%} of one core; {heard} heard")
    assert heard == WATCHERS
    assert each < 80 * 1024
    assert cpu < 0.1  # 0.2 % on a core with nothing else to do
