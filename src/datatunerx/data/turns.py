"""The turns of a conversation, in each of the spellings that people give them."""

from collections.abc import Iterable
from typing import Any

from datatunerx.data.errors import Problem, Refused, shown
from datatunerx.data.json_rows import parse_json

Message = dict[str, Any]
"""role and content; where given name, tool_calls, tool_call_id, reasoning_content, weight."""
ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant",
    "bard": "assistant", "model": "assistant", "bot": "assistant", "tool": "tool", "function": "tool",
    "observation": "tool", "function_response": "tool", "tool_response": "tool",
    "function_call": "assistant", "tool_call": "assistant",
}  # fmt: skip
CALLS = ("function_call", "tool_call")
"""Roles whose text is the JSON of a call."""
EXTRAS = ("name", "tool_calls", "tool_call_id", "reasoning_content", "weight")
MAX_DEPTH = 64
MAX_EXACT = 1 << 63
"""Readers of JSON make numbers beyond it inexact."""


def turns(value: Any, field: str) -> list[Message]:
    """A list of turns, each with its role and its text. Raises Refused with the first that is none."""
    made: list[Message] = []
    for number, turn in enumerate(listed(value, field)):
        if type(turn) is dict and len(turn) == 2:  # most are
            role, content = turn.get("role"), turn.get("content")
            if type(role) is str and type(content) is str and role in ROLES and role not in CALLS:
                made.append({"role": ROLES[role], "content": text_of(content, field, number)})
                continue
        made += _odd_turn(turn, f"{field}[{number}]")
    return made


def listed(value: Any, field: str) -> Iterable[Any]:
    """A list, also one written as JSON in a cell of a table."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = parse_json(value)
        if isinstance(value, Problem):
            raise Refused(Problem(value.reason, field=field, found=value.found, fix=value.fix))
    if not isinstance(value, list):
        raise Refused(Problem("wrong type", field=field, found=shown(value), fix="write a list"))
    return value


def _odd_turn(turn: Any, field: str) -> list[Message]:
    if not isinstance(turn, dict):
        reason = "null turn" if turn is None else "wrong type"
        fix = 'write {"role": "user", "content": "..."}'
        raise Refused(Problem(reason, field=field, found=shown(turn), fix=fix))
    if "role" not in turn and "from" not in turn and "output" in turn:
        return _exchange(turn, field)
    role_key = "from" if "from" in turn and turn.get("role") is None else "role"
    text_key = "value" if "value" in turn and turn.get("content") is None else "content"
    given = turn.get(role_key)
    role = ROLES.get(given.lower()) if isinstance(given, str) else None
    if role is None:
        allowed = "use system, user, assistant or tool"
        raise Refused(Problem("unknown role", field=f"{field}.{role_key}", found=shown(given), fix=allowed))
    content = turn.get(text_key)
    if isinstance(given, str) and given.lower() in CALLS:
        calls = _written_calls(content, f"{field}.{text_key}")
        return [{"role": role, "content": "", "tool_calls": calls}]
    if content is None and turn.get("tool_calls"):
        content = ""
    message = said(role, content, f"{field}.{text_key}")
    for extra in EXTRAS:
        if turn.get(extra) is not None:
            message[extra] = clean(turn[extra], f"{field}.{extra}")
    if "tool_calls" in message:
        message["tool_calls"] = _calls(message["tool_calls"], f"{field}.tool_calls")
    return [message]


def _exchange(turn: dict[str, Any], field: str) -> list[Message]:
    """XTuner's turns: an input and its output, with what the system says before them."""
    parts = [("system", "system"), ("user", "input"), ("assistant", "output")]
    return [
        said(role, turn[key], f"{field}.{key}")
        for role, key in parts
        if turn.get(key) is not None and (turn[key] != "" or role == "assistant")
    ]


def said(role: str, content: Any, field: str) -> Message:
    """One turn. Content in parts, as OpenAI writes it, is joined when all of it is text."""
    if isinstance(content, list):
        pieces = [part.get("text") if isinstance(part, dict) else None for part in content]
        if any(piece is None for piece in pieces):
            fix = "keep text parts only; images and sound are not taken"
            raise Refused(Problem("wrong type", field=field, found="a part that is not text", fix=fix))
        content = "".join(text_of(piece, field) for piece in pieces)
    return {"role": role, "content": text_of(content, field)}


