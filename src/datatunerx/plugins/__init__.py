"""What others add to datatunerx, by pluggy hooks and entry points; what we ship comes the same way.

offer = find(DATA_PLUGINS, "documents")      # or "module:function"; imports plugin code: in a child only
problem = parameter_problem(schema, given)   # None, or which parameter is wrong and what it must be
"""

from datatunerx.plugins.hooks import DATA_PLUGINS, SCORERS, Call, DataPlugin, ScoreCall, Scorer, hookimpl
from datatunerx.plugins.manager import Offer, PluginError, find, offered
from datatunerx.plugins.parameters import parameter_problem, schema_problem

__all__ = [
    "DATA_PLUGINS",
    "SCORERS",
    "Call",
    "DataPlugin",
    "Offer",
    "PluginError",
    "ScoreCall",
    "Scorer",
    "find",
    "hookimpl",
    "offered",
    "parameter_problem",
    "schema_problem",
]
