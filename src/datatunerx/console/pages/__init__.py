"""The pages, one module per group; each offers its `routes`. A new module is named here."""

from datatunerx.console.pages import (
    actions,
    charts,
    compare,
    compare_data,
    datasets,
    devices,
    experiment,
    experiments,
    exports,
    jobs,
    live,
    login,
    logs,
    materials,
    services,
    system,
    uploads,
    wizard,
)
from datatunerx.console.visit import Page

PAGES: list[Page] = [
    *login.routes,
    *experiments.routes,
    *experiment.routes,
    *jobs.routes,
    *charts.routes,
    *live.routes,
    *logs.routes,
    *uploads.routes,
    *datasets.routes,
    *devices.routes,
    *materials.routes,
    *compare.routes,
    *compare_data.routes,
    *services.routes,
    *exports.routes,
    *system.routes,
    *actions.routes,
    *wizard.routes,
]
