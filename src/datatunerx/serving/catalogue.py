"""What is served: names that clients ask for, each with its adapter, its template and what identifies it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from datatunerx.data import ChatTemplate
from datatunerx.modeling.adapters import Adapter
from datatunerx.runs import ModelState
from datatunerx.serving.errors import ApiError


@dataclass(frozen=True)
class Identity:
    """What an answer came from, besides the settings it was asked with."""

    base: str
    """Digest of the base model's files."""
    adapter: str | None
    """Digest of the adapter's manifest; None is the untouched base."""
    template: str
    """SHA-256 of the template's text."""
    precision: str
    engine: str = "transformers"

    @property
    def fingerprint(self) -> str:
        said = "\n".join(str(value) for value in asdict(self).values())
        return f"fp_{hashlib.sha256(said.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Model:
    """One model that answers."""

    name: str
    adapter: Adapter | None
    template: ChatTemplate
    identity: Identity
    since: int
    """Seconds since 1970."""


def template_digest(template: ChatTemplate) -> str:
    return hashlib.sha256(template.text.encode()).hexdigest()


class Catalogue:
    """The models by name. Replaced as a whole by one thread while others read."""

    def __init__(self) -> None:
        self._now: tuple[dict[str, Model], list[ModelState]] = ({}, [])

    def replace(self, models: Mapping[str, Model], states: Sequence[ModelState]) -> None:
        """Serve these from now on; `states` speaks of every model, also of those that cannot be."""
        self._now = (dict(models), list(states))

    @property
    def models(self) -> list[Model]:
        return list(self._now[0].values())

    @property
    def states(self) -> list[ModelState]:
        return self._now[1]

    def find(self, name: str) -> Model:
        """Raises `ApiError` that names what there is."""
        models, states = self._now
        if name in models:
            return models[name]
        why = next((state for state in states if state.name == name), None)
        if why is not None:
            raise ApiError(
                404,
                f"model {name!r} is not ready: {why.reason}: {why.message}",
                "model_not_ready",
                param="model",
            )
        known = ", ".join(sorted(models)[:50]) or "none"
        raise ApiError(
            404,
            f"model {name[:256]!r} is not served here; served are: {known}",
            "model_not_found",
            param="model",
        )
