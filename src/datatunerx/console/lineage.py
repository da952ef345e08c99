"""From what a checkpoint came, and what came of it, as layers from left to right. Pure."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from datatunerx.console import kinds

Json = dict[str, Any]
MAX_FOREBEARS = 8


class Node(NamedTuple):
    """An object; `kind` is empty for one that is only named."""

    kind: str
    name: str
    what: str
    """A word of the catalogue."""
    digest: str = ""


class Layer(NamedTuple):
    nodes: list[Node]
    here: bool = False
    """Whether it is the one that is looked at."""


def layers(checkpoint: Json, every: Sequence[Json], tune: Json | None) -> list[Layer]:
    """Forebears, what it was made of, its training, itself, and the checkpoints that go on from it.

    `every` are the checkpoints of the namespace; `tune` is its Finetune, if that is still there.
    """
    spec, name = checkpoint["spec"], kinds.name_of(checkpoint)
    made_of = [
        Node("LLM", spec["llm"], "Base model", spec.get("baseDigest", "")),
        Node("Dataset", spec["dataset"], "Dataset", spec.get("dataDigest", "")),
    ]
    if tune and (ref := (tune["spec"].get("hyperparameter") or {}).get("ref")):
        made_of.append(Node("Hyperparameter", ref, "Hyperparameters"))
    job = kinds.owner(tune, kinds.JOB) if tune else ""
    training = Node(kinds.JOB if job else "", job or spec["finetune"], "The training")
    found = [*_forebears(spec.get("parent"), {kinds.name_of(each): each for each in every})]
    found += [Layer(made_of), Layer([training])]
    found.append(Layer([Node("LLMCheckpoint", name, "Checkpoint", spec.get("manifestDigest", ""))], True))
    children = [kinds.name_of(each) for each in every if each["spec"].get("parent") == name]
    return found + (
        [Layer([Node("LLMCheckpoint", child, "Goes on from it") for child in children])] if children else []
    )


def _forebears(parent: str | None, every: dict[str, Json]) -> list[Layer]:
    """The oldest first; one that was deleted is named only."""
    found: list[Layer] = []
    seen: set[str] = set()
    while parent and parent not in seen and len(found) < MAX_FOREBEARS:
        seen.add(parent)
        spec = (every.get(parent) or {}).get("spec") or {}
        kind = "LLMCheckpoint" if spec else ""
        found.insert(0, Layer([Node(kind, parent, "Goes on from", spec.get("manifestDigest", ""))]))
        parent = spec.get("parent")
    return found
