"""One raw row into one conversation, whichever of the known formats it is written in.

messages          {"messages": [{"role", "content"}, ...]}            (OpenAI)
sharegpt          {"conversations": [{"from", "value"}, ...], "system"}
alpaca            {"instruction", "input", "output", "history", "system"}
prompt-completion {"prompt", "completion"}                            (texts, or lists of messages)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datatunerx.data.errors import DataError, Problem, Refused, shown
from datatunerx.data.parse import parse_json
from datatunerx.resources.enums import DataFormat

Message = dict[str, Any]
"""role and content; where given name, tool_calls, tool_call_id, reasoning_content, weight."""

NEEDED: dict[DataFormat, tuple[str, ...]] = {
    DataFormat.MESSAGES: ("messages",),
    DataFormat.SHAREGPT: ("conversations",),
    DataFormat.PROMPT_COMPLETION: ("prompt", "completion"),
    DataFormat.ALPACA: ("instruction", "output"),
}
"""The parts that tell a format, in the order in which they are looked for."""
OPTIONAL = {
    DataFormat.ALPACA: ("input", "history", "system"),
    DataFormat.SHAREGPT: ("system",),
    DataFormat.MESSAGES: (),
    DataFormat.PROMPT_COMPLETION: ("system",),
}
ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant",
    "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant", "tool": "tool", "function": "tool", "observation": "tool",
    "function_response": "tool",
}  # fmt: skip
EXTRAS = ("name", "tool_calls", "tool_call_id", "reasoning_content", "weight")


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order; at least one is the assistant's and none of the assistant's is empty."""

    messages: list[Message]


def recognise(rows: Sequence[Mapping[str, Any]], features: Mapping[str, str], file: str) -> DataFormat:
    """The format of the first rows. Raises DataError naming the columns found if it is none we know."""
    for format, needed in NEEDED.items():
        columns = [features.get(part, part) for part in needed]
        if any(all(column in row for column in columns) for row in rows):
            return format
    found = ", ".join(sorted({str(column) for row in rows for column in row})) or "none"
    known = "; ".join(" + ".join(needed) for needed in NEEDED.values())
    raise DataError(
        f"columns {found} are no known format ({known})", file, field="columns",
        fix="map your columns in the Dataset's features, as in name: messages, mapTo: your column",
    )  # fmt: skip


def check_features(format: DataFormat, features: Mapping[str, str], file: str) -> None:
    """Raises DataError if a mapping names a part that the format does not have."""
    parts = (*NEEDED[format], *OPTIONAL[format])
    for name in features:
        if name not in parts:
            known = ", ".join(parts)
            raise DataError(
                f"format {format} has no part {name!r}",
                file,
                field=f"features.{name}",
                fix=f"use one of {known}",
            )


def conversation(
    row: Mapping[str, Any], format: DataFormat, features: Mapping[str, str]
) -> Conversation | Problem:
    """The row as a conversation, or the Problem with it (without file and line)."""
    try:
        parts = _parts(row, format, features)
        messages = _BUILDERS[format](parts)
        _check(messages, features.get(NEEDED[format][-1], NEEDED[format][-1]))
    except Refused as refused:
        return refused.problem
    return Conversation(messages)


def _parts(row: Mapping[str, Any], format: DataFormat, features: Mapping[str, str]) -> dict[str, Any]:
    if row.get("tools"):
        raise Refused(Problem("tool definitions", field="tools", found="tools", fix="leave the column out"))
    parts: dict[str, Any] = {}
    for part in (*NEEDED[format], *OPTIONAL[format]):
        column = features.get(part, part)
        if column in row:
            parts[part] = row[column]
        elif part in NEEDED[format] or part in features:
            found = ", ".join(str(name) for name in row) or "no columns"
            raise Refused(
                Problem("missing column", field=column, found=found, fix=f"add {column!r} to the row")
            )
    return parts


def _from_messages(parts: Mapping[str, Any]) -> list[Message]:
    return _turns(parts["messages"], "messages")


def _from_sharegpt(parts: Mapping[str, Any]) -> list[Message]:
    return _with_system(parts, _turns(parts["conversations"], "conversations"))


def _from_alpaca(parts: Mapping[str, Any]) -> list[Message]:
    messages: list[Message] = []
    for number, pair in enumerate(_listed(parts.get("history") or [], "history")):
        field = f"history[{number}]"
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise Refused(
                Problem("wrong type", field=field, found=shown(pair), fix="write [question, answer]")
            )
        messages += [_said("user", pair[0], f"{field}[0]"), _said("assistant", pair[1], f"{field}[1]")]
    asked = _text(parts["instruction"], "instruction")
    more = _text(parts.get("input") or "", "input")
    messages.append(_said("user", "\n\n".join(text for text in (asked, more) if text), "instruction"))
    messages.append(_said("assistant", parts["output"], "output"))
    return _with_system(parts, messages)


