"""A run's folder as the control plane uses it: plan in, result and log out, commands in between."""

from pydantic import ValidationError

from datatunerx import storage
from datatunerx.resources.export import Origin
from datatunerx.runs.commands import Command
from datatunerx.runs.files import COMMANDS, LOG, PLAN, RECORD, RESULT, in_folder
from datatunerx.runs.plan import RunPlan
from datatunerx.runs.result import RunResult

TAIL_LINES = 50
TAIL_BYTES = 32 << 10
RESULT_BYTES = 64 << 20


def plan_uri(plan: RunPlan) -> str:
    return in_folder(plan.output_uri, PLAN)


def folder_of(uri_of_plan: str) -> str:
    return uri_of_plan.removesuffix(f"/{PLAN}")


def log_uri(uri_of_plan: str) -> str:
    return in_folder(folder_of(uri_of_plan), LOG)


def publish_plan(plan: RunPlan) -> str:
    """Put the plan in its folder and return its URI. Publishing it again writes the same bytes."""
    uri = plan_uri(plan)
    storage.write_atomic(uri, plan.model_dump_json(by_alias=True, exclude_none=True).encode())
    return uri


def read_plan(uri_of_plan: str) -> RunPlan:
    return RunPlan.model_validate_json(storage.read_bytes(uri_of_plan, RESULT_BYTES))


def read_origin(uri_of_plan: str, seed: int) -> Origin | None:
    """With what the run trained, by its own word; None if it left no record."""
    try:
        data = storage.read_bytes(in_folder(folder_of(uri_of_plan), RECORD), RESULT_BYTES)
        return Origin.model_validate_json(data).model_copy(update={"seed": seed})
    except (storage.Missing, ValidationError):
        return None


def read_result(uri_of_plan: str, plan_id: str) -> RunResult | None:
    """The run's result; None if there is none, or none that is whole and of this plan."""
    try:
        data = storage.read_bytes(in_folder(folder_of(uri_of_plan), RESULT), RESULT_BYTES)
        result = RunResult.model_validate_json(data)
    except (storage.Missing, storage.TooLarge, ValidationError):
        return None
    return result if result.plan_id == plan_id else None


def send(uri_of_plan: str, command: Command) -> None:
    """Tell the worker; telling it twice is telling it once."""
    if not was_told(uri_of_plan, command):
        data = command.model_dump_json(by_alias=True, exclude_none=True).encode()
        storage.write_atomic(_command_uri(uri_of_plan, command), data)


def was_told(uri_of_plan: str, command: Command) -> bool:
    return storage.exists(_command_uri(uri_of_plan, command))


def command_time(uri_of_plan: str, command: Command) -> float:
    """When the worker was told, in seconds since 1970; it must have been."""
    return storage.local_path(_command_uri(uri_of_plan, command)).stat().st_mtime


def _command_uri(uri_of_plan: str, command: Command) -> str:
    return in_folder(in_folder(folder_of(uri_of_plan), COMMANDS), command.file_name)


def log_tail(uri_of_plan: str) -> str | None:
    """The last lines of the worker's log; None if it has written none."""
    try:
        data = storage.read_tail(log_uri(uri_of_plan), TAIL_BYTES)
    except storage.Missing:
        return None
    return "\n".join(data.decode("utf-8", "replace").splitlines()[-TAIL_LINES:]) or None
