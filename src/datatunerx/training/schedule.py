"""When a job's steps are, what they see, and how fast they learn. Pure functions of the step's number.

Nothing here is remembered between steps, so a resumed job sees exactly what the uninterrupted one would have.
"""

import math
from dataclasses import dataclass

import torch

from datatunerx.resources.enums import Scheduler
from datatunerx.resources.training import TrainingParameters


@dataclass(frozen=True)
class Course:
    """A job's steps over its rows."""

    rows: int
    rows_per_step: int
    steps: int
    steps_per_epoch: int
    seed: int

    def rows_of(self, step: int) -> list[int]:
        """Row numbers, from 0, of one optimizer step (from 0), in order. Each epoch has its own order."""
        epoch, window = divmod(step, self.steps_per_epoch)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(self.rows, generator=generator)
        found: list[int] = order[window * self.rows_per_step : (window + 1) * self.rows_per_step].tolist()
        return found

    def epoch_after(self, steps: int) -> float:
        return steps / self.steps_per_epoch


def plan_course(parameters: TrainingParameters, rows: int) -> Course:
    """The course over `rows` rows; the last step of an epoch takes what is left."""
    if rows == 0:
        raise ValueError("the train split has no row to learn from")
    per_step = parameters.batch_size * parameters.gradient_accumulation
    per_epoch = math.ceil(rows / per_step)
    steps = parameters.max_steps or max(1, math.ceil(parameters.epochs * per_epoch))
    return Course(rows, per_step, steps, per_epoch, parameters.seed)


def learning_rate(parameters: TrainingParameters, step: int, steps: int) -> float:
    """The rate of one step (from 0): rises to the peak in the warm-up, then follows the scheduler to 0."""
    warmup = math.ceil(parameters.warmup_ratio * steps)
    if step < warmup:
        return parameters.learning_rate * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    if parameters.scheduler is Scheduler.COSINE:
        return parameters.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    if parameters.scheduler is Scheduler.LINEAR:
        return parameters.learning_rate * (1 - done)
    return parameters.learning_rate


def save_interval(parameters: TrainingParameters, steps: int) -> int:
    """Steps between checkpoints; 0 in the parameters means ten in the course of the job."""
    return parameters.save_every or max(1, math.ceil(steps / 10))


def is_due(step: int, every: int, steps: int) -> bool:
    """Whether a thing done every so many steps is due after `step` steps; at the end it always is."""
    return step == steps or (every > 0 and step % every == 0)
