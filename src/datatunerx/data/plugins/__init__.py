"""The data plugins that come with datatunerx, found through an entry point like any other."""

from collections.abc import Mapping

from datatunerx.plugins import DataPlugin, hookimpl


@hookimpl
def data_plugins() -> Mapping[str, DataPlugin]:
    return {}
