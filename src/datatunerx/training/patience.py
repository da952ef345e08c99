"""When more training makes a job no better: which evaluation is the best, and how long one waits for another.

All of it lies in the lane, and so in its checkpoints: a job that is taken up again waits on as it did.
"""

import math

from datatunerx.runs.events import STOPPED_EARLY
from datatunerx.training.lanes import Lane


def compare(lane: Lane) -> None:
    """Hold the lane's evaluation, just made, against the best before it.

    Where scores are looked at, of two equal ones that with the lower loss is the better checkpoint, but it
    does not prolong the waiting. An evaluation that found no value counts neither way.
    """
    stop = lane.job.early_stop
    value, best = (lane.score, lane.best_score) if lane.stops_by_score else (lane.eval_loss, lane.best_loss)
    if value is None:
        return
    gain = math.inf if best is None else value - best if lane.stops_by_score else best - value
    lane.waited = 0 if gain > (stop.min_delta if stop else 0.0) else lane.waited + 1
    lower = lane.eval_loss is not None and (lane.best_loss is None or lane.eval_loss < lane.best_loss)
    if gain > 0 or (gain == 0 and lower):
        lane.best_step, lane.best_loss, lane.best_score = lane.step, lane.eval_loss, lane.score


def is_spent(lane: Lane) -> bool:
    """Whether the job has waited long enough for a better value."""
    return lane.job.early_stop is not None and lane.waited >= lane.job.early_stop.patience


def how_it_ended(lane: Lane) -> tuple[str, str]:
    """Reason and message of a job that ends well; both empty where nothing but its last step ended it."""
    stop = lane.job.early_stop
    if stop is None or lane.best_step is None:
        return "", ""
    what, value = "loss on the validate split", lane.best_loss
    if stop.score:
        what, value = f"{stop.score.metrics[0]} of answers to validate rows", lane.best_score
    if value is None:  # the best was judged by the other measure, before the user changed it
        return "", ""
    best = f"best at step {lane.best_step}: {value:.4g}"
    if lane.step < lane.course.steps:
        least = f" by more than {stop.min_delta:g}" if stop.min_delta else ""
        return STOPPED_EARLY, (
            f"stopped early at step {lane.step} of {lane.course.steps}: {lane.waited} evaluations in a row "
            f"did not better the {what}{least}; {best}"
        )
    return "", f"{lane.step} steps; {what} {best}"
