"""The pages, one module per group; each offers its `routes`. A new module is named here."""

from datatunerx.console.pages import experiments, login
from datatunerx.console.visit import Page

PAGES: list[Page] = [
    *login.routes,
    *experiments.routes,
]
