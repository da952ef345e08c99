"""The chat template of a model: messages into the prompt it is asked with, and into ids and labels.

One template writes both, so that what a model is trained on is what it is asked with. Where the assistant's
turns lie is found by asking the template itself: the text it writes for the turns before, with the generation
prompt, must be the beginning of the text it writes for all of them. A template of which that is not true
cannot be masked, and is refused.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datatunerx.data.encoding import Encoded, Ints, Piece, TextEncoder
from datatunerx.data.errors import TemplateError, shown
from datatunerx.data.formats import Message
from datatunerx.data.render import compiled, render

MASKING_VERSION = 1
"""Part of the key of tokenised data: raise it whenever other tokens would carry loss."""
IGNORED = -100
MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Noncharacters, of which one that the messages do not use breaks up control tokens in what a user wrote."""
PROBE = "Qq7probe"
FALLBACKS = {"<|im_end|>": "chatml", "<|eot_id|>": "llama3", "<end_of_turn>": "gemma", "<|end|>": "phi3"}
"""The built-in template for a tokenizer that has this token and no template."""


class Span(NamedTuple):
    """One assistant turn as characters: from its answer to the end of its end-of-turn token."""

    start: int
    end: int
    trained: bool = True


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text, with the characters that carry loss."""

    text: str
    spans: tuple[Span, ...]
    pieces: tuple[Piece, ...]
    """How it must be cut to be tokenised: one piece, unless a user wrote control tokens."""


class FoundTemplate(NamedTuple):
    text: str
    source: str
    """Where it comes from, in words."""


class Example(NamedTuple):
    ids: Ints
    labels: Ints
    """The ids where they carry loss, -100 elsewhere."""


class ChatTemplate:
    """A template together with the tokenizer it writes for."""

    def __init__(self, found: FoundTemplate, encoder: TextEncoder, tokens: Mapping[str, str]) -> None:
        """Raises TemplateError if assistant turns do not end in a token of the tokenizer."""
        self.text, self.source = found
        self.encoder, self.tokens = encoder, dict(tokens)
        compiled(self.text)
        self.ends = self._ends_of_turn()
        encoder.control = frozenset(encoder.special | self.ends | self._headers)
        self._control = encoder.pattern(encoder.control)
        self._end = encoder.pattern(self.ends)

    @classmethod
    def load(cls, model_dir: Path, override: str | None = None) -> "ChatTemplate":
        """The folder's template, or `override`: Jinja text or the name of a built-in one."""
        encoder = TextEncoder.load(model_dir)
        config = _config(model_dir)
        return cls(find_template(model_dir, override, encoder.added), encoder, _special_tokens(config))

    @property
    def stop_ids(self) -> list[int]:
        """Tokens at which an answer ends."""
        ends = self.ends | {self.tokens.get("eos_token", "")}
        return sorted(self.encoder.added[end] for end in ends if end in self.encoder.added)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """What a model is asked with, ending in the generation prompt."""
        marked, mark = self._marked(messages)
        text = self._render(marked, True)
        try:
            asked = self._located(marked, mark, text)
        except TemplateError:  # cannot be trained on, which is no reason not to be asked
            asked = Rendered(text.replace(mark, "") if mark else text, (), self._pieces(text, mark))
        ids: list[int] = self._tokens(asked).ids.tolist()
        return ids

    def encode(self, messages: Sequence[Message]) -> Example:
        """Ids of all turns; labels on every assistant turn including its end-of-turn token."""
        rendered = self.rendered(messages)
        return self._label(rendered, self._tokens(rendered))

    def encode_batch(self, rendered: Sequence[Rendered]) -> list[Example | TemplateError]:
        """Many conversations on all cores; in place of those that cannot be labelled, why."""
        simple = [item.pieces == (Piece(0, len(item.text)),) for item in rendered]
        texts = [item.text for item, whole in zip(rendered, simple, strict=True) if whole]
        encoded = iter(self.encoder.encode_batch(texts))
        made: list[Example | TemplateError] = []
        for item, whole in zip(rendered, simple, strict=True):
            try:
                made.append(self._label(item, self._tokens(item, next(encoded) if whole else None)))
            except TemplateError as error:
                made.append(error)
        return made

    def rendered(self, messages: Sequence[Message]) -> Rendered:
        """The conversation as text. Raises TemplateError if the turns cannot be told apart in it."""
        if "tool_calls" not in self.text and any(message.get("tool_calls") for message in messages):
            raise self._error("the template does not write tool calls", "name a template that does")
        marked, mark = self._marked(messages)
        return self._located(marked, mark, self._render(marked, False))

    # -- tokens and labels

    def _tokens(self, rendered: Rendered, encoded: Encoded | None = None) -> Encoded:
        """The text's tokens, cut where an answer begins if they would not be those the model is asked with.

        Tokenisers may join the prompt's last characters to the answer's first, or split them otherwise when
        the answer follows. Such an answer is tokenised on its own, as it is when it is generated.
        """
        if encoded is None:
            encoded = self.encoder.encode_pieces(rendered.text, rendered.pieces)
        cuts = [
            span.start for span in rendered.spans if not self._begins_alone(rendered, encoded, span.start)
        ]
        if not cuts:
            return encoded
        return self.encoder.encode_pieces(rendered.text, _cut(rendered.pieces, cuts))

    def _begins_alone(self, rendered: Rendered, encoded: Encoded, start: int) -> bool:
        """Whether the tokens before character `start` are those of the text that ends there."""
        begins, ends = encoded.offsets[:, 0], encoded.offsets[:, 1]
        count = int(np.searchsorted(begins, start))
        if count and ends[count - 1] > start:
            return False
        ids = encoded.ids[:count].tolist()
        first = count  # back to the last control token: those are never joined to anything
        while first and ids[first - 1] not in self._control_ids:
            first -= 1
        anchor = int(ends[first - 1]) if first else 0
        literal = any(piece.literal and piece.start <= anchor < piece.end for piece in rendered.pieces)
        alone = self.encoder.encode_pieces(rendered.text, [Piece(anchor, start, literal)])
        return bool(alone.ids.tolist() == ids[first:])

    def _label(self, rendered: Rendered, encoded: Encoded) -> Example:
        """Labels by character: a token is trained if it begins within an assistant turn."""
        starts = encoded.offsets[:, 0]
        trained = np.zeros(len(starts), dtype=bool)
        for span in rendered.spans:
            turn = (starts >= span.start) & (starts < span.end)
            places = np.flatnonzero(turn)
            if len(places) < 2 or int(encoded.ids[places[-1]]) not in self._end_ids:
                raise self._error(
                    "an assistant turn does not end in its end-of-turn token", "name another template"
                )
            trained |= turn & span.trained
        trained[:1] = False  # nothing predicts the first token
        return Example(encoded.ids, np.where(trained, encoded.ids, np.int32(IGNORED)).astype(np.int32))

    # -- where turns lie

    def _located(self, messages: list[Message], mark: str, text: str) -> Rendered:
        """The text of marked messages with its assistant turns, without marks."""
        turns = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        spans = [self._span(messages, number, text) for number in turns]
        pieces = self._pieces(text, mark)
        if mark:
            spans = [
                Span(start - text.count(mark, 0, start), end - text.count(mark, 0, end), trained)
                for start, end, trained in spans
            ]
            text = text.replace(mark, "")
        return Rendered(text, tuple(spans), pieces)

    def _span(self, messages: list[Message], number: int, text: str) -> Span:
        prompt = self._render(messages[:number], True)
        if not text.startswith(prompt):
            raise self._error(
                f"what the template writes before turn {number + 1} when asked for an answer is not what it "
                f"writes there when the answer is known ({shown(prompt[-40:])})", "name another template",
            )  # fmt: skip
        bound = self._bound(messages, number, text)
        end = self._end.search(text, len(prompt), bound)
        if end is None:
            raise self._error(
                f"turn {number + 1} has no end-of-turn token ({' or '.join(sorted(self.ends))})",
                "name a template that ends every assistant turn",
            )
        said = messages[number]["content"].split("</think>")[-1].strip()
        if said not in text[len(prompt) : end.start()]:
            raise self._error(f"the template changes the text of turn {number + 1}", "name another template")
        return Span(len(prompt), end.end(), messages[number].get("weight") != 0)

    def _bound(self, messages: list[Message], number: int, text: str) -> int:
        """Where the next turn's text begins at the latest; the end of the text for the last turn."""
        if number + 1 == len(messages):
            return len(text)
        probe = PROBE
        while probe in text:  # someone may have written it
            probe += "q"
        after = messages[number + 1] | {"content": probe}
        probed = self._render([*messages[: number + 1], after, *messages[number + 2 :]], False)
        bound = probed.find(probe)
        if bound < 0 or text[:bound] != probed[:bound]:
            raise self._error(
                f"turn {number + 2} cannot be told from turn {number + 1}", "name another template"
            )
        return bound

    def _ends_of_turn(self) -> set[str]:
        """The tokens that end an assistant turn: at the end of the text, and before another turn."""
        asked: list[Message] = [{"role": "user", "content": "Aa"}, {"role": "assistant", "content": PROBE}]
        text = self._render(asked, False)
        if PROBE not in text:
            raise self._error("it does not write the assistant's text", "name a template for plain text")
        last = self._ending(text, "")
        if last is None:
            tail = text.partition(PROBE)[2]
            what = shown(tail) if tail.strip() else "nothing"
            raise self._error(
                f"it ends an assistant turn with {what}, which is not a token of this tokenizer, so a model "
                "trained with it would not know where to stop",
                "name a template whose end-of-turn the tokenizer has, or one that ends turns with eos_token",
            )
        try:
            twice = self._render([*asked, {"role": "user", "content": "Bb"}, *asked[1:]], False)
        except TemplateError:
            return {last}
        between = self._ending(twice, "Bb")
        return {last} if between is None or between in self._headers else {last, between}

    def _ending(self, text: str, stop: str) -> str | None:
        """The added token that follows the first probe directly, before `stop`."""
        tail = text.partition(PROBE)[2]
        tail = tail.partition(stop)[0] if stop else tail
        found = self.encoder.pattern(self.encoder.added).match(tail.lstrip())
        return found[0] if found else None

    @cached_property
    def _headers(self) -> set[str]:
        """Added tokens that the template writes around what a user says."""
        text = self._render([{"role": "user", "content": "Aa"}], True)
        return set(self.encoder.pattern(self.encoder.added).findall(text))

    @cached_property
    def _end_ids(self) -> set[int]:
        return {self.encoder.added[end] for end in self.ends}

    @cached_property
    def _control_ids(self) -> set[int]:
        return {self.encoder.added[token] for token in self.encoder.control}

    # -- what a user wrote

    def _marked(self, messages: Sequence[Message]) -> tuple[list[Message], str]:
        """The messages with control tokens broken up by a mark, and the mark; empty if there are none."""
        texts = [text for message in messages for text in _texts(message)]
        if not any(self._control.search(text) for text in texts):
            return list(messages), ""
        mark = next((mark for mark in MARKS if not any(mark in text for text in texts)), None)
        if mark is None:
            raise self._error("the row uses all 32 of Unicode's noncharacters", "remove them")
        return [
            _mapped(message, lambda text: self._control.sub(_broken(mark), text)) for message in messages
        ], mark

    def _pieces(self, text: str, mark: str) -> tuple[Piece, ...]:
        """The text without marks, cut so that what stands between two of the template's own control tokens
        is literal where it held a mark."""
        if not mark:
            return (Piece(0, len(text)),)
        pieces: list[Piece] = []
        place = done = removed = 0
        edges = [match.span() for match in self._control.finditer(text)]
        for start, end in [*edges, (len(text), len(text))]:
            marks = text.count(mark, place, start)
            if marks:
                pieces.append(Piece(done, place - removed))
                pieces.append(Piece(place - removed, start - removed - marks, True))
                removed += marks
                done = start - removed
            place = end
        pieces.append(Piece(done, len(text) - removed))
        return tuple(piece for piece in pieces if piece.end > piece.start)

    def _render(self, messages: Sequence[Message], asking: bool) -> str:
        return render(self.text, messages, self.tokens, add_generation_prompt=asking)

    def _error(self, message: str, fix: str) -> TemplateError:
        return TemplateError(message, f"chat template ({self.source})", fix=fix)


