"""Whether the parameter groups about to be sent can be trained at all, told before anything starts."""

from collections.abc import Sequence

from pydantic import ValidationError

from datatunerx.cli.documents import Json
from datatunerx.resources.material import Hyperparameter
from datatunerx.resources.training import HyperparameterRef
from datatunerx.runs.compile import Unresolved, needs_gpu, parameters, unsupported


def untrainable(objects: Sequence[Json], gpus: int | None) -> list[str]:
    """One line per reason, with the groups it concerns; `gpus` None is a machine not known here."""
    found = [Hyperparameter.parse(body) for body in objects if body["kind"] == "Hyperparameter"]
    groups = {group.metadata.name: group for group in found}
    told: dict[str, list[str]] = {}
    for name in groups:
        try:
            wanted = parameters(HyperparameterRef(ref=name), groups)
        except (Unresolved, ValidationError):
            continue  # extends one that is not among these; the controllers see them all
        if gpus == 0 and (what := needs_gpu(wanted)):
            told.setdefault(f"{what} needs a GPU, and this machine has none; what works: lora", []).append(
                name
            )
        if why := unsupported(wanted):
            told.setdefault(why, []).append(name)
    return [f"Hyperparameter/{', '.join(names)}: {why}" for why, names in told.items()]
