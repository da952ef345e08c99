"""Where a run runs: submit, phase, stop."""

from datatunerx.compute.backend import Backend, RunState, Submission
from datatunerx.compute.local import LocalBackend

__all__ = ["Backend", "LocalBackend", "RunState", "Submission"]