def built_in_names() -> list[str]:
    """Names that may stand wherever a template's text may."""
    folder = resources.files("datatunerx.data") / "templates"
    return sorted(
        entry.name.removesuffix(".jinja") for entry in folder.iterdir() if entry.name.endswith(".jinja")
    )


def built_in(name: str) -> FoundTemplate:
    path = resources.files("datatunerx.data") / "templates" / f"{name}.jinja"
    return FoundTemplate(path.read_text(encoding="utf-8"), f"built-in {name}")


def find_template(model_dir: Path, override: str | None, added: Mapping[str, int]) -> FoundTemplate:
    """The template to use: the user's, else the model's own, else the built-in one its tokens point to."""
    if override is not None:
        return _named(override)
    own = _own(model_dir)
    if own is not None:
        return own
    name = next((name for token, name in FALLBACKS.items() if token in added), "alpaca")
    found = built_in(name)
    return FoundTemplate(found.text, f"{found.source}; the model has none")


def _named(override: str) -> FoundTemplate:
    if "{" in override:
        return FoundTemplate(override, "given")
    if override not in built_in_names():
        known = ", ".join(built_in_names())
        raise TemplateError(
            f"no built-in template {override!r}", "chat template", fix=f"use Jinja or one of {known}"
        )
    return built_in(override)


