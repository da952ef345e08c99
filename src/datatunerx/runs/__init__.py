"""The seam between the planes: plan, event and result documents, and the functions that compile plans."""

from datatunerx.runs.commands import Command, Verb
from datatunerx.runs.events import Event, EventType, JobOutcome, ModelState, ServingState
from datatunerx.runs.plan import (
    DataFiles,
    EarlyStop,
    InspectDataPlan,
    InspectModelPlan,
    InspectPluginPlan,
    MakeDataPlan,
    MeasurePlan,
    ModelFiles,
    PluginCall,
    RunPlan,
    ScorePlan,
    ServedModel,
    ServedModels,
    ServePlan,
    TuneJob,
    TunePlan,
)
from datatunerx.runs.result import DataFacts, ModelFacts, PluginFacts, RunResult, ScoreOutcome

__all__ = [
    "Command",
    "DataFacts",
    "DataFiles",
    "EarlyStop",
    "Event",
    "EventType",
    "InspectDataPlan",
    "InspectModelPlan",
    "InspectPluginPlan",
    "MakeDataPlan",
    "JobOutcome",
    "MeasurePlan",
    "ModelFacts",
    "ModelFiles",
    "ModelState",
    "PluginCall",
    "PluginFacts",
    "RunPlan",
    "RunResult",
    "ScoreOutcome",
    "ScorePlan",
    "ServePlan",
    "ServedModel",
    "ServedModels",
    "ServingState",
    "TuneJob",
    "TunePlan",
    "Verb",
]
