"""Where a run runs: submit, phase, stop."""

from datatunerx.compute.backend import Backend, RunState, Submission

__all__ = ["Backend", "RunState", "Submission"]
