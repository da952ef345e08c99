"""Which action suits which kind, and who may: so that no button is dead. Pure."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from datatunerx.console import kinds

Json = dict[str, Any]
SERVICE = "InferenceService"
SUITS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "stop": ((kinds.EXPERIMENT, kinds.JOB, SERVICE), "patch"),
    "keep": ((kinds.EXPERIMENT, kinds.JOB), "patch"),
    "resume": ((kinds.EXPERIMENT, kinds.JOB, SERVICE), "patch"),
    "retry": ((kinds.EXPERIMENT, kinds.JOB, "LLM", "Dataset"), "patch"),
    "delete": (tuple(kinds.PLURALS), "delete"),
}
"""Action -> kinds, and the verb that the visitor needs on them."""
COMPARED = (kinds.EXPERIMENT, kinds.JOB, "LLM", "LLMCheckpoint", SERVICE)


def offered(may: Callable[[str, str], bool], targets: Iterable[str]) -> list[str]:
    """Actions that suit some of the targets, KIND/NAME each, and that the visitor may do."""
    found = {kinds.BY_SHORT.get(target.split("/")[0], "") for target in targets}
    return [
        do
        for do, (suited, verb) in SUITS.items()
        if any(kind in suited and may(verb, kinds.PLURALS[kind].plural) for kind in found)
    ]


def bases(targets: Iterable[str]) -> list[str]:
    """The checkpoints among the targets: one can be the base of what is trained next."""
    return [name for kind, _, name in (each.partition("/") for each in targets) if kind == "ckpt"]


def compared(targets: Iterable[str]) -> bool:
    """Whether some of the targets can stand beside each other on the compare page."""
    return any(kinds.BY_SHORT.get(target.split("/")[0], "") in COMPARED for target in targets)
