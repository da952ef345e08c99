"""Chat templates rendered where they can do no harm: a program of its own that gets texts and gives texts.

Run as `python -I sandbox.py`. A template comes with a model from anywhere, so it is rendered in Jinja's
immutable sandbox, in a process that has no environment and no more than MEMORY bytes, ROW_SECONDS of a core
and a bounded output for each row. It needs nothing but jinja2 and orjson: neither this package nor numpy is
loaded.

Settings and helpers must stay the same as in transformers' `apply_chat_template`, or a model would be
trained on other prompts than everyone else gives it; a test compares the two.

Requests and answers are JSON, each with a byte for who wrote it and its length (8 bytes, big-endian) before
it. A request holds `template`, `tokens` (bos_token, ... as text), `control` and `ends` (lists of tokens),
`seconds` (for a row), and `rows`, each a mapping of `messages`, `tools`, `asking` (write the generation
prompt) and `locate` (find the turns in it).
"""

import json
import re
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any, BinaryIO

import jinja2
import jinja2.debug  # Jinja loads it when a template fails, which may be when there is no memory left for it
import jinja2.exceptions
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import orjson

MEMORY = 512 << 20
"""Bytes of address space."""
ROW_SECONDS = 5.0
"""Time of a core for one row with all its turns. A machine that is busy elsewhere takes none of it."""
OUTPUT_CHARACTERS = 1 << 20
"""Characters that a template may write for a row, and OUTPUT_FACTOR times what the row holds."""
OUTPUT_FACTOR = 16
MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Noncharacters, of which one that the messages do not use breaks up control tokens in what a user wrote."""
PROBE = "Qq7probe"
QUICK, SLOW = b"o", b"j"
"""JSON as orjson writes and reads it, and as only Python's own can."""
SHOWN = 80
ANOTHER = "name another template"

Message = dict[str, Any]
Answer = dict[str, Any]


class Unusable(Exception):
    """The template cannot be used, or not with these messages."""

    def __init__(self, message: str, fix: str = ANOTHER, line: int | None = None) -> None:
        super().__init__(message)
        self.message, self.fix, self.line = message, fix, line

    def answer(self) -> Answer:
        return {"error": self.message, "fix": self.fix, "line": self.line}


# -- Jinja as transformers sets it up


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
def _compiled(text: str) -> jinja2.Template:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _raise, "strftime_now": _strftime_now, "namespace": _Namespace}
    try:
        return environment.from_string(text)
    except jinja2.TemplateSyntaxError as error:
        fix = "correct the template or name a built-in one"
        raise Unusable(f"not valid Jinja: {error.message}", fix, error.lineno) from error
    except (RecursionError, ValueError, SyntaxError, OverflowError) as error:
        raise Unusable(f"not valid Jinja: {error}", "correct the template or name a built-in one") from error


@lru_cache(maxsize=64)
def _pattern(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """Finds any of the tokens, the longest first."""
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or "(?!)")


# -- one conversation


