"""A thousand experiments are listed, and those of one compared, within a second (R34)."""

import asyncio
import time

import pytest

from datatunerx.client.api import Plural

pytestmark = pytest.mark.slow
EXPERIMENTS = Plural("datatunerx.io", "v1beta1", "finetuneexperiments")
COUNT, TIMES = 1000, 20


async def test_a_thousand_experiments_are_listed_within_a_second(filled):
    found = await filled.api.get(EXPERIMENTS, "support-tickets")

    async def make(n):
        name = f"many-{n:04}"
        body = {key: found[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": name}}
        await filled.api.create_raw(EXPERIMENTS, body)
        await filled.api.patch_status(EXPERIMENTS, name, {"status": found["status"]})

    for start in range(0, COUNT, 50):
        await asyncio.gather(*(make(n) for n in range(start, start + 50)))
    took = []
    for _ in range(TIMES):
        began = time.perf_counter()
        page = await filled.get("experiments?sort=-score&q=many")
        took.append(time.perf_counter() - began)
    assert f"1 to 50 of {COUNT}" in page
    took.sort()
    print(f"p50 {took[TIMES // 2]:.3f} s, p95 {took[-2]:.3f} s")
    assert took[-2] < 1