def _own(model_dir: Path) -> FoundTemplate | None:
    path = model_dir / "chat_template.jinja"
    if path.is_file():
        return FoundTemplate(path.read_text(encoding="utf-8"), path.name)
    template = _config(model_dir).get("chat_template")
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


def _config(model_dir: Path) -> dict[str, Any]:
    path = model_dir / "tokenizer_config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TemplateError(f"is not JSON: {error}", str(path), fix="write the tokenizer again") from error
    return config if isinstance(config, dict) else {}


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token and the like as text, however the config writes them."""
    tokens: dict[str, str] = {}
    for name, value in config.items():
        content = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(content, str):
            tokens[name] = content
    return tokens


def _cut(pieces: Sequence[Piece], cuts: Sequence[int]) -> tuple[Piece, ...]:
    """The pieces, cut further at these characters."""
    made = []
    for piece in pieces:
        edges = [piece.start, *(cut for cut in cuts if piece.start < cut < piece.end), piece.end]
        for start, end in zip(edges, edges[1:], strict=False):
            made.append(Piece(start, end, piece.literal, piece.continues or start != piece.start))
    return tuple(made)


def _broken(mark: str) -> Any:
    return lambda match: match[0][0] + mark + match[0][1:]


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in inner for text in _texts(item)]


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list) else value
