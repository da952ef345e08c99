"""One job's trouble is its own; the run's trouble has a reason and a result."""

import signal
import subprocess
import sys

import pytest

from datatunerx.resources.enums import FinetunePhase, RunPhase, RunType
from datatunerx.runs import InspectModelPlan
from datatunerx.runs.plan import identified
from datatunerx.worker.failure import explain

EXPLODING = {
    # the decay turns each weight into -99 times itself at every step, whatever its gradient
    "optimizer": "sgd", "learningRate": 10, "weightDecay": 10, "maxGradNorm": 0, "maxSteps": 60,
}  # fmt: skip


@pytest.mark.slow
def test_a_job_that_fails_leaves_its_neighbours_alone(room):
    good = room.data("good", test=room.rows(3))
    bad = room.data("bad", rows=['{"messages": [{"role": "user", "content": "no answer"}]}'] * 3)
    changed = room.data("changed").model_copy(update={"digest": "f" * 64})
    empty = room.data("cut")
    measure = room.measure(good)
    jobs = [
        room.job("healthy", good, measure), room.job("exploding", good, measure, **EXPLODING),
        room.job("bad", bad), room.job("changed", changed), room.job("cut", empty, cutoffLength=8),
        room.job("targets", good, lora={"targets": ["no_such_layer"]}),
    ]  # fmt: skip
    plan = room.tune([good, bad, changed, empty], jobs)
    code, result = room.run(plan)

    assert (code, result.phase) == (0, RunPhase.SUCCEEDED), room.log(plan)
    outcomes = result.jobs
    assert outcomes["healthy"].phase is FinetunePhase.SUCCEEDED
    assert {name for name, one in outcomes.items() if one.phase is FinetunePhase.FAILED} == {
        "exploding", "bad", "changed", "cut", "targets",
    }  # fmt: skip
    assert outcomes["exploding"].reason == "NonFiniteLoss" and "train.jsonl:" in outcomes["exploding"].message
    assert "bad-train.jsonl:1" in outcomes["bad"].message
    assert "changed since they were inspected" in outcomes["changed"].message
    assert "cutoffLength" in outcomes["cut"].message
    assert "no_such_layer" in outcomes["targets"].message and "q_proj" in outcomes["targets"].message
    assert {score.subject for score in result.scores} == {"healthy"}
    told = {event.job: event.outcome for event in room.events(plan) if event.type == "job"}
    assert told == outcomes
    assert "Traceback" not in room.log(plan)


@pytest.mark.slow
def test_a_run_none_of_whose_jobs_can_train_still_scores_the_base(room):
    data = room.data(test=room.rows(3))
    bad = room.data("bad", rows=["not json"])
    measure = room.measure(data)
    plan = room.tune([data, bad], [room.job("bad", bad)], baselines=[measure])
    code, result = room.run(plan)
    assert (code, result.phase) == (0, RunPhase.SUCCEEDED)
    assert result.score("", measure.key()).metrics["exact-match"].n == 3


@pytest.mark.slow
def test_a_score_without_rows_is_missing_and_says_why(room):
    data = room.data()
    measure = room.measure(data)
    plan = room.tune([data], [room.job("a", data, measure)])
    code, result = room.run(plan)
    assert (code, result.jobs["a"].phase) == (0, FinetunePhase.SUCCEEDED)
    score = result.score("a", measure.key()).metrics["exact-match"]
    assert score.value is None and "test split has no rows" in score.why_missing


@pytest.mark.slow
def test_a_model_that_is_none_fails_the_run_in_one_line_and_the_log_has_the_rest(room):
    (room.root / "empty").mkdir()
    content = InspectModelPlan(source=(room.root / "empty").as_uri())
    plan = identified(RunType.INSPECT, room.root_uri, {"inspect_model": content})
    code, result = room.run(plan)
    assert (code, result.phase, result.reason) == (1, RunPhase.FAILED, "UnusableModel")
    assert "config.json" in result.message and "\n" not in result.message
    assert "Traceback" in room.log(plan)


