"""Answers and references in, numbers with intervals out."""

from datatunerx.scoring.errors import PredictionsError, ScoringError, UnknownMetric, UnknownOption
from datatunerx.scoring.judge import Verdict, judge
from datatunerx.scoring.metrics import METRICS, Metric
from datatunerx.scoring.plugin_result import PluginScores, read_result
from datatunerx.scoring.predictions import Prediction, read_predictions, write_predictions
from datatunerx.scoring.score import Comparison, Marks, MetricValue, Scored, compare, measure, score

__all__ = [
    "METRICS", "Comparison", "Marks", "Metric", "MetricValue", "PluginScores", "Prediction",
    "PredictionsError", "Scored", "ScoringError", "UnknownMetric", "UnknownOption", "Verdict", "compare",
    "judge", "measure", "read_predictions", "read_result", "score", "write_predictions",
]  # fmt: skip
