"""An Ollama Modelfile: the chat template in Go's template language, and what ends an answer.

No Jinja is translated. The template is asked what it writes around each turn, the pieces are put together the
way Ollama will, and if that is not what the template writes, there is no Modelfile.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datatunerx.data.errors import TemplateError
from datatunerx.data.render import render
from datatunerx.data.templates import ChatTemplate

Chat = Sequence[Mapping[str, str]]
_MARKS = ["Zqxa", "Zqxb", "Zqxc", "Zqxd", "Zqxe", "Zqxf"]
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Pieces:
    """What a template writes around the turns of a chat."""

    head: str
    """Before a chat that does not begin with a system turn."""
    around: Mapping[str, tuple[str, str]]
    """Role -> what stands before and after its words."""
    ask: str
    """What the model is to go on from."""

    def put_together(self, chat: Chat) -> str:
        """The prompt as Ollama will write it."""
        first = "" if chat[0]["role"] == "system" else self.head
        turns = (
            self.around[turn["role"]][0] + turn["content"] + self.around[turn["role"]][1] for turn in chat
        )
        return first + "".join(turns) + self.ask


def modelfile(template: ChatTemplate, gguf: str, asked: Sequence[Chat] = ()) -> str:
    """The Modelfile of a GGUF file. `asked` are chats that it must write as the template does.

    Raises TemplateError if the template cannot be written in Ollama's way.
    """
    pieces = pieces_of(template)
    plain = [chat for chat in asked if all(set(turn) == {"role", "content"} for turn in chat)]
    for chat in [*_probes(), *plain]:
        if any(turn["role"] not in ROLES for turn in chat):
            continue
        if pieces.put_together(chat) != _written(template, chat, True):
            raise _unwritable(template, "it writes a chat otherwise than turn by turn")
    text = _go(pieces)
    if '"""' in text:
        raise _unwritable(template, 'it writes """')
    stops = sorted(template.ends | {token for name, token in template.tokens.items() if name == "eos_token"})
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{text}"""', *(f"PARAMETER stop {json.dumps(s)}" for s in stops)]
    return "\n".join(lines) + "\n"


def pieces_of(template: ChatTemplate) -> Pieces:
    """Ask the template. Raises TemplateError if its turns cannot be told apart."""
    roles = ("system", "user", "assistant", "user", "assistant", "user")
    chat = [{"role": role, "content": mark} for role, mark in zip(roles, _MARKS, strict=True)]
    whole = _between(template, _written(template, chat, True), _MARKS)
    user_end = _between(template, _written(template, chat[:2], False), _MARKS[:2])[-1]
    answer_end = _between(template, _written(template, chat[:3], False), _MARKS[:3])[-1]
    without = _between(template, _written(template, chat[1:2], False), _MARKS[1:2])[0]
    user = _rest(template, whole[3], answer_end)
    assistant = _rest(template, whole[2], user_end)
    if not whole[1].endswith(user) or not without.endswith(user) or not whole[-1].startswith(user_end):
        raise _unwritable(template, "its turns differ by their place")
    return Pieces(
        head=without.removesuffix(user),
        around={
            "system": (whole[0], whole[1].removesuffix(user)),
            "user": (user, user_end),
            "assistant": (assistant, answer_end),
        },
        ask=whole[-1].removeprefix(user_end),
    )


def _go(pieces: Pieces) -> str:
    """Each piece as a string of Go, so that no space of it is trimmed."""
    system, user, assistant = (
        _said(before) + "{{ .Content }}" + _said(after)
        for before, after in (pieces.around[role] for role in ROLES)
    )
    return (
        f'{{{{ if ne (index .Messages 0).Role "system" }}}}{_said(pieces.head)}{{{{ end }}}}'
        f'{{{{ range .Messages }}}}{{{{ if eq .Role "system" }}}}{system}'
        f'{{{{ else if eq .Role "user" }}}}{user}{{{{ else if eq .Role "assistant" }}}}{assistant}'
        f"{{{{ end }}}}{{{{ end }}}}{_said(pieces.ask)}"
    )


def _said(text: str) -> str:
    return f"{{{{ {json.dumps(text)} }}}}" if text else ""


def _written(template: ChatTemplate, chat: Chat, asking: bool) -> str:
    return render(template.text, list(chat), template.tokens, add_generation_prompt=asking)


def _between(template: ChatTemplate, text: str, marks: Sequence[str]) -> list[str]:
    found = []
    for mark in marks:
        before, there, text = text.partition(mark)
        if not there or mark in text:
            raise _unwritable(template, "it does not write each turn once and in order")
        found.append(before)
    return [*found, text]


def _rest(template: ChatTemplate, text: str, start: str) -> str:
    if not text.startswith(start):
        raise _unwritable(template, "the end of a turn depends on the next")
    return text.removeprefix(start)


def _probes() -> list[list[dict[str, str]]]:
    turns = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "1"}]
    system = [{"role": "system", "content": "Be brief."}]
    return [turns[:1], [*turns, *turns[:1]], [*system, *turns[:1]], [*system, *turns, *turns, *turns[:1]]]


def _unwritable(template: ChatTemplate, why: str) -> TemplateError:
    return TemplateError(
        f"cannot be written as an Ollama template: {why}", f"chat template ({template.source})",
        fix="export gguf instead, and give Ollama a template of your own",
    )  # fmt: skip