@pytest.mark.slow
def test_a_model_is_described_by_what_its_files_hold(room):
    content = InspectModelPlan(source=room.model.uri, template="chatml")
    plan = identified(RunType.INSPECT, room.root_uri, {"inspect_model": content})
    code, result = room.run(plan)
    assert code == 0, room.log(plan)
    assert (result.model.architecture, result.model.context_length) == ("LlamaForCausalLM", 128)
    assert result.model.parameters > 10_000 and result.model.local_uri == room.model.uri
    assert result.model.template_source == "built-in chatml"
    assert any(
        "chatml" in warning and "tokenizer_config.json" in warning for warning in result.model.warnings
    )


def test_data_is_inspected_without_torch(room):
    data = room.data(rows=[*room.rows(5), "{broken"])
    plan = room.inspect_data(data, room.model)
    code, result = room.run(plan, PYTHONPROFILEIMPORTTIME="1")
    assert (code, result.phase) == (0, RunPhase.SUCCEEDED)
    assert (result.data.report.kept, result.data.report.dropped) == (5, 1)
    assert " torch" not in room.log(plan) and " transformers" not in room.log(plan)


def test_data_that_cannot_be_used_is_refused_by_file_and_line(room):
    plan = room.inspect_data(room.data(rows=["{broken"]))
    code, result = room.run(plan)
    assert (code, result.phase, result.reason) == (1, RunPhase.FAILED, "DataError")
    assert "colours-train.jsonl:1" in result.message


def test_a_plan_that_has_ended_is_not_done_again(room):
    plan = room.inspect_data(room.data())
    room.run(plan)
    events = room.events(plan)
    written = (room.folder(plan) / "result.json").stat().st_mtime_ns
    code, _ = room.run(plan)
    assert code == 0 and room.events(plan) == events
    assert (room.folder(plan) / "result.json").stat().st_mtime_ns == written


def test_a_second_worker_of_one_plan_waits_and_then_has_nothing_to_do(room):
    plan = room.inspect_data(room.data(rows=room.rows(3000)), room.model)
    workers = [room.start(plan) for _ in range(3)]
    assert [worker.wait(timeout=60) for worker in workers] == [0, 0, 0]
    begun = [e.activity for e in room.events(plan) if e.activity and " rows, " not in e.activity]
    assert len(begun) == 1, begun


@pytest.mark.parametrize("text", ["", "{}", '{"type": "tune"}', "[" * 10000])
def test_a_plan_that_is_none_is_refused_by_its_name(room, text):
    path = room.root / "plan.json"
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "datatunerx.worker", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and str(path) in done.stderr and "Traceback" not in done.stderr


def test_an_inspection_asked_to_leave_leaves_with_a_result(room):
    plan = room.inspect_data(room.data(rows=room.rows(60000)), room.model)
    worker = room.start(plan)
    room.wait_for(plan, lambda event: event.activity)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=60) == 3
    assert room.result(plan).phase is RunPhase.STOPPED


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (MemoryError(), "OutOfMemory", "batchSize"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "OutOfMemory", "while x"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), "OutOfMemory", "GiB of"),
        (OSError(28, "No space left on device", "/data/x"), "DiskFull", "/data/x"),
        (ValueError("two\nlines"), "ValueError", "two lines"),
        (KeyError(), "KeyError", "log"),
    ],
)
def test_a_failure_is_one_word_and_one_line(error, reason, words):
    found = explain(error, "x")
    assert found[0] == reason and words in found[1] and "\n" not in found[1]


def test_a_package_that_is_not_there_is_told_with_what_brings_it():
    reason, message = explain(ModuleNotFoundError("No module named 'numpy'", name="numpy"))
    assert reason == "PackageMissing"
    assert message.startswith("numpy is not installed; pip install 'datatunerx[train]'")


@pytest.mark.slow
def test_a_model_whose_files_are_not_those_inspected_is_neither_tokenised_for_nor_trained(room):
    data = room.data()
    plan = room.tune([data], [room.job("a", data)])
    model = plan.tune.model.model_copy(update={"digest": "f" * 64})
    plan = plan.model_copy(update={"tune": plan.tune.model_copy(update={"model": model})})
    code, result = room.run(plan)

    assert (code, result.phase, result.reason) == (1, RunPhase.FAILED, "ModelChanged")
    assert "changed since LLM tiny was inspected" in result.message
    assert not (room.root / "cache").exists() and not (room.root / "artifacts").exists()