def _from_prompt(parts: Mapping[str, Any]) -> list[Message]:
    prompt, completion = parts["prompt"], parts["completion"]
    asked = _turns(prompt, "prompt") if isinstance(prompt, list) else [_said("user", prompt, "prompt")]
    if isinstance(completion, list):
        return _with_system(parts, asked + _turns(completion, "completion"))
    return _with_system(parts, [*asked, _said("assistant", completion, "completion")])


_BUILDERS = {
    DataFormat.MESSAGES: _from_messages,
    DataFormat.SHAREGPT: _from_sharegpt,
    DataFormat.ALPACA: _from_alpaca,
    DataFormat.PROMPT_COMPLETION: _from_prompt,
}


def _with_system(parts: Mapping[str, Any], messages: list[Message]) -> list[Message]:
    system = _text(parts.get("system") or "", "system")
    return [{"role": "system", "content": system}, *messages] if system else messages


def _turns(value: Any, field: str) -> list[Message]:
    return [_turn(turn, f"{field}[{number}]") for number, turn in enumerate(_listed(value, field))]


def _listed(value: Any, field: str) -> Iterable[Any]:
    """A list, also one written as JSON in a cell of a table."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = parse_json(value)
        if isinstance(value, Problem):
            raise Refused(Problem(value.reason, field=field, found=value.found, fix=value.fix))
    if not isinstance(value, list):
        raise Refused(Problem("wrong type", field=field, found=shown(value), fix="write a list"))
    return value


def _turn(turn: Any, field: str) -> Message:
    if not isinstance(turn, dict):
        reason = "null turn" if turn is None else "wrong type"
        fix = 'write {"role": "user", "content": "..."}'
        raise Refused(Problem(reason, field=field, found=shown(turn), fix=fix))
    role_key, text_key = ("from", "value") if "from" in turn else ("role", "content")
    given = turn.get(role_key)
    role = ROLES.get(given.lower()) if isinstance(given, str) else None
    if role is None:
        allowed = "use system, user, assistant or tool"
        raise Refused(Problem("unknown role", field=f"{field}.{role_key}", found=shown(given), fix=allowed))
    content = turn.get(text_key)
    if content is None and turn.get("tool_calls"):
        content = ""
    message = _said(role, content, f"{field}.{text_key}")
    for extra in EXTRAS:
        if turn.get(extra) is not None:
            message[extra] = _clean(turn[extra], f"{field}.{extra}")
    return message


def _said(role: str, content: Any, field: str) -> Message:
    """One turn. Content in parts, as OpenAI writes it, is joined when all of it is text."""
    if isinstance(content, list):
        pieces = [part.get("text") if isinstance(part, dict) else None for part in content]
        if any(piece is None for piece in pieces):
            fix = "keep text parts only; images and sound are not taken"
            raise Refused(Problem("wrong type", field=field, found="a part that is not text", fix=fix))
        content = "".join(_text(piece, field) for piece in pieces)
    return {"role": role, "content": _text(content, field)}


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        reason = "null turn" if value is None else "wrong type"
        raise Refused(Problem(reason, field=field, found=shown(value), fix="write text"))
    if "\0" in value:
        raise Refused(Problem("NUL character", field=field, found=shown(value), fix="save the text as UTF-8"))
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        fix = "write the letter itself, or both halves of the pair"
        raise Refused(Problem("half a surrogate pair", field=field, found=shown(value), fix=fix))
    return value


def _clean(value: Any, field: str) -> Any:
    """The value with every text in it checked; nulls that tables add to objects are left out."""
    if isinstance(value, str):
        return _text(value, field)
    if isinstance(value, list):
        return [_clean(item, field) for item in value]
    if isinstance(value, dict):
        return {key: _clean(item, field) for key, item in value.items() if item is not None}
    return value


def _check(messages: list[Message], field: str) -> None:
    if not messages:
        raise Refused(Problem("no turns", field=field, found="an empty list", fix="remove the row"))
    if all(message["role"] != "assistant" for message in messages):
        fix = "add the answer to learn as an assistant turn"
        roles = ", ".join(message["role"] for message in messages)
        raise Refused(Problem("no assistant turn", field=field, found=roles, fix=fix))
    for number, message in enumerate(messages):
        if message["role"] in ("user", "assistant") and not message["content"].strip():
            if message.get("tool_calls"):
                continue
            turn, fix = f"turn {number + 1}", "write its text or remove the row"
            raise Refused(Problem(f"empty {message['role']} turn", field=field, found=turn, fix=fix))
