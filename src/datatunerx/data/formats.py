"""One raw row into one conversation, whichever of the known formats it is written in.

messages          {"messages": [{"role", "content"}, ...], "tools"}                     (OpenAI)
sharegpt          {"conversations": [{"from", "value"}, ...], "system", "tools"}
alpaca            {"instruction", "input", "output", "history", "system"}
prompt-completion {"prompt", "completion", "system"}                    (texts, or lists of messages)
preference        {"prompt", "chosen", "rejected"}                      (texts, messages; or no prompt)
labelled          {"prompt", "completion", "label"}, {"messages", "label"}
text              {"text"}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from datatunerx.data import turns
from datatunerx.data.errors import DataError, Problem, Refused, names_of, shown
from datatunerx.data.turns import Message as Message
from datatunerx.data.turns import check, listed, said, text_of
from datatunerx.resources.enums import DataFormat

TEXT = "text"
"""The role of the only message of a row that is plain text."""
PROMPTS = ("prompt", "question", "query")
COMPLETIONS = ("completion", "response", "answer", "output")
TURNS = {"messages": ("messages",), "conversations": ("conversations", "conversation", "dialogue", "dialog")}
ANSWERS = ("completion", *TURNS)
SPELLINGS: dict[DataFormat, dict[str, tuple[str, ...]]] = {
    DataFormat.MESSAGES: {"messages": ("messages",), "tools": ("tools",)},
    DataFormat.SHAREGPT: {
        "conversations": TURNS["conversations"], "system": ("system", "system_prompt"), "tools": ("tools",),
    },
    DataFormat.ALPACA: {
        "instruction": ("instruction",), "input": ("input", "context"), "output": ("output", "response"),
        "history": ("history",), "system": ("system", "system_prompt"),
    },
    DataFormat.PROMPT_COMPLETION: {
        "prompt": (*PROMPTS, "input"), "completion": COMPLETIONS, "system": ("system", "system_prompt"),
        "tools": ("tools",),
    },
    DataFormat.PREFERENCE: {
        "chosen": ("chosen",), "rejected": ("rejected",), "prompt": (*PROMPTS, "instruction"),
        "input": ("input",), **TURNS, "system": ("system", "system_prompt"), "tools": ("tools",),
    },
    DataFormat.LABELLED: {
        "label": ("label", "kto_tag"), "prompt": (*PROMPTS, "instruction"), "input": ("input",),
        "completion": COMPLETIONS, **TURNS, "system": ("system", "system_prompt"), "tools": ("tools",),
    },
    DataFormat.TEXT: {"text": ("text",)},
}  # fmt: skip
"""The parts that each format knows, each under the columns' usual names, our own first."""
SHAPES: tuple[tuple[DataFormat, tuple[str, ...]], ...] = (
    (DataFormat.PREFERENCE, ("chosen", "rejected")),
    (DataFormat.LABELLED, ("messages", "label")),
    (DataFormat.LABELLED, ("conversations", "label")),
    (DataFormat.LABELLED, ("prompt", "completion", "label")),
    (DataFormat.MESSAGES, ("messages",)),
    (DataFormat.SHAREGPT, ("conversations",)),
    (DataFormat.ALPACA, ("instruction", "output")),
    (DataFormat.PROMPT_COMPLETION, ("prompt", "completion")),
    (DataFormat.TEXT, ("text",)),
)
"""The parts that tell a format, in the order in which they are looked for."""
COLUMNS = frozenset(
    column for parts in SPELLINGS.values() for columns in parts.values() for column in columns
)
LABELS = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order; at least one is the assistant's and none of the assistant's is empty.

    Plain text is one message of the role `text`.
    """

    messages: list[Message]
    tools: list[Any] = field(default_factory=list)
    """Definitions of the tools that the assistant may call, as the template is given them."""
    rejected: list[Message] | None = None
    """Of a preference pair: the same beginning with the answer not wanted; `messages` has the other."""
    label: bool | None = None
    """Of a labelled answer: whether it is wanted."""

    @property
    def is_text(self) -> bool:
        return bool(self.messages[0]["role"] == TEXT)


@dataclass(frozen=True, slots=True)
class Layout:
    """How one file's rows are written."""

    format: DataFormat
    columns: dict[str, str]
    """The column that holds each part: those that every row must have, and the others' usual names."""
    needed: tuple[str, ...]
    others: tuple[tuple[str, tuple[str, ...]], ...]
    """Parts that a row may have, under the first of these names that it has."""


