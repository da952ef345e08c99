"""The fused loop: many jobs, one frozen base, one stream of tokens.

Each tick passes chunks of the lanes, longest remaining job first; a lane whose step is whole updates its
adapter, tells what happened, and saves, evaluates or leaves if that is due. A job that fails or is stopped
leaves alone.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from datatunerx import storage
from datatunerx.modeling.adapters import Adapter, UnknownTarget
from datatunerx.modeling.base import Base
from datatunerx.modeling.generate import Decoding, Prompt, generate
from datatunerx.modeling.peft_format import UnreadableAdapter, load_adapter
from datatunerx.resources.enums import FinetunePhase, StopMode
from datatunerx.resources.finetune import Progress, Sample
from datatunerx.runs.commands import Command, Verb
from datatunerx.runs.events import Event, EventType, JobOutcome
from datatunerx.training import checkpoints
from datatunerx.training.lanes import Chunk, Job, Lane, Point, choose, make_window
from datatunerx.training.memory import estimate, free_bytes, in_gib, memory_peak
from datatunerx.training.optimizer import clip, update
from datatunerx.training.passes import mean_nll, train_pass, validation_loss
from datatunerx.training.patience import compare, how_it_ended, is_spent
from datatunerx.training.schedule import is_due, learning_rate, save_interval
from datatunerx.training.shortage import within_memory
from datatunerx.training.state import CannotResume, lane_files, open_lane, passed_over

OnEvent = Callable[[Event], None]
PollCommands = Callable[[], Iterable[Command]]
Scores = Callable[[Mapping[str, Adapter], Callable[[], None]], Mapping[str, float | None]]
"""How good the answers of some jobs' adapters are, by job; None where that cannot be said. What the second
argument, called between passes, raises ends the work."""

STEPS_WITHOUT_LABELS = 3
DISK_RETRY_SECONDS = 2.0
SAMPLE_TOKENS = 64


class _Leaving(Exception):
    """The worker was asked to leave in the middle of something that can be done again."""


@dataclass(frozen=True)
class Trained:
    """How a job left its lane, and its adapter: as it is in the checkpoint that was told where the job ended
    well, else as it was then; None if it never had one."""

    outcome: JobOutcome
    adapter: Adapter | None


def train(
    base: Base,
    jobs: Sequence[Job],
    *,
    on_event: OnEvent,
    poll_commands: PollCommands = tuple,
    leaving: Callable[[], bool] = lambda: False,
    score: Scores = lambda adapters, look_up: {},
    capacity: int = 1024,
    stop_ids: Sequence[int] = (),
    decode: Callable[[list[int]], str] = str,
    base_name: str = "",
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Trained]:
    """Train every job to its end and return how each ended.

    `poll_commands` gives the commands that arrived since it was last asked; it is asked after each tick.
    `leaving` says whether a command to suspend every job is about to come: an evaluation is then broken off
    between two passes, and made good when the job is taken up again. `score` is asked at the evaluations of
    the jobs that stop early by it. `stop_ids` and `decode` make the sample answers; `base_name` is what PEFT
    shows as the base of a saved adapter.
    """
    base_name = base_name or str(base.path)
    loop = _Loop(base, capacity, on_event, leaving, score, stop_ids, decode, base_name, clock)
    lanes = [lane for job in jobs if (lane := loop.open(job)) is not None]
    loop.rehearse([lane for lane in lanes if lane.outcome is None])
    loop.first_samples([lane for lane in lanes if lane.step == 0])
    while any(lane.outcome is None for lane in lanes):
        open_lanes = [lane for lane in lanes if lane.outcome is None]
        ready = [lane for lane in open_lanes if loop.ready(lane)]
        if ready:
            loop.tick(ready)
        for command in poll_commands():
            loop.obey(command, lanes)
        if not ready:
            sleep(DISK_RETRY_SECONDS / 4)
    loop.trained.update({lane.name: Trained(_ended(lane), lane.adapter) for lane in lanes})
    return loop.trained


def _ended(lane: Lane) -> JobOutcome:
    assert lane.outcome is not None
    return lane.outcome


class _Loop:
    """What the steps of the loop share."""

    def __init__(
        self,
        base: Base,
        capacity: int,
        on_event: OnEvent,
        leaving: Callable[[], bool],
        score: Scores,
        stop_ids: Sequence[int],
        decode: Callable[[list[int]], str],
        base_name: str,
        clock: Callable[[], float],
    ) -> None:
        self.base, self.capacity, self.on_event, self.clock = base, capacity, on_event, clock
        self.leaving, self.score = leaving, score
        self.stop_ids, self.decode, self.base_name = stop_ids, decode, base_name
        self.trained: dict[str, Trained] = {}

    def open(self, job: Job) -> Lane | None:
        """The job's lane; None, with the reason told, if it cannot have one."""
        try:
            lane = open_lane(self.base, job, self.capacity)
        except (UnknownTarget, UnreadableAdapter, CannotResume, ValueError) as error:
            outcome = JobOutcome(phase=FinetunePhase.FAILED, reason=type(error).__name__, message=str(error))
            self.trained[job.name] = Trained(outcome, None)
            self.on_event(Event(type=EventType.JOB, job=job.name, outcome=outcome))
            return None
        for message in passed_over(lane):
            self.on_event(Event(type=EventType.WARNING, job=job.name, step=lane.step, message=message))
        if lane.step:
            self.on_event(
                Event(
                    type=EventType.ACTIVITY,
                    job=job.name,
                    step=lane.step,
                    activity=f"resumed at step {lane.step}",
                )
            )
        if lane.evaluation_owed:
            self._evaluate_in_turn(lane, {})
        if lane.step >= lane.course.steps and lane.evaluation_owed and lane.outcome is None:
            self._leave(lane, FinetunePhase.SUSPENDED)
        self._end_if_done(lane)
        return lane

    def _leave(self, lane: Lane, phase: FinetunePhase, reason: str = "", message: str = "") -> None:
        saved = self._kept(lane) if phase is FinetunePhase.SUCCEEDED else checkpoints.latest(lane.job.folder)
        lane.window = None
        lane.adapter.grad.zero_()
        lane.outcome = JobOutcome(
            phase=phase,
            reason=reason,
            message=message,
            step=lane.step,
            steps=lane.course.steps,
            checkpoint=None if saved is None else saved.reference,
        )
        self.on_event(Event(type=EventType.JOB, job=lane.name, step=lane.step, outcome=lane.outcome))

    def _kept(self, lane: Lane) -> checkpoints.Checkpoint | None:
        """What a job that ended well has made: where it could stop early its best, else its last.

        The lane's adapter becomes what that checkpoint holds: it is what will be scored.
        """
        folder, best_step = lane.job.folder, lane.best_step
        if lane.job.early_stop is None or best_step is None or best_step == lane.step:
            return checkpoints.latest(folder)
        best = checkpoints.intact(checkpoints.checkpoint_path(folder, best_step))
        if best is None:
            message = f"the best checkpoint, of step {best_step}, is damaged; the last one is kept"
            self.on_event(Event(type=EventType.WARNING, job=lane.name, step=lane.step, message=message))
            return checkpoints.latest(folder)
        lane.adapter = load_adapter(best.path, self.base, lane.name)
        return best

    def _end_if_done(self, lane: Lane) -> None:
        done = lane.step >= lane.course.steps or is_spent(lane)
        if done and lane.outcome is None and not lane.evaluation_owed:
            self._leave(lane, FinetunePhase.SUCCEEDED, *how_it_ended(lane))

    def ready(self, lane: Lane) -> bool:
        """Whether the lane can train now; tries again what a full disk refused."""
        if lane.blocked_until is None:
            return True
        if self.clock() >= lane.blocked_until:
            lane.blocked_until = None
            if lane.step_is_open:
                self._finish_step(lane)
            if lane.blocked_until is None and lane.pending is not None:
                command, lane.pending = lane.pending, None
                self.obey(command, [lane])
        return lane.blocked_until is None and lane.outcome is None

    def rehearse(self, lanes: Sequence[Lane]) -> None:
        """Say what memory this takes and pass the longest rows once, so that one too long fails now."""
        if not lanes:
            return
        longest = max(len(ids) for lane in lanes for ids, _ in lane.job.rows)
        sizes = [lane.adapter.flat.numel() for lane in lanes]
        need = estimate(self.base, sizes, max(longest, self.capacity), longest)
        free = free_bytes(self.base.device)
        told = f"about {in_gib(need.total)} of memory are needed, {in_gib(free)} are free"
        kind = EventType.ACTIVITY if need.total <= free else EventType.WARNING
        self.on_event(
            Event(type=kind, **{"activity" if kind is EventType.ACTIVITY else "message": told})  # type: ignore[arg-type]
        )
        # the base is shared: the longest row of all jobs stands for every job
        trainer = max(lanes, key=lambda lane: max(len(ids) for ids, _ in lane.job.rows))
        row = max(range(len(trainer.job.rows)), key=lambda n: len(trainer.job.rows[n][0]))
        window = trainer.window = make_window(trainer.job.rows, [row], self.capacity)
        _, shortage = within_memory(lambda: train_pass(self.base, [(trainer, window.chunks)]))
        trainer.window = None
        trainer.adapter.grad.zero_()
        if shortage:
            self._too_long(trainer, trainer.row_name(row), longest, shortage)
        self._rehearse_validation([lane for lane in lanes if lane.outcome is None and lane.job.validate])

    def _rehearse_validation(self, lanes: Sequence[Lane]) -> None:
        if not lanes:
            return
        lane = max(lanes, key=lambda one: max(len(ids) for ids, _ in one.job.validate))
        rows = lane.job.validate
        row = max(range(len(rows)), key=lambda n: len(rows[n][0]))
        _, shortage = within_memory(lambda: mean_nll(self.base, lane, [rows[row]]))
        if shortage:
            self._too_long(lane, f"row {row + 1} of the validate split", len(rows[row][0]), shortage)

    def _too_long(self, lane: Lane, name: str, tokens: int, error: Exception) -> None:
        peak, first = memory_peak(self.base.device), _first_line(error)
        why = f"one row of {tokens} tokens ({name}) does not fit: peak {peak}; set cutoffLength to "
        why += f"{tokens // 2} or less. {first}"
        self._leave(lane, FinetunePhase.FAILED, "OutOfMemory", why)

    def tick(self, lanes: Sequence[Lane]) -> None:
        chosen = choose(lanes, self.capacity)
        start = self.clock()
        _, shortage = within_memory(lambda: train_pass(self.base, chosen))
        if shortage:
            self._make_do(chosen, shortage)
            return
        self._share_time(chosen, self.clock() - start)
        whole = [lane for lane, _ in chosen if lane.open_window().is_whole]
        stepped = [lane for lane in whole if self._step(lane)]
        scores = self._scores([lane for lane in stepped if self._due(lane)[1]])
        for lane in stepped:
            self._finish_step(lane, scores)

    def _share_time(self, chosen: Sequence[tuple[Lane, Sequence[Chunk]]], seconds: float) -> None:
        tokens = [sum(chunk.tokens for chunk in chunks) for _, chunks in chosen]
        for (lane, _), count in zip(chosen, tokens, strict=True):
            lane.seconds += seconds * count / sum(tokens)
            lane.tokens_since += count
            lane.tokens += count

    def _make_do(self, chosen: Sequence[tuple[Lane, Sequence[Chunk]]], shortage: Exception) -> None:
        """Memory ran out: start the steps of this tick again with half the width, or give up a single row."""
        tokens = sum(chunk.tokens for _, chunks in chosen for chunk in chunks)
        rows = sum(len(chunk.rows) for _, chunks in chosen for chunk in chunks)
        if rows == 1:
            lane, chunks = chosen[0]
            self._too_long(lane, lane.row_name(chunks[0].rows[0]), tokens, shortage)
            return
        self.capacity = max(1, min(self.capacity, tokens) // 2)
        for lane, _ in chosen:
            lane.adapter.grad.zero_()
            lane.tokens -= sum(c.tokens for c in lane.open_window().chunks[: lane.open_window().passed])
            lane.capacity, lane.window = min(lane.capacity, self.capacity), None
        self.on_event(
            Event(
                type=EventType.WARNING,
                message=f"memory ran out with {tokens} tokens in one pass; going on with {self.capacity} "
                "(the rows of a step stay the same)",
            )
        )

    def _step(self, lane: Lane) -> bool:
        """The optimizer step of a lane whose chunks have all passed; whether the lane is still there."""
        window, parameters = lane.open_window(), lane.job.parameters
        rows = [row for chunk in window.chunks for row in chunk.rows]
        norm = clip(lane.adapter.grad, parameters.max_grad_norm)
        if not (math.isfinite(norm) and math.isfinite(window.loss)):
            self._leave(
                lane, FinetunePhase.FAILED, "NonFiniteLoss", _non_finite(lane, rows, window.loss, norm)
            )
            return False
        rate = learning_rate(parameters, lane.step, lane.course.steps)
        lane.steps_without_labels = 0 if window.labels else lane.steps_without_labels + 1
        if window.labels:
            update(lane.adapter.flat, lane.adapter.grad, lane.moments, parameters, rate)
        lane.adapter.grad.zero_()
        lane.window, lane.eval_loss, lane.score = None, None, None
        lane.step += 1
        if lane.step % parameters.log_every == 0 or lane.step == lane.course.steps:
            values = {"learningRate": rate}
            if window.labels:
                values |= {"loss": window.loss, "gradNorm": norm}
            self._note(lane, values)
            self._progress(lane)
        if lane.steps_without_labels >= STEPS_WITHOUT_LABELS:
            names = lane.row_list(rows)
            self._leave(
                lane,
                FinetunePhase.FAILED,
                "NoTrainableTokens",
                f"{STEPS_WITHOUT_LABELS} steps in a row had no token to learn from; the last had {names}. "
                "Raise cutoffLength, or look at the rows' assistant turns",
            )
            return False
        return True

    def _due(self, lane: Lane) -> tuple[bool, bool]:
        """Whether a checkpoint and an evaluation are due after the present step."""
        parameters, steps = lane.job.parameters, lane.course.steps
        save = is_due(lane.step, save_interval(parameters, steps), steps)
        return save, is_due(lane.step, parameters.eval_every, steps) or (save and not parameters.eval_every)

    def _finish_step(self, lane: Lane, scores: Mapping[str, float | None] | None = None) -> None:
        """What is due after a step. Called again after a full disk, so it must not do a thing twice."""
        again, lane.step_is_open = lane.step_is_open, True
        save_due, eval_due = self._due(lane)
        if eval_due and not again:
            self._evaluate_in_turn(lane, scores or {})
        if lane.job.early_stop and (lane.best_step == lane.step or is_spent(lane)):
            save_due = True  # what is best must be there in the end, and a resumed job know that it had ended
        if save_due and lane.outcome is None:
            if not self._save(lane):
                return
            if not self.leaving():
                self._answer([lane], lane.step)
        lane.step_is_open = False
        self._end_if_done(lane)

    def _note(self, lane: Lane, values: dict[str, float]) -> None:
        lane.history.append(Point(lane.step, values))
        self.on_event(Event(type=EventType.METRICS, job=lane.name, step=lane.step, values=values))

    def _progress(self, lane: Lane, activity: str = "training") -> None:
        speed = lane.tokens_since / lane.seconds if lane.seconds > 0 else None
        progress = Progress(
            step=lane.step,
            steps=lane.course.steps,
            epoch=lane.course.epoch_after(lane.step),
            tokens=lane.tokens,
            tokens_per_second=speed,
            eta_seconds=lane.remaining / speed if speed else None,
            activity=activity,
        )
        self.on_event(Event(type=EventType.PROGRESS, job=lane.name, step=lane.step, progress=progress))

    def _evaluate_in_turn(self, lane: Lane, scores: Mapping[str, float | None]) -> None:
        """An evaluation that was due: it counts for what is best, and for how long the job waits."""
        self._evaluate(lane, scores)
        if not lane.evaluation_owed:
            compare(lane)

    def _evaluate(self, lane: Lane, scores: Mapping[str, float | None]) -> None:
        """Measure the lane as it is; a score that is in `scores` already is not measured again."""
        if not lane.job.validate:
            return
        lane.evaluation_owed = True
        try:
            if lane.stops_by_score and lane.name not in scores:
                mine = {lane.name: lane.adapter}
                found, shortage = within_memory(lambda: self.score(mine, self._look_up))
                if shortage:
                    self._lack_memory(lane, "answering validate rows", "maxNewTokens", shortage)
                    return
                scores = found or {}
            loss, shortage = within_memory(lambda: validation_loss(self.base, lane, self._look_up))
        except _Leaving:
            return
        lane.evaluation_owed = False
        if shortage:
            self._lack_memory(lane, "measuring the loss on the validate split", "cutoffLength", shortage)
            return
        lane.score = scores.get(lane.name)
        if loss is not None and math.isfinite(loss):
            lane.eval_loss = loss
        else:
            why = "no token of the validate split carries loss"
            message = why if loss is None else "the loss on the validate split is not a number"
            self.on_event(Event(type=EventType.WARNING, job=lane.name, step=lane.step, message=message))
        measured = {"evalLoss": lane.eval_loss, "evalScore": lane.score}
        if values := {name: value for name, value in measured.items() if value is not None}:
            self._note(lane, values)

    def _scores(self, lanes: Sequence[Lane]) -> Mapping[str, float | None]:
        """How good the answers are that the lanes which stop by it give, made in batches of all of them.

        What does not fit together, or is broken off, is left to each by itself.
        """
        asked = {lane.name: lane.adapter for lane in lanes if lane.stops_by_score}
        try:
            found, _ = within_memory(lambda: self.score(asked, self._look_up)) if asked else ({}, None)
        except _Leaving:
            return {}
        return found or {}

    def _look_up(self) -> None:
        if self.leaving():
            raise _Leaving

    def _save(self, lane: Lane) -> bool:
        """Write a checkpoint; False if it could not be: the lane then waits for space, or has left."""
        fresh = checkpoints.intact(checkpoints.checkpoint_path(lane.job.folder, lane.step)) is None
        files = lane_files(lane, self.base_name)
        try:
            saved = checkpoints.save(
                lane.job.folder, lane.step, files, eval_loss=lane.eval_loss, score=lane.score
            )
            checkpoints.prune(lane.job.folder, lane.job.parameters.keep_checkpoints, lane.best_step)
        except (OSError, storage.StorageError) as error:
            if storage.is_disk_full(error):
                self._block(lane, sum(len(content) for content in files.values()))
            else:
                why = f"the checkpoint of step {lane.step} could not be written: {error}"
                self._leave(lane, FinetunePhase.FAILED, "CannotSave", why)
            return False
        lane.paused = False
        if fresh:
            self.on_event(
                Event(type=EventType.CHECKPOINT, job=lane.name, step=lane.step, checkpoint=saved.reference)
            )
        return True

    def _block(self, lane: Lane, need: int) -> None:
        lane.blocked_until = self.clock() + DISK_RETRY_SECONDS
        if not lane.paused:
            message = f"DiskFull: no space for the {need:,} bytes of a checkpoint in {lane.job.folder}; "
            message += "free some"
            self.on_event(Event(type=EventType.WARNING, job=lane.name, step=lane.step, message=message))
        lane.paused = True
        # told at each try: the disk that is full may be the one that holds the events
        self._progress(lane, "paused: DiskFull")

    def first_samples(self, lanes: Sequence[Lane]) -> None:
        self._answer([lane for lane in lanes if lane.outcome is None], 0)

    def _answer(self, lanes: Sequence[Lane], step: int) -> None:
        asked = [(lane, sample) for lane in lanes for sample in lane.job.samples]
        # a new adapter changes nothing: at step 0 one answer of the base serves all jobs
        ways = [
            (None if step == 0 and lane.job.start_from is None else lane.adapter, tuple(sample.ids))
            for lane, sample in asked
        ]
        distinct = {(id(adapter), ids): Prompt(ids, adapter) for adapter, ids in ways}
        prompts = list(distinct.values())
        made, shortage = within_memory(
            lambda: generate(self.base, prompts, self.stop_ids, Decoding(SAMPLE_TOKENS))
        )
        if shortage and len(lanes) > 1:
            for lane in lanes:
                self._answer([lane], step)
            return
        if shortage:
            self._lack_memory(lanes[0], "answering the sample prompts", "the prompts' length", shortage)
            return
        answers = dict(zip(distinct, made or (), strict=True))
        for (lane, sample), (adapter, ids) in zip(asked, ways, strict=True):
            text = self.decode(answers[id(adapter), ids].ids)
            told = Sample(step=step, prompt=sample.text, answer=text)
            self.on_event(Event(type=EventType.SAMPLE, job=lane.name, step=step, sample=told))

    def _lack_memory(self, lane: Lane, doing: str, setting: str, error: Exception) -> None:
        why = f"memory ran out while {doing}: peak {memory_peak(self.base.device)}; lower {setting}. "
        self._leave(lane, FinetunePhase.FAILED, "OutOfMemory", why + _first_line(error))

    def obey(self, command: Command, lanes: Sequence[Lane]) -> None:
        """Do what was asked of a lane between two of its passes. A lane that has left is past asking."""
        lane = next((one for one in lanes if one.name == command.job and one.outcome is None), None)
        if lane is None:
            return
        at = f"step {lane.step}"
        if command.verb is Verb.EVALUATE:
            self._evaluate(lane, {})
        elif command.verb is Verb.STOP and command.mode is StopMode.DISCARD:
            self._leave(lane, FinetunePhase.STOPPED, "Stopped", f"stopped at {at} without saving")
        elif not self._save(lane):
            # whatever waits already saves too, and a wish to leave must not be lost to a wish to save
            if lane.pending is None or command.verb is not Verb.SAVE:
                lane.pending = command
        elif command.verb is Verb.SUSPEND:
            self._leave(lane, FinetunePhase.SUSPENDED, "Suspended", f"saved at {at}")
        elif command.verb is Verb.STOP:
            self._leave(lane, FinetunePhase.STOPPED, "Stopped", f"stopped and saved at {at}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _non_finite(lane: Lane, rows: Sequence[int], loss: float, norm: float) -> str:
    names = lane.row_list(rows)
    what = f"loss {loss}" if not math.isfinite(loss) else f"gradient norm {norm}"
    return f"step {lane.step + 1}: {what} with {names}; try a lower learningRate, or look at these rows"
