"""Draws an experiment while it runs: a bar per job on a terminal, a line now and then elsewhere."""

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from datatunerx.cli.progress import JobLine, Scene, blocked, changed, job_lines, noticed
from datatunerx.cli.text import MISSING, duration
from datatunerx.resources.enums import JobPhase

PLAIN_SECONDS = 10.0
"""Between two plain lines of one job whose phase stays the same."""
ROOMY = 100
"""Columns of a terminal in which there is room to say what a job does."""
_COLORS = {
    JobPhase.SUCCEEDED: "green", JobPhase.FAILED: "red", JobPhase.STOPPED: "yellow",
    JobPhase.SUSPENDED: "yellow", JobPhase.FINETUNING: "cyan", JobPhase.SCORING: "magenta",
}  # fmt: skip


class Bars:
    """A progress bar per job: step, loss, tokens/s, ETA, phase."""

    def __init__(self, console: Console) -> None:
        def text(template: str, width: int, **more: bool) -> TextColumn:
            return TextColumn(template, table_column=Column(min_width=width, no_wrap=True, **more))  # type: ignore[arg-type]

        roomy = console.width >= ROOMY
        columns = [
            text("{task.description}", 8),
            text("{task.fields[phase]}", 10),
            BarColumn(bar_width=24 if roomy else 8),
            text("{task.fields[steps]}", 5),
            text("loss {task.fields[loss]}", 9),
            text("{task.fields[speed]} tok/s", 8),
            text("ETA {task.fields[eta]}", 8),
        ]
        if roomy:
            doing = Column(no_wrap=True, overflow="ellipsis")
            columns.append(TextColumn("[dim]{task.fields[doing]}", table_column=doing))
        self._progress = Progress(*columns, console=console, refresh_per_second=4)
        self._tasks: dict[str, TaskID] = {}
        self._said: set[str] = set()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, scene: Scene) -> None:
        for reason in (*blocked(scene), *noticed(scene)):
            if reason not in self._said:
                self._said.add(reason)
                self._progress.console.print(Text(reason, style="yellow"))
        for line in job_lines(scene):
            if line.job not in self._tasks:
                self._tasks[line.job] = self._progress.add_task(escape(line.job), total=None, **_fields(line))
            self._progress.update(
                self._tasks[line.job], total=line.steps or None, completed=line.step, **_fields(line)
            )


class Lines:
    """One line when a job's phase changes, and one each few seconds while it trains."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phases: dict[str, str] = {}
        self._last: dict[str, tuple[float, str]] = {}
        self._said: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, scene: Scene) -> None:
        for reason in (*blocked(scene), *noticed(scene)):
            if reason not in self._said:
                self._said.add(reason)
                self._say(reason)
        lines = job_lines(scene)
        moved = {line.job for line in changed(self._phases, lines)}
        now = time.monotonic()
        for line in lines:
            when, said = self._last.get(line.job, (0.0, ""))
            plain = line.plain()
            due = now - when >= PLAIN_SECONDS and plain != said
            if line.job in moved or due:
                self._last[line.job] = (now, plain)
                self._say(plain)
            self._phases[line.job] = line.phase

    def _say(self, line: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        self._console.print(Text(f"{stamp}  {line}"), soft_wrap=True)


def screen(console: Console) -> Bars | Lines:
    """Bars where they can move, lines elsewhere."""
    return Bars(console) if console.is_terminal else Lines(console)


def _fields(line: JobLine) -> dict[str, Any]:
    color = _COLORS.get(JobPhase(line.phase), "")
    training = line.phase == JobPhase.FINETUNING
    return {
        "phase": f"[{color}]{line.phase}[/]" if color else line.phase,
        "steps": f"{line.step}/{line.steps}" if line.steps else MISSING,
        "loss": MISSING if line.loss is None else f"{line.loss:.2f}",
        "speed": f"{line.tokens_per_second:.0f}" if training and line.tokens_per_second else MISSING,
        "eta": duration(line.eta_seconds) if training else MISSING,
        "doing": escape(line.doing.replace("\n", " ")),
    }
