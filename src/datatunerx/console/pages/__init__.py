"""The pages, one module per group; each offers its `routes`. A new module is named here."""

from datatunerx.console.pages import actions, experiment, experiments, jobs, login, materials, system
from datatunerx.console.visit import Page

PAGES: list[Page] = [
    *login.routes,
    *experiments.routes,
    *experiment.routes,
    *jobs.routes,
    *materials.routes,
    *system.routes,
    *actions.routes,
]
