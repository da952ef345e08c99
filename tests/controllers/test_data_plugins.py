"""A Dataset with a plugin: checked against the plugin's schema, made by a Run, then inspected."""

import pytest

from datatunerx.resources import Dataset, Run
from datatunerx.resources.material import DataPlugin
from datatunerx.runs import PluginFacts

SOURCE = {"subsets": [{"splits": {"train": ["file:///data/pages"], "test": ["file:///data/more"]}}]}


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.fixture(autouse=True)
def installed(platform):
    """What is there to be found."""
    platform.backend.behaviour.plugins["maker"] = PluginFacts(
        version="1.0", package="p", parameter_schema=SCHEMA
    )


def plugin(**spec):
    return DataPlugin.parse({"metadata": {"name": "maker"}, "spec": {"entryPoint": "maker", **spec}})


def dataset(**parameters):
    use = {"ref": "maker", "parameters": parameters}
    return Dataset.parse({"metadata": {"name": "d"}, "spec": {**SOURCE, "plugin": use}})


async def condition(platform, model, name, reason):
    async def look():
        found = await platform.api.get(model, name)
        said = found.status.condition("Ready")
        return found if said and said.reason == reason else None

    found = await platform.until(look)
    return found, found.status.condition("Ready").message


async def test_a_dataset_waits_for_its_plugin_and_is_made_before_it_is_inspected(platform):
    await platform.apply(dataset(n=1))
    _, said = await condition(platform, Dataset, "d", "DataPluginNotFound")
    assert said == "spec.plugin.ref: there is no DataPlugin 'maker' in namespace default"
    await platform.apply(plugin(parameters={"n": 7}))
    found, _ = await condition(platform, Dataset, "d", "Inspected")
    making, looking = platform.backend.of("make")[0].plan, platform.backend.of("inspect")[-1].plan
    assert making.make_data.data.splits["train"] == ["file:///data/pages"]
    assert making.make_data.parameters == {"n": 1} and making.make_data.version == "1.0"
    assert looking.inspect_data.data.splits == found.status.made.splits
    # What it made is gone with its Run, so it is made again
    await platform.api.delete(Run, found.status.made.run)
    await platform.until(lambda: made_twice(platform))


async def made_twice(platform) -> bool:
    return len(platform.backend.of("make")) == 2


async def test_parameters_are_held_against_the_plugins_schema_before_anything_runs(platform):
    await platform.apply(plugin(), dataset(n="x"))
    _, said = await condition(platform, Dataset, "d", "ParametersInvalid")
    assert said == 'spec.plugin.parameters.n: "x" is not of type "integer" (plugin maker)'
    assert platform.backend.of("make") == []


async def test_a_plugins_own_parameters_must_fit_its_schema_too(platform):
    await platform.apply(plugin(parameters={"n": "x"}))
    found, said = await condition(platform, DataPlugin, "maker", "ParametersInvalid")
    assert said == 'spec.parameters.n: "x" is not of type "integer"'
    assert found.status.version == "1.0" and found.status.parameter_schema["required"] == ["n"]


async def test_another_version_than_the_one_asked_for_is_not_used(platform):
    await platform.apply(plugin(version="2.0"), dataset(n=1))
    _, said = await condition(platform, DataPlugin, "maker", "OtherVersion")
    assert "version 1.0 is installed and spec.version asks for 2.0" in said

    async def told():
        said = (await platform.api.get(Dataset, "d")).status.condition("Ready")
        return said.reason == "DataPluginNotReady" and said.message.startswith(
            "DataPlugin maker: OtherVersion"
        )

    await platform.until(told)
    assert platform.backend.of("make") == []


async def test_a_spec_that_names_nothing_is_told_without_running_anything(platform):
    await platform.apply(plugin(entryPoint=None))
    _, said = await condition(platform, DataPlugin, "maker", "EntryPointMissing")
    assert "spec.entryPoint" in said and platform.backend.submissions == []
