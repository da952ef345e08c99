"""The seam between the planes: plan, event and result documents, and the functions that compile plans."""

from datatunerx.runs.commands import Command, Verb
from datatunerx.runs.events import Event, EventType, JobOutcome
from datatunerx.runs.plan import (
    DataFiles,
    InspectDataPlan,
    InspectModelPlan,
    MeasurePlan,
    ModelFiles,
    RunPlan,
    ScorePlan,
    TuneJob,
    TunePlan,
)
from datatunerx.runs.result import DataFacts, ModelFacts, RunResult, ScoreOutcome

__all__ = [
    "Command",
    "DataFacts",
    "DataFiles",
    "Event",
    "EventType",
    "InspectDataPlan",
    "InspectModelPlan",
    "JobOutcome",
    "MeasurePlan",
    "ModelFacts",
    "ModelFiles",
    "RunPlan",
    "RunResult",
    "ScoreOutcome",
    "ScorePlan",
    "TuneJob",
    "TunePlan",
    "Verb",
]
