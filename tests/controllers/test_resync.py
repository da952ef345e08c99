"""Nothing depends on having been told."""

from datatunerx.resources import Hyperparameter


async def test_what_nobody_was_told_of_is_looked_at_all_the_same(platform, monkeypatch):
    monkeypatch.setattr("datatunerx.controllers.start.wakes", lambda world, old, new: ())
    await platform.api.create(Hyperparameter.parse({"metadata": {"name": "h"}, "spec": {}}))

    async def ready():
        return (await platform.api.get(Hyperparameter, "h")).status.is_true("Ready")

    await platform.until(ready)