def layout_of(row: Mapping[str, Any], format: DataFormat, features: Mapping[str, str]) -> Layout | None:
    """The layout that the row has, of the given format if it is not auto; None if it has none we know."""
    for known, needed in SHAPES:
        parts = SPELLINGS[known]
        if format not in (DataFormat.AUTO, known) or not features.keys() <= parts.keys():
            continue
        asked = (*needed, *(part for part in features if part not in needed))
        found = {part: _column(row, part, parts[part], features) for part in asked}
        if all(found.values()) and _is_labelled(row, found, format):
            others = tuple((part, names) for part, names in parts.items() if part not in found)
            columns = {part: names[0] for part, names in others} | found
            return Layout(known, columns, asked, others)
    return None


def _column(row: Mapping[str, Any], part: str, names: tuple[str, ...], features: Mapping[str, str]) -> str:
    """The column that holds the part; empty if there is none, or two that are as good."""
    if part in features:
        return features[part] if features[part] in row else ""
    present = [name for name in names if name in row and name not in features.values()]
    return present[0] if len(present) == 1 or names[0] in present else ""


def _is_labelled(row: Mapping[str, Any], columns: Mapping[str, str], format: DataFormat) -> bool:
    """A `label` may be anything else than good or bad: a class, say. Then it is a column among others."""
    if "label" not in columns or format is DataFormat.LABELLED:
        return True
    return _label(row[columns["label"]]) is not None


def unknown(columns: list[str], format: DataFormat, features: Mapping[str, str], file: str) -> DataError:
    """What to say of a file with these columns, of which nothing tells the format."""
    formats = [known for known in SPELLINGS if format in (DataFormat.AUTO, known)]
    parts = dict.fromkeys(part for known in formats for part in SPELLINGS[known])
    odd = next((name for name in features if name not in parts), None)
    if odd is not None:
        who = "no format has a" if format is DataFormat.AUTO else f"format {format} has no"
        fix = f"use one of {', '.join(parts)}"
        return DataError(f"{who} part {odd!r}", file, field=f"features.{odd}", fix=fix)
    lost = next((name for name in features.values() if name not in columns), None)
    found = names_of(columns)
    if lost is not None:
        fix = "map to one of the file's columns"
        return DataError(f"there is no column {lost!r} (found {found})", file, field="features", fix=fix)
    shapes = "; ".join(dict.fromkeys(" + ".join(needed) for known, needed in SHAPES if known in formats))
    wanted = "are no known format" if format is DataFormat.AUTO else f"are not those of format {format}"
    return DataError(
        f"columns {found} {wanted} ({shapes})", file, field="columns",
        fix="map your columns: --map completion=reply, or features: [{name: completion, mapTo: reply}]",
    )  # fmt: skip


def conversation(row: Mapping[str, Any], layout: Layout) -> Conversation | Problem:
    """The row as a conversation, or the Problem with it (without file and line)."""
    try:
        parts = {part: row[layout.columns[part]] for part in layout.needed}
    except KeyError as error:
        found, column = names_of(row, "no columns"), str(error.args[0])
        return Problem("missing column", field=column, found=found, fix=f"add {shown(column)} to the row")
    for part, names in layout.others:
        for name in names:
            if name in row:
                parts[part] = row[name]
                break
    try:
        return _BUILDERS[layout.format](parts, layout)
    except Refused as refused:
        return refused.problem


def _from_messages(parts: Mapping[str, Any], layout: Layout) -> Conversation:
    column = layout.columns["messages"]
    return _whole(turns.turns(parts["messages"], column), parts, column)


def _from_sharegpt(parts: Mapping[str, Any], layout: Layout) -> Conversation:
    column = layout.columns["conversations"]
    return _whole(turns.turns(parts["conversations"], column), parts, column)


def _from_alpaca(parts: Mapping[str, Any], layout: Layout) -> Conversation:
    columns = layout.columns
    messages = _history(parts)
    messages.append(said("user", _instruction(parts, layout, "instruction"), columns["instruction"]))
    messages.append(said("assistant", parts["output"], columns["output"]))
    return _whole(messages, parts, columns["output"])


def _history(parts: Mapping[str, Any]) -> list[Message]:
    messages: list[Message] = []
    for number, pair in enumerate(listed(parts.get("history") or [], "history")):
        place = f"history[{number}]"
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            fix = "write [question, answer]"
            raise Refused(Problem("wrong type", field=place, found=shown(pair), fix=fix))
        messages += [said("user", pair[0], f"{place}[0]"), said("assistant", pair[1], f"{place}[1]")]
    return messages


def _instruction(parts: Mapping[str, Any], layout: Layout, part: str) -> str:
    """The question with what it is asked about under it."""
    asked = text_of(parts[part], layout.columns[part])
    more = text_of(parts.get("input") or "", layout.columns.get("input", "input"))
    return "\n\n".join(text for text in (asked, more) if text)


