"""The chat template of a model: messages into the prompt it is asked with, and into ids and labels.

One template writes both, so that what a model is trained on is what it is asked with. Where the assistant's
turns lie is found by asking the template itself: the text it writes for the turns before, with the generation
prompt, must be the beginning of the text it writes for all of them. A template of which that is not true
cannot be masked, and is refused. Templates are rendered in a process of their own (`sandbox`).
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datatunerx.data.encoding import Encoded, Ints, Piece, TextEncoder
from datatunerx.data.errors import TemplateError, shown
from datatunerx.data.formats import Conversation, Message
from datatunerx.data.registry import FoundTemplate, find_template, special_tokens
from datatunerx.data.render import Answer, Asked, answers, render
from datatunerx.data.sandbox import PROBE

MASKING_VERSION = 2
"""Part of the key of tokenised data: raise it whenever other tokens would carry loss."""
IGNORED = -100
TOOL: Message = {"role": "tool", "content": "Cc", "tool_call_id": "a", "name": "a"}


class LeftOut(TemplateError):
    """The row has a part that the template never writes."""


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
        self.ends = self._ends_of_turn()
        encoder.control = frozenset(encoder.special | self.ends | self._headers)
        # What stands between a control token and an answer is the same in most rows.
        self._alone = lru_cache(maxsize=1024)(self._ids_alone)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_alone"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._alone = lru_cache(maxsize=1024)(self._ids_alone)

    @classmethod
    def load(cls, model_dir: Path, override: str | None = None) -> "ChatTemplate":
        """The folder's template, or `override`: Jinja text or the name of a built-in one."""
        encoder = TextEncoder.load(model_dir)
        found = find_template(model_dir, override, encoder.added)
        return cls(found, encoder, special_tokens(model_dir))

    @property
    def stop_ids(self) -> list[int]:
        """Tokens at which an answer ends."""
        ends = self.ends | {self.tokens.get("eos_token", "")}
        return sorted(self.encoder.added[end] for end in ends if end in self.encoder.added)

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[int]:
        """What a model is asked with, ending in the generation prompt."""
        written, given = _as_templates_want(messages), list(tools) or None
        (made,) = self._answers([Asked(written, given, True, locate=True)])
        if isinstance(made, TemplateError):  # cannot be trained on, which is no reason not to be asked
            (made,) = self._answers([Asked(written, given, True)])
        if isinstance(made, TemplateError):
            raise made
        ids: list[int] = self._tokens(_rendered(made)).ids.tolist()
        return ids

    def encode(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> Example:
        """Ids of all turns; labels on every assistant turn including its end-of-turn token."""
        rendered = self.rendered(messages, tools)
        return self._label(rendered, self._tokens(rendered))

    def encode_batch(self, rendered: Sequence[Rendered]) -> list[Example | TemplateError]:
        """Many conversations; in place of those that cannot be labelled, why."""
        quick = by_words(rendered, self.encoder, self._stops)
        slow = [item for item, known in zip(rendered, quick, strict=True) if known is None]
        simple = [_is_whole(item) for item in slow]
        texts = [item.text for item, whole in zip(slow, simple, strict=True) if whole]
        encoded = iter(self.encoder.encode_batch(texts))
        made: list[Example | TemplateError] = []
        for item, whole in zip(slow, simple, strict=True):
            try:
                made.append(self._label(item, self._tokens(item, next(encoded) if whole else None)))
            except TemplateError as error:
                made.append(error)
        others = iter(made)
        return [next(others) if known is None else known for known in quick]

    def rendered(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> Rendered:
        """The conversation as text. Raises TemplateError if the turns cannot be told apart in it."""
        (made,) = self.rendered_batch([Conversation(list(messages), list(tools))])
        if isinstance(made, TemplateError):
            raise made
        return made

    def rendered_batch(self, conversations: Sequence[Conversation]) -> list[Rendered | TemplateError]:
        """Many conversations as text; in place of those that this template cannot write, why."""
        known = [self._plain(one) if one.is_text else self._unwritten(one) for one in conversations]
        asked = [
            Asked(_as_templates_want(one.messages), one.tools or None, locate=True)
            for one, answer in zip(conversations, known, strict=True)
            if answer is None
        ]
        made = iter(self._answers(asked))
        return [answer or _made(next(made)) for answer in known]

    def decoded(self, example: Example) -> tuple[str, list[list[int]]]:
        """The text that the tokens stand for, and which of its characters carry loss, as [start, end]."""
        edges = np.flatnonzero(np.diff(example.labels >= 0)) + 1
        text, trained = "", []
        for ids, labels in zip(np.split(example.ids, edges), np.split(example.labels, edges), strict=True):
            said = self.encoder.decode(ids)
            if labels[:1].max(initial=IGNORED) >= 0:
                trained.append([len(text), len(text) + len(said)])
            text += said
        return text, trained

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
        return bool(self._alone(rendered.text[anchor:start], anchor > 0, literal) == ids[first:])

    def _ids_alone(self, text: str, within: bool, literal: bool) -> list[int]:
        """Ids of a text that stands for itself: at the start of a conversation, or within it."""
        start = int(within)  # all that the encoder asks of the place
        ids: list[int] = self.encoder.encode_pieces(
            " " * start + text, [Piece(start, start + len(text), literal)]
        ).ids.tolist()
        return ids

    def _label(self, rendered: Rendered, encoded: Encoded) -> Example:
        """Labels by character: a token is trained if it begins within an assistant turn."""
        starts = encoded.offsets[:, 0]
        trained = np.zeros(len(starts), dtype=bool)
        for span in rendered.spans:
            turn = (starts >= span.start) & (starts < span.end)
            places = np.flatnonzero(turn)
            if len(places) < 2 or int(encoded.ids[places[-1]]) not in self._stops:
                raise self._error(
                    "an assistant turn does not end in its end-of-turn token", "name another template"
                )
            trained |= turn & span.trained
        trained[:1] = False  # nothing predicts the first token
        return Example(encoded.ids, np.where(trained, encoded.ids, np.int32(IGNORED)).astype(np.int32))

    # -- what the template is asked

    def _answers(self, asked: Sequence[Asked]) -> list[Answer | TemplateError]:
        return answers(self.text, self.tokens, asked, self.encoder.control, self.ends, self.source)

    def _plain(self, conversation: Conversation) -> Rendered:
        """Plain text, to which no template says anything: it is trained on whole, with the end of text."""
        text, end = conversation.messages[0]["content"], self.tokens.get("eos_token", "")
        literal = self.encoder.pattern(self.encoder.control).search(text) is not None
        whole = len(text) + len(end)
        cut = (Piece(0, len(text), True), Piece(len(text), whole)) if literal else (Piece(0, whole),)
        return Rendered(text + end, (Span(0, whole),), cut)

    def _unwritten(self, conversation: Conversation) -> TemplateError | None:
        """What the conversation holds and the template would leave out in silence."""
        if conversation.tools and "tools" not in self.text:
            return self._left_out("tool definitions", "tools")
        for name, what in (("tool_calls", "tool calls"), ("reasoning_content", "reasoning")):
            if name not in self.text and any(message.get(name) for message in conversation.messages):
                return self._left_out(what, name)
        return None

    def _left_out(self, what: str, name: str) -> TemplateError:
        fix = f"name a template that does, or take {name} out of the rows"
        return LeftOut(f"the template does not write {what}", f"chat template ({self.source})", fix=fix)

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
        ends = {last}
        for after in ({"role": "user", "content": "Bb"}, TOOL):
            try:
                twice = self._render([*asked, after, *asked[1:]], False)
            except TemplateError:
                continue
            between = self._ending(twice, after["content"])
            if between is not None and between not in self._headers:
                ends.add(between)
        return ends

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
    def end_ids(self) -> set[int]:
        """Ids of the tokens that end an assistant turn."""
        return {self.encoder.added[end] for end in self.ends}

    @cached_property
    def _stops(self) -> set[int]:
        return set(self.stop_ids)

    @cached_property
    def _control_ids(self) -> set[int]:
        return {self.encoder.added[token] for token in self.encoder.control}

    def _render(self, messages: Sequence[Message], asking: bool) -> str:
        return render(self.text, messages, self.tokens, add_generation_prompt=asking)

    def _error(self, message: str, fix: str) -> TemplateError:
        return TemplateError(message, f"chat template ({self.source})", fix=fix)


def by_words(rendered: Sequence[Rendered], encoder: TextEncoder, stops: Set[int]) -> list[Example | None]:
    """The examples that can be made word by word; None for the others, about which nothing is said.

    Equal to those that the whole text gives: between control tokens and at line breaks texts never join.
    """
    words = encoder.words
    cut = [_between_control(item, encoder) if words and _is_whole(item) else None for item in rendered]
    texts = [part for parts in cut if parts for part, _ in parts if isinstance(part, str)]
    found = words.ids(texts) if words and texts else None
    if found is None:
        return [None] * len(rendered)
    ids = iter(found)
    return [None if parts is None else _joined(parts, ids, stops) for parts in cut]


def _is_whole(item: Rendered) -> bool:
    return item.pieces == (Piece(0, len(item.text)),)


Part = tuple[str | int, int]
"""A text or a control token's id; and 0 outside of turns, else the number of the turn, negative if it is not
trained on."""


def _between_control(item: Rendered, encoder: TextEncoder) -> list[Part] | None:
    """The text in parts that never join; None where a turn begins or ends in the midst of something."""
    text, parts, place, turn = item.text, list[Part](), 0, 0
    spans = iter([(span, n if span.trained else -n) for n, span in enumerate(item.spans, 1)])
    span, number = next(spans, (None, 0))
    matches = [*encoder.added_pattern.finditer(text), None]
    for match in matches:
        start, end = match.span() if match else (len(text), len(text))
        if span is not None and not turn and span.start <= start:
            if span.start != place and (text[span.start - 1] != "\n" or span.start < place):
                return None
            if text[span.start : span.start + 1].isspace():
                return None
            if span.start > place:
                parts.append((text[place : span.start], 0))
            place, turn = span.start, number
        if start > place:
            parts.append((text[place:start], turn))
        if match:
            parts.append((encoder.added[match[0]], turn))
        if span is not None and turn and end >= span.end:
            if not match or end != span.end:
                return None
            span, number = next(spans, (None, 0))
            turn = 0
        place = end
    return parts if span is None else None


def _joined(parts: Sequence[Part], found: Iterator[bytes], stops: Set[int]) -> Example | None:
    """The parts as tokens; `found` has the ids of each part that is a text, int32."""
    pieces: list[bytes] = []
    turns: dict[int, tuple[int, int]] = {}
    begin = 0
    for part, turn in parts:
        pieces.append(next(found) if isinstance(part, str) else part.to_bytes(4, sys.byteorder))
        end = begin + len(pieces[-1]) // 4
        if turn:
            turns[turn] = (turns.get(turn, (begin, 0))[0], end)
        begin = end
    ids = np.frombuffer(b"".join(pieces), dtype=np.int32)
    labels = np.full(len(ids), IGNORED, dtype=np.int32)
    for turn, (begin, end) in turns.items():
        if end - begin < 2 or int(ids[end - 1]) not in stops:
            return None
        if turn > 0:
            labels[begin:end] = ids[begin:end]
    labels[:1] = IGNORED  # nothing predicts the first token
    return Example(ids, labels)


def _made(answer: Answer | TemplateError) -> Rendered | TemplateError:
    return answer if isinstance(answer, TemplateError) else _rendered(answer)


def _rendered(answer: Answer) -> Rendered:
    spans = tuple(Span(*span) for span in answer["spans"])
    return Rendered(answer["text"], spans, tuple(Piece(*piece) for piece in answer["pieces"]))


def _as_templates_want(messages: Sequence[Message]) -> list[Message]:
    """Tool calls with their arguments as objects: OpenAI writes them as JSON in a string, which a template
    would write as a string in a string."""
    if not any(message.get("tool_calls") for message in messages):
        return list(messages)
    return [
        {**message, "tool_calls": [_parsed(call) for call in message["tool_calls"]]}
        if isinstance(message.get("tool_calls"), list)
        else message
        for message in messages
    ]


def _parsed(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        parsed = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": parsed}} if isinstance(parsed, dict) else call


def _cut(pieces: Sequence[Piece], cuts: Sequence[int]) -> tuple[Piece, ...]:
    """The pieces, cut further at these characters."""
    made = []
    for piece in pieces:
        edges = [piece.start, *(cut for cut in cuts if piece.start < cut < piece.end), piece.end]
        for start, end in zip(edges, edges[1:], strict=False):
            made.append(Piece(start, end, piece.literal, piece.continues or start != piece.start))
    return tuple(made)
