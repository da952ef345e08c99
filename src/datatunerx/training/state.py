"""What a checkpoint holds: an adapter in PEFT's format and the trainer's part; how a lane goes on.

The order of rows and the dropout are functions of the seed and the step's number (schedule.py, fused.py), so
the step is both the data cursor and the state of every random stream.
"""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from datatunerx.modeling.adapters import Adapter, AdapterShape, make_adapter, resolve_targets
from datatunerx.modeling.base import Base
from datatunerx.modeling.peft_format import adapter_files, load_adapter
from datatunerx.resources.training import TrainingParameters
from datatunerx.training import checkpoints
from datatunerx.training.lanes import Job, Lane, Point
from datatunerx.training.optimizer import Moments, new_moments
from datatunerx.training.schedule import plan_course

MOMENTS = "optimizer.safetensors"
STATE = "trainer_state.json"


class CannotResume(ValueError):
    """The checkpoint belongs to a training that was set up differently."""


def lane_files(lane: Lane, base_name: str) -> dict[str, bytes]:
    """Every file of a checkpoint of this lane, as it is now."""
    state = {
        "step": lane.step,
        "steps": lane.course.steps,
        "tokens": lane.tokens,
        "optimizerSteps": lane.moments.steps,
        "stepsWithoutLabels": lane.steps_without_labels,
        "evaluationOwed": lane.evaluation_owed,
        "bestStep": lane.best_step,
        "bestLoss": lane.best_loss,
        "bestScore": lane.best_score,
        "evaluationsNoBetter": lane.waited,
        "rows": lane.course.rows,
        "capacity": lane.capacity,
        "parameters": lane.job.parameters.dump(),
        "history": [{"step": point.step, "values": point.values} for point in lane.history],
    }
    moments = {"first": lane.moments.first.cpu(), "second": lane.moments.second.cpu()}
    return {
        **lane.job.extra_files,
        **adapter_files(lane.adapter, base_name),
        MOMENTS: to_bytes(moments),
        STATE: json.dumps(state, indent=1, sort_keys=True).encode(),
    }


def shape_of(parameters: TrainingParameters) -> AdapterShape:
    lora = parameters.lora
    return AdapterShape(lora.rank, lora.alpha, lora.dropout, tuple(lora.targets))


def open_lane(base: Base, job: Job, capacity: int) -> Lane:
    """A lane at the newest whole checkpoint of its folder, else at `start_from`, else at step 0.

    Raises `CannotResume`, `UnknownTarget`, `UnreadableAdapter`.
    """
    course = plan_course(job.parameters, len(job.rows))
    found = checkpoints.latest(job.folder)
    if found is not None:
        adapter = load_adapter(found.path, base, job.name)
        lane = Lane(job, course, adapter, new_moments(job.parameters, adapter.flat), capacity)
        try:
            _restore(lane, found.path)
        except (OSError, KeyError, TypeError, SafetensorError) as error:
            raise CannotResume(
                f"{found.path}: its {STATE} or {MOMENTS} is none of ours: {error!r}"
            ) from error
        return lane
    adapter = _new_adapter(base, job)
    return Lane(job, course, adapter, new_moments(job.parameters, adapter.flat), capacity)


def passed_over(lane: Lane) -> list[str]:
    """What is wrong with the checkpoints after the step that the lane goes on from."""
    steps = [one.step for one in checkpoints.whole(lane.job.folder) if one.step > lane.step]
    return [
        f"the checkpoint of step {step} is damaged and is passed over; these steps are trained again"
        for step in steps
    ]


def _new_adapter(base: Base, job: Job) -> Adapter:
    if job.start_from is not None:
        adapter = load_adapter(job.start_from, base, job.name)
        _must_be_alike(job, adapter, base)
        return adapter
    dtype = base.dtype if base.dtype.itemsize == 8 else None
    return make_adapter(
        job.name,
        shape_of(job.parameters),
        base.widths,
        seed=job.parameters.seed,
        device=base.device,
        **({} if dtype is None else {"dtype": dtype}),
    )


def _must_be_alike(job: Job, adapter: Adapter, base: Base) -> None:
    """Raises `CannotResume` where the adapter to start from has not the shape that the job asks for."""
    wanted, found = shape_of(job.parameters), adapter.shape
    fields = ("rank", "alpha", "dropout")
    wrong = [name for name in fields if getattr(wanted, name) != getattr(found, name)]
    # "all-linear" and the names of all linear layers are one choice of layers
    if set(resolve_targets(wanted.targets, list(base.widths))) != set(adapter.pairs):
        wrong.append("targets")
    if wrong:
        told = [f"lora.{name} is {getattr(wanted, name)} and there {getattr(found, name)}" for name in wrong]
        raise CannotResume(
            f"resumeFrom, {job.start_from}: {', '.join(told)}; ask for what that adapter has, or leave "
            "resumeFrom out"
        )


def _restore(lane: Lane, path: Path) -> None:
    state = json.loads((path / STATE).read_text(encoding="utf-8"))
    now = lane.job.parameters.dump()
    changed = sorted(
        key for key in {*now, *state["parameters"]} if now.get(key) != state["parameters"].get(key)
    )
    if changed:
        raise CannotResume(f"{path}: was trained with another {', '.join(changed)}; take another folder")
    if state["rows"] != lane.course.rows:
        raise CannotResume(
            f"{path}: was trained on {state['rows']} rows, the train split has {lane.course.rows}"
        )
    moments = load_file(path / MOMENTS)
    first, second = (moments[name].to(lane.adapter.flat.device) for name in ("first", "second"))
    lane.moments = Moments(first, second, state["optimizerSteps"])
    lane.step, lane.tokens = state["step"], state["tokens"]
    # chunks are cut as they were before, so that sums are made in the same order
    lane.capacity = state["capacity"]
    lane.steps_without_labels = state["stepsWithoutLabels"]
    lane.evaluation_owed = state.get("evaluationOwed", False)
    lane.best_step, lane.best_loss = state["bestStep"], state["bestLoss"]
    lane.best_score, lane.waited = state.get("bestScore"), state.get("evaluationsNoBetter", 0)
    lane.history = [Point(point["step"], point["values"]) for point in state["history"]]
