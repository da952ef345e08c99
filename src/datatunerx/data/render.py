"""Asking the sandbox: one child process renders every template of this process, batch by batch.

What a template does to its child - runs for ever, eats memory, dies - becomes a TemplateError for the row
that made it do so; the child is started again.
"""

import atexit
import os
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from signal import SIGPROF, Signals
from typing import Any, BinaryIO, cast

from datatunerx.data import sandbox
from datatunerx.data.errors import TemplateError

BATCH_CHARACTERS = 4 << 20
"""About how much text is sent at a time: the sandbox has little memory."""
FATAL_ROWS = 3
"""Rows at which the sandbox may die before its template is given up: each costs seconds."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One thing to render."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Any] | None = None
    asking: bool = False
    """Whether the generation prompt is written."""
    locate: bool = False
    """Whether the assistant's turns are looked for."""


Answer = dict[str, Any]


def render(
    text: str,
    messages: Sequence[Mapping[str, Any]],
    tokens: Mapping[str, str],
    *,
    tools: Sequence[Any] | None = None,
    add_generation_prompt: bool = False,
) -> str:
    """The messages as the template writes them. `tokens` are bos_token, eos_token, ... as text."""
    (made,) = answers(text, tokens, [Asked(messages, tools, add_generation_prompt)])
    if isinstance(made, TemplateError):
        raise made
    rendered: str = made["text"]
    return rendered


def answers(
    text: str,
    tokens: Mapping[str, str],
    rows: Sequence[Asked],
    control: Collection[str] = (),
    ends: Collection[str] = (),
    source: str = "",
) -> list[Answer | TemplateError]:
    """For each row its `text`, `spans` and `pieces`, or why it has none.

    `control` are tokens that are only text where a user wrote them, `ends` those that end a turn.
    Raises TemplateError if the template kills its sandbox again and again.
    """
    name = f"chat template ({source})" if source else "chat template"
    request = {"template": text, "tokens": dict(tokens), "control": sorted(control), "ends": sorted(ends)}
    child, made = _child(), []
    deaths = 0
    for batch in _batches(rows):
        try:
            made += child.ask(request, batch)
            continue
        except _Died as death:
            if len(batch) == 1:
                made.append(death.answer())
                continue
        for row in batch:  # one of them: each is asked alone, so that it is known which
            try:
                made += child.ask(request, [row])
            except _Died as death:
                deaths += 1
                if deaths >= FATAL_ROWS:
                    raise _error(death.answer(), name) from death
                made.append(death.answer())
    return [_error(one, name) if "error" in one else one for one in made]


def _error(answer: Answer, name: str) -> TemplateError:
    return TemplateError(answer["error"], name, answer["line"], fix=answer["fix"])


def _batches(rows: Sequence[Asked]) -> list[list[Asked]]:
    batches: list[list[Asked]] = []
    room = 0
    for row in rows:
        size = sum(len(str(message.get("content"))) for message in row.messages)
        if room < size or not batches:
            batches.append([])
            room = BATCH_CHARACTERS
        batches[-1].append(row)
        room -= size
    return batches


class _Died(Exception):
    """The sandbox ended while it was rendering."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def answer(self) -> Answer:
        if self.code == -SIGPROF:
            said = f"the template takes more than {sandbox.ROW_SECONDS:g} s to write a row"
        else:
            how = Signals(-self.code).name if self.code < 0 else f"exit code {self.code}"
            said = f"the template ended the process that renders it ({how})"
        return sandbox.Unusable(said).answer()


class _Child:
    """The sandbox's process, started when it is first asked, and again after it died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, request: Mapping[str, Any], rows: Sequence[Asked]) -> list[Answer]:
        """Raises _Died; TemplateError for messages that no template could be given."""
        wanted = [
            {"messages": row.messages, "tools": row.tools, "asking": row.asking, "locate": row.locate}
            for row in rows
        ]
        with self._lock:
            process = self._running()
            stdin, stdout = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
            try:
                sandbox.write_frame(stdin, {**request, "seconds": sandbox.ROW_SECONDS, "rows": wanted})
                made: list[Answer] = sandbox.read_frame(stdout)
            except (EOFError, BrokenPipeError):
                self._process = None
                raise _Died(_ended(process)) from None
            except BaseException:  # interrupted halfway: the next answer would be the last question's
                self._process = None
                _ended(process)
                raise
            return made

    def close(self) -> None:
        """End the process; should it be killed itself, its child ends as its input does."""
        if self._process is not None and self._owner == os.getpid():
            _ended(self._process)
            self._process = None

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._owner != os.getpid():  # a fork must not share its parent's child
            self._process = None
        elif self._process is not None and self._process.poll() is not None:
            _ended(self._process)
            self._process = None
        if self._process is None:
            self._process, self._owner = _started(), os.getpid()
        return self._process


@cache
def _child() -> _Child:
    child = _Child()
    atexit.register(child.close)
    return child


def _started() -> "subprocess.Popen[bytes]":
    # -I: nothing of ours is on its path; no environment: nothing of ours is in its memory.
    return subprocess.Popen(
        [sys.executable, "-I", str(Path(sandbox.__file__))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={}, cwd="/",
    )  # fmt: skip


def _ended(process: "subprocess.Popen[bytes]") -> int:
    """Its exit code, once it is gone."""
    process.kill()  # nothing if it has died already
    code = process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            with suppress(BrokenPipeError):  # for what was not written yet
                stream.close()
    return code
