"""`python -m datatunerx.worker PLAN_URI`: reads the plan, does it, writes the result last.

Exit codes: 0 ended well, 1 failed (the result says why), 2 no plan to read, 3 stopped before its end.
"""

import faulthandler
import fcntl
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

from pydantic import ValidationError

from datatunerx import storage
from datatunerx.resources.enums import RunPhase
from datatunerx.runs import RunPlan, RunResult, files
from datatunerx.worker.credentials import Secrets, take
from datatunerx.worker.failure import explain
from datatunerx.worker.journal import Journal, say, with_space, write_result
from datatunerx.worker.stopping import Interrupted, Stopping

LOCK = "worker.lock"
PLAN_BYTES = 64 << 20
YIELDING = 10
"""How much a process that reads data gives way: the server must answer meanwhile."""
EXIT_CODES = {RunPhase.SUCCEEDED: 0, RunPhase.FAILED: 1, RunPhase.STOPPED: 3}

Work = Callable[[], RunResult]


def main(argv: Sequence[str]) -> int:
    secrets = take(os.environ)
    faulthandler.enable()  # a crash in compiled code leaves its stack in the log
    if len(argv) != 1:
        print("usage: python -m datatunerx.worker PLAN_URI", file=sys.stderr)
        return 2
    try:
        plan = RunPlan.model_validate_json(storage.read_bytes(argv[0], limit=PLAN_BYTES))
        with_space(lambda: _claim(plan), say)
    except (storage.StorageError, ValidationError, OSError) as error:
        print(f"{argv[0]}: no plan that can be worked on: {error}", file=sys.stderr)
        return 2
    _be_first_to_go()
    if plan.inspect_data or plan.make_data:
        _give_way()
    phase = _finished(plan) or run(plan, secrets)
    return EXIT_CODES[phase]


def run(plan: RunPlan, secrets: Secrets) -> RunPhase:
    """Do the plan; however it ends, its result is written last."""
    stopping = Stopping()
    try:
        opened = with_space(lambda: Journal(plan), say)
    except OSError as error:  # no events can be written, but a result perhaps can
        traceback.print_exc()
        write_result(plan, _ended(plan, RunPhase.FAILED, *explain(error, "opening its events")), say)
        return RunPhase.FAILED
    with opened as journal:
        try:
            stopping.listen()
            result = _work(plan, journal, stopping, secrets)
            stopping.ignore()
        except Interrupted:
            result = _ended(plan, RunPhase.STOPPED, "Stopped", f"stopped while {journal.doing}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the user gets one line and the log the rest
            stopping.ignore()
            traceback.print_exc()
            result = _ended(plan, RunPhase.FAILED, *explain(error, journal.doing))
        journal.finish(result)
        print(f"{result.phase}: {result.reason} {result.message}".rstrip(": "), flush=True)
    return result.phase


def _work(plan: RunPlan, journal: Journal, stopping: Stopping, secrets: Secrets) -> RunResult:
    """Each kind of work imports what it needs and no more: reading a dataset must not wait for torch."""
    if plan.inspect_data is not None:
        from datatunerx.worker.inspect_data import inspect_data

        return inspect_data(plan.inspect_data, journal, secrets)
    if plan.inspect_plugin is not None:
        from datatunerx.worker.make_data import inspect_plugin

        return inspect_plugin(plan.inspect_plugin, journal)
    if plan.make_data is not None:
        from datatunerx.worker.make_data import make_data

        return make_data(plan.make_data, journal, secrets)
    if plan.inspect_model is not None:
        from datatunerx.worker.inspect_model import inspect_model

        return inspect_model(plan.inspect_model, journal, secrets)
    if plan.tune is not None:
        from datatunerx.worker.tune import tune

        return tune(plan.tune, journal, stopping, secrets)
    if plan.score is not None:
        from datatunerx.worker.score import score_model

        return score_model(plan.score, journal, secrets)
    if plan.serve is not None:
        from datatunerx.worker.serve import serve

        return serve(plan.serve, journal, stopping)
    if plan.export is not None:
        from datatunerx.worker.export import export

        return export(plan.export, journal, secrets)
    raise ValueError(f"a {plan.type} run is not something this worker can do")


def _ended(plan: RunPlan, phase: RunPhase, reason: str, message: str) -> RunResult:
    return RunResult(plan_id=plan.id, phase=phase, reason=reason, message=message)


def _claim(plan: RunPlan) -> None:
    """Be the only worker of this plan. A second one waits, and then finds the first one's result.

    The handle stays open, and the claim ours, until the process ends.
    """
    folder = storage.local_path(plan.output_uri)
    storage.make_folder(folder)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another worker has this plan; waiting for it to end", flush=True)
        fcntl.flock(handle, fcntl.LOCK_EX)


def _be_first_to_go() -> None:
    """When the machine runs out of memory, the kernel should end this worker and not the server."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")
    except OSError:  # not Linux, or not allowed: the kernel then chooses by size, which most often is us
        pass


def _give_way() -> None:
    """Let others go first: by our own niceness, and where the kernel groups by session by that of our own."""
    os.nice(YIELDING)
    if os.getsid(0) == os.getpid():  # a terminal's session is not ours
        with suppress(OSError), open("/proc/self/autogroup", "w") as file:
            file.write(str(YIELDING))


def _finished(plan: RunPlan) -> RunPhase | None:
    """How this plan has ended already, if it has."""
    try:
        data = storage.read_bytes(files.in_folder(plan.output_uri, files.RESULT))
        return RunResult.model_validate_json(data).phase
    except (storage.Missing, ValidationError):
        return None


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # all is written; taking torch down in order, or a thread that still loads, is only time
