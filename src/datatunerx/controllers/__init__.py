"""A queue of names and one small level-triggered reconciler per kind."""

from datatunerx.controllers.context import Settings
from datatunerx.controllers.start import run_controllers

__all__ = ["Settings", "run_controllers"]