def text_of(value: Any, field: str, number: int | None = None) -> str:
    """The value if it is text that can be learnt. `number` is that of a turn in `field`."""
    if isinstance(value, str) and "\0" not in value and (value.isascii() or _is_whole(value)):
        return value
    place = field if number is None else f"{field}[{number}].content"
    if not isinstance(value, str):
        reason = "null turn" if value is None else "wrong type"
        raise Refused(Problem(reason, field=place, found=shown(value), fix="write text"))
    if "\0" in value:
        raise Refused(Problem("NUL character", field=place, found=shown(value), fix="save the text as UTF-8"))
    fix = "write the letter itself, or both halves of the pair"
    raise Refused(Problem("half a surrogate pair", field=place, found=shown(value), fix=fix))


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def clean(value: Any, field: str, depth: int = 0) -> Any:
    """The value with every text and number in it checked; nulls that tables add to objects are left out."""
    if isinstance(value, str):
        return text_of(value, field)
    if isinstance(value, int | float) and not abs(value) < MAX_EXACT:
        raise Refused(Problem("number too large", field=field, found=shown(value), fix="write it as text"))
    if depth > MAX_DEPTH:
        raise Refused(Problem("JSON nested too deeply", field=field, fix="flatten it"))
    if isinstance(value, list):
        return [clean(item, field, depth + 1) for item in value]
    if isinstance(value, dict):
        return {
            text_of(key, field): clean(item, field, depth + 1)
            for key, item in value.items()
            if item is not None
        }
    return value


# -- tools


def tools_of(value: Any) -> list[Any]:
    """Definitions of tools in OpenAI's form, also when they are written as JSON in a text, or bare."""
    tools = []
    for number, tool in enumerate(listed(value, "tools")):
        field = f"tools[{number}]"
        tool = clean(tool, field)
        bare = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(bare, dict) or not isinstance(bare.get("name"), str):
            fix = 'write {"type": "function", "function": {"name": "...", "parameters": {...}}}'
            raise Refused(Problem("wrong type", field=field, found=shown(tool), fix=fix))
        tools.append(tool if "function" in tool else {"type": "function", "function": tool})
    return tools


def _written_calls(content: Any, field: str) -> list[Any]:
    """What a model says to call a tool, written as JSON: one call, or a list of them."""
    value = parse_json(content) if isinstance(content, str) else content
    if isinstance(value, Problem):
        raise Refused(Problem(value.reason, field=field, found=value.found, fix=value.fix))
    calls = value if isinstance(value, list) else [value]
    return _calls([{"type": "function", "function": clean(call, field)} for call in calls], field)


def _calls(calls: Any, field: str) -> list[Any]:
    """Calls with their arguments as objects, which is how chat templates want them."""
    made = []
    for number, call in enumerate(listed(calls, field)):
        place = f"{field}[{number}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            fix = 'write {"function": {"name": "...", "arguments": {...}}}'
            raise Refused(Problem("wrong type", field=place, found=shown(call), fix=fix))
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            arguments = parse_json(arguments)
        if not isinstance(arguments, dict):
            what = arguments.found if isinstance(arguments, Problem) else shown(arguments)
            where = f"{place}.function.arguments"
            raise Refused(Problem("wrong type", field=where, found=what, fix="write a JSON object"))
        made.append(call | {"function": function | {"arguments": arguments}})
    return made


def check(messages: list[Message], field: str) -> None:
    """Raises Refused if there is nothing to learn, or a turn says nothing."""
    if not messages:
        raise Refused(Problem("no turns", field=field, found="an empty list", fix="remove the row"))
    answers = 0
    for number, message in enumerate(messages):
        role = message["role"]
        answers += role == "assistant"
        if role in ("user", "assistant") and not message["content"].strip() and not message.get("tool_calls"):
            turn, fix = f"turn {number + 1}", "write its text or remove the row"
            raise Refused(Problem(f"empty {role} turn", field=field, found=turn, fix=fix))
    if not answers:
        fix = "add the answer to learn as an assistant turn"
        roles = ", ".join(message["role"] for message in messages[:20])
        raise Refused(Problem("no assistant turn", field=field, found=roles, fix=fix))
