"""An object of a later version, which our models refuse, says so itself."""

import asyncio

from datatunerx.client import Api, InProcess
from datatunerx.client.api import Plural
from datatunerx.controllers import run_controllers
from datatunerx.resources import Hyperparameter
from datatunerx.resources.crds import crd_manifests
from datatunerx.server.app import create_app
from datatunerx.server.tokens import Tokens

LLMS = Plural("datatunerx.io", "v1beta1", "llms")


async def test_an_object_of_a_later_version_says_that_it_is_not_understood(platform):
    await platform.kill_controllers()
    await platform.app.stop()
    crds = crd_manifests()
    [newer] = [crd for crd in crds if crd["spec"]["names"]["plural"] == "llms"]
    spec = newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["mirror"] = {"type": "string"}
    app = create_app(platform.store, crds, tokens=Tokens({}))
    await app.start()
    api, stop = Api(InProcess(app)), asyncio.Event()
    controlling = asyncio.create_task(run_controllers(api, platform.backend, platform.settings, stop=stop))
    llm = {
        "apiVersion": "datatunerx.io/v1beta1", "kind": "LLM", "metadata": {"name": "new"},
        "spec": {"source": "hf://a/b", "mirror": "https://somewhere"},
    }  # fmt: skip
    await api.create_raw(LLMS, llm)

    async def told():
        conditions = (await api.get(LLMS, "new")).get("status", {}).get("conditions", [])
        return [c for c in conditions if c["type"] == "Ready"]

    [ready] = await platform.until(told)
    assert (ready["status"], ready["reason"]) == ("False", "NotUnderstood")
    assert "spec.mirror: Extra inputs are not permitted" in ready["message"]
    [event] = await api.events("LLM", "new")
    assert event["type"] == "Warning" and "spec.mirror" in event["message"]

    version = (await api.get(LLMS, "new"))["metadata"]["resourceVersion"]
    await api.create(Hyperparameter.parse({"metadata": {"name": "h"}, "spec": {}}))
    await platform.until(lambda: ready_group(api))
    assert (await api.get(LLMS, "new"))["metadata"]["resourceVersion"] == version, "it is said once"
    await api.patch(LLMS, "new", {"spec": {"mirror": None}})
    await platform.until(lambda: understood(api))
    stop.set()
    await controlling
    await app.stop()


async def ready_group(api):
    return (await api.get(Hyperparameter, "h")).status.is_true("Ready")


async def understood(api):
    conditions = (await api.get(LLMS, "new"))["status"]["conditions"]
    return all(c["reason"] != "NotUnderstood" for c in conditions)
