"""Chat templates as data: the built-in ones, and which template belongs to a model.

`templates/*.yaml` holds one each: `template` (Jinja), `endOfTurn` (the token that ends an assistant turn,
or eos_token), `tokens` (what a tokenizer must have for it), `models` (model types, as in config.json, that
it was made for), `byTokens` (whether its tokens alone tell it) and `aliases`.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import Field

from datatunerx.data.errors import TemplateError
from datatunerx.resources.wire import Wire

LAST_RESORT = "alpaca"
"""Plain words and eos_token, which every tokenizer has."""


class FoundTemplate(NamedTuple):
    text: str
    source: str
    """Where it comes from, in words."""


class BuiltIn(Wire):
    template: str
    end_of_turn: str
    tokens: list[str] = Field(default=[])
    models: list[str] = Field(default=[])
    by_tokens: bool = False
    aliases: list[str] = Field(default=[])


@cache
def built_ins() -> dict[str, BuiltIn]:
    """All built-in templates by name."""
    folder = resources.files("datatunerx.data") / "templates"
    return {
        entry.name.removesuffix(".yaml"): BuiltIn.model_validate(yaml.safe_load(entry.read_text("utf-8")))
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".yaml")
    }


def built_in_names() -> list[str]:
    """Names that may stand wherever a template's text may; their aliases may, too."""
    return list(built_ins())


def find_template(model_dir: Path, override: str | None, added: Mapping[str, int]) -> FoundTemplate:
    """The template to use: the user's, else the model's own, else the built-in one made for such models.

    `added` are the tokenizer's added tokens.
    """
    if override is not None:
        return _named(override)
    own = _own(model_dir)
    if own is not None:
        return own
    eos = special_tokens(model_dir).get("eos_token", "")
    found = _built_in(_fitting(_json(model_dir / "config.json").get("model_type"), added, eos))
    return FoundTemplate(found.text, f"{found.source}; the model has none")


def special_tokens(model_dir: Path) -> dict[str, str]:
    """bos_token, eos_token and the like as text, however the tokenizer's config writes them."""
    tokens: dict[str, str] = {}
    for name, value in _json(model_dir / "tokenizer_config.json").items():
        content = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(content, str):
            tokens[name] = content
    return tokens


def _fitting(model_type: Any, added: Mapping[str, int], eos: str) -> str:
    """The name of the built-in template for a model of this type with these tokens; of several, the one that
    ends turns as the model ends texts, or that needs the most of the tokens."""
    able = {name: one for name, one in built_ins().items() if all(token in added for token in one.tokens)}
    made_for = {name: one for name, one in able.items() if model_type in one.models}
    told = made_for or {name: one for name, one in able.items() if one.by_tokens}
    return max(
        told, key=lambda name: (told[name].end_of_turn == eos, len(told[name].tokens)), default=LAST_RESORT
    )


def _named(override: str) -> FoundTemplate:
    if "{" in override:
        return FoundTemplate(override, "given")
    aliases = {alias: name for name, one in built_ins().items() for alias in one.aliases}
    name = aliases.get(override, override)
    if name not in built_ins():
        known = ", ".join(built_in_names())
        raise TemplateError(
            f"no built-in template {override!r}", "chat template", fix=f"use Jinja or one of {known}"
        )
    return _built_in(name)


def _built_in(name: str) -> FoundTemplate:
    return FoundTemplate(built_ins()[name].template, f"built-in {name}")


def _own(model_dir: Path) -> FoundTemplate | None:
    path = model_dir / "chat_template.jinja"
    if path.is_file():
        return FoundTemplate(path.read_text(encoding="utf-8"), path.name)
    template = _json(model_dir / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
        if template is None:
            names = ", ".join(map(str, named)) or "none"
            fix = "write the one to use into the LLM's template"
            raise TemplateError(
                f"no template is named default (found {names})", "tokenizer_config.json", fix=fix
            )
    return FoundTemplate(template, "tokenizer_config.json") if isinstance(template, str) else None


def _json(path: Path) -> dict[str, Any]:
    """The file's object; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TemplateError(f"is not JSON: {error}", str(path), fix="write the model again") from error
    return document if isinstance(document, dict) else {}
