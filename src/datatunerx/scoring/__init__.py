"""Answers and references in, numbers with intervals out."""

from datatunerx.scoring.errors import PredictionsError, ScoringError, UnknownMetric, UnknownOption
from datatunerx.scoring.metrics import METRICS, Metric
from datatunerx.scoring.predictions import Prediction, read_predictions, write_predictions
from datatunerx.scoring.score import Comparison, MetricValue, compare, score

__all__ = [
    "METRICS", "Comparison", "Metric", "MetricValue", "Prediction", "PredictionsError", "ScoringError",
    "UnknownMetric", "UnknownOption", "compare", "read_predictions", "score", "write_predictions",
]  # fmt: skip