class _Row:
    """One conversation and the template that writes it."""

    def __init__(self, request: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        self.template = _compiled(request["template"])
        self.tokens: Mapping[str, str] = request["tokens"]
        self.control = _pattern(tuple(request["control"]))
        self.ends = request["ends"]
        self.end = _pattern(tuple(self.ends))
        self.tools: list[Any] | None = row.get("tools") or None
        self.messages: list[Message] = row["messages"]
        self.asking: bool = row["asking"]
        texts = [*_texts(self.messages), *_texts(self.tools)]
        self.room = OUTPUT_CHARACTERS + OUTPUT_FACTOR * sum(map(len, texts))
        self.mark = ""
        if any(self.control.search(text) for text in texts):
            self._break_up(texts)

    def render(self, messages: Sequence[Message], asking: bool) -> str:
        """What the template writes, no more than its room."""
        pieces: list[str] = []
        left = self.room
        try:
            for piece in self.template.generate(
                messages=messages, tools=self.tools, documents=None, add_generation_prompt=asking,
                **self.tokens,
            ):  # fmt: skip
                left -= len(piece)
                if left < 0:
                    raise Unusable(f"the template writes more than {self.room:,} characters for a row")
                pieces.append(piece)
            return "".join(pieces)
        except jinja2.TemplateError as error:
            said = error.message or type(error).__name__
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            said = str(error)
        roles = ", ".join(str(message.get("role")) for message in messages)
        fix = "order the turns as the template wants them, or name another template"
        raise Unusable(f"the template refuses the turns {roles}: {said}", fix)

    def answer(self, locate: bool) -> Answer:
        """The text, and if they are wanted where the assistant's turns lie in it and how it is cut."""
        text = self.render(self.messages, self.asking)
        turns = [n for n, message in enumerate(self.messages) if message.get("role") == "assistant"]
        spans = [self._span(number, text) for number in turns] if locate else []
        pieces = self._pieces(text)
        if self.mark:
            spans = [
                [start - text.count(self.mark, 0, start), end - text.count(self.mark, 0, end), trained]
                for start, end, trained in spans
            ]
            text = text.replace(self.mark, "")
        return {"text": text, "spans": spans, "pieces": pieces}

    # -- where turns lie

    def _span(self, number: int, text: str) -> list[int]:
        """One assistant turn's characters to the end of its end-of-turn token, and whether it is trained."""
        message = self.messages[number]
        prompt = self.render(self.messages[:number], True)
        if not text.startswith(prompt):
            raise Unusable(
                f"what the template writes before turn {number + 1} when asked for an answer is not what it "
                f"writes there when the answer is known ({_shown(prompt[-40:])})"
            )
        end = self.end.search(text, len(prompt), self._bound(number, text))
        if end is None:
            raise Unusable(
                f"turn {number + 1} has no end-of-turn token ({' or '.join(sorted(self.ends))})",
                "name a template that ends every assistant turn",
            )
        if message["content"].split("</think>")[-1].strip() not in text[len(prompt) : end.start()]:
            raise Unusable(f"the template changes the text of turn {number + 1}")
        return [len(prompt), end.end(), message.get("weight") != 0]

    def _bound(self, number: int, text: str) -> int:
        """Where the next turn's text begins at the latest; the end of the text for the last turn."""
        messages = self.messages
        if number + 1 == len(messages):
            return len(text)
        probe = PROBE
        while probe in text:  # someone may have written it
            probe += "q"
        after = messages[number + 1] | {"content": probe}
        probed = self.render([*messages[: number + 1], after, *messages[number + 2 :]], False)
        bound = probed.find(probe)
        if bound < 0 or text[:bound] != probed[:bound]:
            raise Unusable(f"turn {number + 2} cannot be told from turn {number + 1}")
        return bound

    # -- what a user wrote

    def _break_up(self, texts: Sequence[str]) -> None:
        """Put a mark into each control token that a user wrote, so that it is none."""
        mark = next((mark for mark in MARKS if not any(mark in text for text in texts)), None)
        if mark is None:
            raise Unusable("the row uses all 32 of Unicode's noncharacters", "remove them")

        def change(text: str) -> str:
            return self.control.sub(lambda match: match[0][0] + mark + match[0][1:], text)

        self.mark = mark
        self.messages, self.tools = _mapped(self.messages, change), _mapped(self.tools, change)

    def _pieces(self, text: str) -> list[list[int]]:
        """The text without marks, cut so that what stands between two of the template's own control tokens
        is literal where it held a mark."""
        if not self.mark:
            return [[0, len(text), False]]
        pieces: list[list[int]] = []
        place = done = removed = 0
        edges = [match.span() for match in self.control.finditer(text)]
        for start, end in [*edges, (len(text), len(text))]:
            marks = text.count(self.mark, place, start)
            if marks:
                pieces.append([done, place - removed, False])
                pieces.append([place - removed, start - removed - marks, True])
                removed += marks
                done = start - removed
            place = end
        pieces.append([done, len(text) - removed, False])
        return [piece for piece in pieces if piece[1] > piece[0]]


def _shown(text: str) -> str:
    quoted = repr(text) if text.isprintable() else ascii(text)
    return quoted if len(quoted) <= SHOWN else f"{quoted[:SHOWN]}..."


def _texts(value: Any) -> list[str]:
    """All texts in it, the names of fields too: a template may write those."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [*value, *(text for item in value.values() for text in _texts(item))]
    return [text for item in value for text in _texts(item)] if isinstance(value, list) else []


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list) else value


# -- the program


def answer(request: Mapping[str, Any], row: Mapping[str, Any]) -> Answer:
    """One row's answer, or why there is none."""
    signal.setitimer(signal.ITIMER_PROF, request["seconds"])  # nobody catches SIGPROF: it ends this process
    try:
        return _Row(request, row).answer(row["locate"])
    except Unusable as error:
        return error.answer()
    except MemoryError:
        return Unusable(f"the template needs more than {MEMORY >> 20} MiB of memory for a row").answer()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def write_frame(stream: BinaryIO, document: Any) -> None:
    # Times in a table's column become text: no template could write them otherwise.
    try:
        kind, data = QUICK, orjson.dumps(document, default=str, option=orjson.OPT_PASSTHROUGH_DATETIME)
    except TypeError:
        # Long integers, and half surrogates: they are refused by the tokenizer's side, with the row's name.
        kind = SLOW
        data = json.dumps(document, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")
    stream.write(kind + len(data).to_bytes(8, "big") + data)
    stream.flush()


def read_frame(stream: BinaryIO) -> Any:
    """The next document. Raises EOFError if the other side has gone."""
    head = stream.read(9)
    data = stream.read(int.from_bytes(head[1:], "big")) if len(head) == 9 else b""
    if not data:
        raise EOFError
    return orjson.loads(data) if head[:1] == QUICK else json.loads(data.decode("utf-8", "surrogatepass"))


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(ValueError, OSError):  # macOS has no such limit; time and output are limited there, too
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            request = read_frame(sys.stdin.buffer)
            write_frame(sys.stdout.buffer, [answer(request, row) for row in request["rows"]])


if __name__ == "__main__":
    main()