def _asked(parts: Mapping[str, Any], layout: Layout) -> list[Message]:
    """What comes before the answer: a prompt as text or as turns, or turns under a name of their own."""
    if parts.get("prompt") is not None:
        prompt, column = parts["prompt"], layout.columns["prompt"]
        if isinstance(prompt, list):
            return turns.turns(prompt, column)
        if parts.get("input"):
            prompt = _instruction(parts, layout, "prompt")
        return [said("user", prompt, column)]
    for part in TURNS:
        if parts.get(part) is not None:
            return turns.turns(parts[part], layout.columns[part])
    return []


def _answered(value: Any, column: str) -> list[Message]:
    """An answer: text, one turn, or turns."""
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        return turns.turns(value, column)
    return [said("assistant", value, column)]


def _from_prompt(parts: Mapping[str, Any], layout: Layout) -> Conversation:
    prompt, completion, columns = parts["prompt"], parts["completion"], layout.columns
    asked = (
        turns.turns(prompt, columns["prompt"])
        if isinstance(prompt, list)
        else [said("user", prompt, columns["prompt"])]
    )
    return _whole(asked + _answered(completion, columns["completion"]), parts, columns["completion"])


def _from_preference(parts: Mapping[str, Any], layout: Layout) -> Conversation:
    asked = _asked(parts, layout)
    good, bad = (_whole(_pair_side(asked, parts, name), parts, name) for name in ("chosen", "rejected"))
    if good.messages == bad.messages:
        fix = "write another rejected answer, or remove the row"
        raise Refused(Problem("chosen and rejected are the same", field="rejected", fix=fix))
    if good.messages[0] != bad.messages[0]:
        fix = "begin both with the same turns"
        found = shown(bad.messages[0]["content"])
        raise Refused(Problem("chosen and rejected begin otherwise", field="rejected", found=found, fix=fix))
    return Conversation(good.messages, good.tools, rejected=bad.messages)


def _pair_side(asked: list[Message], parts: Mapping[str, Any], name: str) -> list[Message]:
    """The whole conversation that ends in this answer; the prompt may be in it already."""
    answer = _answered(parts[name], name)
    if answer and answer[-1]["role"] != "assistant":
        fix = "end it with the assistant's turn"
        raise Refused(Problem("no assistant turn", field=name, found=answer[-1]["role"], fix=fix))
    if not answer or answer[0]["role"] == "assistant":
        if not asked:
            fix = "add the question as a column prompt, or write both answers as whole conversations"
            raise Refused(Problem("no prompt", field="prompt", found="only answers", fix=fix))
        return asked + answer
    if asked and asked[-1] not in answer:
        fix = "begin the answer with the prompt, or leave the prompt out of the answer"
        raise Refused(Problem("another prompt", field=name, found=shown(answer[0]["content"]), fix=fix))
    return answer


def _from_labelled(parts: Mapping[str, Any], layout: Layout) -> Conversation:
    label, column = _label(parts["label"]), layout.columns["label"]
    if label is None:
        raise Refused(
            Problem("wrong type", field=column, found=shown(parts["label"]), fix="write true or false")
        )
    messages, last = _asked(parts, layout), next(part for part in layout.needed if part in ANSWERS)
    if last == "completion":
        messages += _answered(parts[last], layout.columns[last])
    made = _whole(messages, parts, layout.columns[last])
    return Conversation(made.messages, made.tools, label=label)


def _label(value: Any) -> bool | None:
    if isinstance(value, str):
        value = value.strip().lower()
    return LABELS.get(value) if isinstance(value, str | int) else None


def _from_text(parts: Mapping[str, Any], layout: Layout) -> Conversation:
    text, column = text_of(parts["text"], layout.columns["text"]), layout.columns["text"]
    if not text.strip():
        fix = "write its text or remove the row"
        raise Refused(Problem("empty text", field=column, found=shown(text), fix=fix))
    return Conversation([{"role": TEXT, "content": text}])


def _whole(messages: list[Message], parts: Mapping[str, Any], column: str) -> Conversation:
    """The turns with what stands beside them in the row, once they are fit to be learnt from."""
    if parts.get("system"):
        messages = [{"role": "system", "content": text_of(parts["system"], "system")}, *messages]
    check(messages, column)
    tools = parts.get("tools")
    return Conversation(messages, turns.tools_of(tools)) if tools else Conversation(messages)


_BUILDERS = {
    DataFormat.MESSAGES: _from_messages, DataFormat.SHAREGPT: _from_sharegpt,
    DataFormat.ALPACA: _from_alpaca, DataFormat.PROMPT_COMPLETION: _from_prompt,
    DataFormat.PREFERENCE: _from_preference, DataFormat.LABELLED: _from_labelled, DataFormat.TEXT: _from_text,
}  # fmt: skip
