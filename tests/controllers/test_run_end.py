"""How a run ended: only a whole result of its own plan is a good end."""

import pytest

from datatunerx.compute.backend import RunState
from datatunerx.controllers.following import RunView, fold
from datatunerx.controllers.objects import merge_diff
from datatunerx.controllers.run import RunReconciler, finish
from datatunerx.resources import Run
from datatunerx.resources.enums import RunPhase
from datatunerx.runs import Event, EventType, RunResult


@pytest.fixture
def run(root):
    folder = root / "runs" / "p"
    folder.mkdir(parents=True)
    spec = {"type": "tune", "planId": "p", "planUri": f"file://{folder}/plan.json"}
    return Run.parse({"metadata": {"name": "r", "uid": "u"}, "spec": spec})


def put_result(root, **fields):
    (root / "runs/p/result.json").write_text(RunResult(**fields).model_dump_json(by_alias=True))


def test_a_worker_that_vanished_has_failed_even_if_it_left_with_code_zero(run):
    finish(run, RunState(RunPhase.SUCCEEDED, 0))
    assert (run.status.phase, run.status.reason) == ("Failed", "NoResult")
    assert "ended without a result" in run.status.message


def test_a_kill_is_named_with_its_likely_cause_and_a_fix(run):
    finish(run, RunState(RunPhase.FAILED, -9))
    assert run.status.reason == "WorkerDied" and run.status.exit_code == -9
    assert "SIGKILL" in run.status.message and "memory" in run.status.message


def test_another_signal_is_named(run):
    finish(run, RunState(RunPhase.FAILED, -11))
    assert "SIGSEGV" in run.status.message


def test_a_result_of_another_plan_or_a_torn_one_counts_for_nothing(run, root):
    put_result(root, plan_id="another", phase=RunPhase.SUCCEEDED)
    finish(run, RunState(RunPhase.SUCCEEDED, 0))
    assert run.status.phase == "Failed"
    (root / "runs/p/result.json").write_text('{"planId": "p", "pha')
    finish(run, RunState(RunPhase.SUCCEEDED, 0))
    assert run.status.phase == "Failed"


def test_a_whole_result_holds_whatever_the_process_did_after_it(run, root):
    put_result(root, plan_id="p", phase=RunPhase.SUCCEEDED)
    finish(run, RunState(RunPhase.FAILED, -9))
    assert run.status.phase == "Succeeded"


def test_a_stop_that_was_asked_for_is_no_failure(run):
    run.spec.stop = True
    finish(run, RunState(RunPhase.FAILED, -15))
    assert run.status.phase == "Stopped"


def test_a_silent_worker_is_reported_stalled_with_what_it_was_doing(run, make_context):
    context = make_context(now=1000.0, stall_seconds=60)
    reconciler = RunReconciler(context)
    view = RunView(heard=900.0, activity="tokenising")
    reconciler._go_on(run, RunState(RunPhase.RUNNING), view)
    stalled = run.status.condition("Stalled")
    assert stalled.status == "True" and "100 s while tokenising" in stalled.message
    view.heard = 999.0
    reconciler._go_on(run, RunState(RunPhase.RUNNING), view)
    assert run.status.condition("Stalled").status == "False"


@pytest.fixture
def make_context(make_backend):
    from datatunerx.controllers.context import Context, Settings

    def make(now, **settings):
        return Context(
            None, None, make_backend(), Settings(root_uri="file:///x", **settings), clock=lambda: now
        )

    return make


async def test_a_run_of_a_plan_that_is_none_of_ours_is_never_executed(platform, tmp_path):
    """An admin of one namespace may make Runs; what an uploaded file says is not for a worker to do."""
    mine = tmp_path / "uploaded" / "plan.json"
    mine.parent.mkdir()
    mine.write_text("{}")
    root = platform.settings.root_uri
    for name, uri in {
        "elsewhere": mine.as_uri(),
        "climbing": f"{root}/runs/p/../../../uploaded/plan.json",
        "of-another": f"{root}/runs/q/plan.json",
    }.items():
        spec = {"type": "tune", "planId": "p", "planUri": uri}
        await platform.apply(Run.parse({"metadata": {"name": name}, "spec": spec}))

        async def failed(name=name):
            found = await platform.api.get(Run, name)
            return found if found.status.phase is RunPhase.FAILED else None

        status = (await platform.until(failed)).status
        assert status.reason == "PlanElsewhere" and "spec.planUri" in status.message
    assert platform.backend.submissions == []


def test_events_fold_into_what_is_latest():
    view = RunView()
    for event in (
        Event(type=EventType.ACTIVITY, activity="loading", time=1.0),
        Event(type=EventType.METRICS, job="a", values={"loss": 2.0, "learningRate": 0.1}, time=2.0),
        Event(type=EventType.METRICS, job="a", values={"loss": 1.0}, time=3.0),
        Event(type=EventType.WARNING, message="slow", time=4.0),
        Event(type=EventType.WARNING, job="a", message="row 3 is long", time=4.0),
    ):
        fold(view, event)
    assert view.warned("a") == ["slow", "row 3 is long"] and view.warned("b") == ["slow"]
    assert view.jobs["a"].metrics == {"loss": 1.0, "learningRate": 0.1}
    assert (view.heard, view.activity, view.warnings) == (4.0, "loading", ["slow"])


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {}, {"a": None}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, {"a": {"c": 3}}),
        ({"a": {"b": 1}}, {"a": {"b": 1}}, {}),
        ({"a": [1]}, {"a": [1, 2]}, {"a": [1, 2]}),
        ({}, {"a": {}}, {"a": {}}),
    ],
)
def test_a_patch_holds_just_the_difference(old, new, patch):
    assert merge_diff(old, new) == patch
