"""Templates, with everything escaped, and the filters they use."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from datatunerx.console import charts, figures, offers, states


@cache
def environment() -> Environment:
    """One for the process; a missing name is an error and not an empty place."""
    made = Environment(
        loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        "number": figures.number, "score": figures.score, "signed": figures.signed, "bytes": figures.size,
        "duration": figures.duration, "age": figures.age, "yaml": figures.as_yaml, "state": states.state,
        "phase": states.phase, "said": states.said,
    }  # fmt: skip
    made.globals |= {"chart_axes": charts.AXES, "chart_titles": charts.TITLES}
    made.globals |= {
        "asset": asset,
        "offered": offers.offered,
        "compared": offers.compared,
        "bases": offers.bases,
    }
    return made


def template(name: str) -> Template:
    return environment().get_template(name)


@cache
def asset(name: str) -> str:
    """The URL of a file of `static/`, with its digest: it may be kept for ever."""
    data = files(__package__).joinpath("static", *name.split("/")).read_bytes()
    return f"/console/static/{name}?{hashlib.sha256(data).hexdigest()[:12]}"


def fragment(name: str, macro: str, *arguments: Any, **values: Any) -> str:
    """One macro of a template, as markup: what a live page is sent."""
    return str(getattr(template(name).module, macro)(*arguments, **values))
