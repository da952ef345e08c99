"""The kinds as users write them: pydantic models with limits, defaults and units; the CRDs come from them."""

from datatunerx.resources.experiment import FinetuneExperiment
from datatunerx.resources.finetune import Finetune, FinetuneJob
from datatunerx.resources.material import LLM, DataPlugin, Dataset, Hyperparameter
from datatunerx.resources.outcome import InferenceService, LLMCheckpoint, Run, Scoring, ScoringPlugin
from datatunerx.resources.training import TrainingParameters
from datatunerx.resources.wire import API_VERSION, GROUP, VERSION, Condition, ObjectMeta, Resource, Wire

__all__ = [
    "API_VERSION", "GROUP", "LLM", "VERSION", "Condition", "DataPlugin", "Dataset", "Finetune",
    "FinetuneExperiment", "FinetuneJob", "Hyperparameter", "InferenceService", "LLMCheckpoint", "ObjectMeta",
    "Resource", "Run", "Scoring", "ScoringPlugin", "TrainingParameters", "Wire",
]  # fmt: skip
