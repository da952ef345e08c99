"""Chat templates as text: the Jinja that transformers gives them, sandboxed, without transformers.

Settings and helpers must stay the same as in transformers' `apply_chat_template`, or a model would be
trained on other prompts than everyone else gives it; a test compares the two.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.exceptions
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from datatunerx.data.errors import TemplateError


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks assistant text for transformers; here it only lets its body through."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node | list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(jinja2.utils.Namespace):
    """A namespace that keeps no underscored names, through which a template could reach Python."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a template may not set {name!r}")
        super().__setitem__(name, value)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


@lru_cache(maxsize=64)
def compiled(text: str) -> jinja2.Template:
    """The template, ready to render. Raises TemplateError with the line if it is not valid Jinja."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _raise, "strftime_now": _strftime_now, "namespace": _Namespace}
    try:
        return environment.from_string(text)
    except jinja2.TemplateSyntaxError as error:
        fix = "correct the template or name a built-in one"
        raise TemplateError(
            f"not valid Jinja: {error.message}", "chat template", error.lineno, fix=fix
        ) from error


def render(
    text: str,
    messages: Sequence[Mapping[str, Any]],
    tokens: Mapping[str, str],
    *,
    add_generation_prompt: bool = False,
) -> str:
    """The messages as the template writes them. `tokens` are bos_token, eos_token, ... as text."""
    template = compiled(text)
    try:
        return template.render(
            messages=messages,
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **tokens,
        )
    except jinja2.TemplateError as error:
        said = error.message or type(error).__name__
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        said = str(error)
    roles = ", ".join(str(message.get("role")) for message in messages)
    fix = "order the turns as the template wants them, or name another template"
    raise TemplateError(f"the template refuses the turns {roles}: {said}", "chat template", fix=fix)
