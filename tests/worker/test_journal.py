import errno
import signal

import pytest

from datatunerx import storage
from datatunerx.resources.enums import RunPhase, RunType, Split
from datatunerx.runs import DataFiles, Event, EventType, InspectDataPlan, RunResult
from datatunerx.runs.plan import identified
from datatunerx.worker import __main__ as entry
from datatunerx.worker import journal as journal_module
from datatunerx.worker.journal import Journal
from datatunerx.worker.stopping import Interrupted, Stopping


@pytest.fixture
def plan(tmp_path):
    data = DataFiles(name="d", splits={Split.TRAIN: ["/nowhere"]})
    return identified(RunType.INSPECT, tmp_path.as_uri(), {"inspect_data": InspectDataPlan(data=data)})


def test_a_result_waits_for_space_and_the_user_is_told_once(plan, monkeypatch):
    monkeypatch.setattr(journal_module, "RETRY_SECONDS", 0.01)
    write, refused = storage.write_atomic, []

    def full(uri, data):
        if len(refused) < 3:
            refused.append(uri)
            raise storage.DiskFull(errno.ENOSPC, "no space left", uri)
        write(uri, data)

    monkeypatch.setattr(storage, "write_atomic", full)
    with Journal(plan) as journal:
        journal.finish(RunResult(plan_id=plan.id, phase=RunPhase.SUCCEEDED))
    events = journal_module.files.in_folder(plan.output_uri, "events.jsonl")
    told = storage.read_bytes(events).decode()
    assert told.count("DiskFull") == 1 and len(refused) == 3
    assert RunResult.model_validate_json(storage.read_bytes(journal.uri("result.json"))).plan_id == plan.id


def test_an_error_that_is_not_a_full_disk_is_not_waited_for(plan):
    def denied():
        raise PermissionError(errno.EACCES, "denied")

    with Journal(plan) as journal, pytest.raises(PermissionError):
        journal.with_space(denied)


def test_warnings_are_in_the_log_too(plan, capsys):
    with Journal(plan) as journal:
        journal.write(Event(type=EventType.WARNING, job="a", message="memory ran out"))
        journal.warn("look here")

    log = capsys.readouterr().out
    assert log.count("warning: memory ran out (a)") == log.count("warning: look here") == 1


def test_events_that_cannot_be_opened_fail_the_run_with_a_result(plan):
    storage.local_path(f"{plan.output_uri}/events.jsonl").mkdir(parents=True)

    assert entry.run(plan, {}) is RunPhase.FAILED
    result = RunResult.model_validate_json(storage.read_bytes(f"{plan.output_uri}/result.json"))
    assert result.reason == "IsADirectoryError"


def test_a_disk_that_is_full_at_the_start_is_waited_for(plan, stopping, monkeypatch, capsys):
    monkeypatch.setattr(journal_module, "RETRY_SECONDS", 0.01)
    # these are for this process
    monkeypatch.setattr(entry.faulthandler, "enable", lambda: None)
    monkeypatch.setattr(entry, "_be_first_to_go", lambda: None)
    monkeypatch.setattr(entry, "_give_way", lambda: None)
    refused = []

    def full_at_first(real):
        def call(*arguments):
            if refused.count(real) < 2:
                refused.append(real)
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments)

        return call

    monkeypatch.setattr(entry, "_claim", full_at_first(entry._claim))
    monkeypatch.setattr(journal_module, "EventWriter", full_at_first(journal_module.EventWriter))
    uri = f"{plan.output_uri}/plan.json"
    storage.write_atomic(uri, plan.model_dump_json(by_alias=True, exclude_none=True).encode())

    assert entry.main([uri]) == 1  # its data is nowhere
    assert capsys.readouterr().out.count("DiskFull") == 2
    assert len(refused) == 4


@pytest.fixture
def stopping():
    before = signal.getsignal(signal.SIGTERM)
    stopping = Stopping()
    stopping.listen()
    yield stopping
    signal.signal(signal.SIGTERM, before)


def test_a_wish_to_stop_interrupts_once_and_not_what_asked_to_be_left(stopping):
    with stopping.deferred():
        signal.raise_signal(signal.SIGTERM)
        assert stopping.asked
    signal.raise_signal(signal.SIGTERM)  # the second says nothing new
    with pytest.raises(Interrupted), stopping.deferred():
        pytest.fail("training began after a wish to stop")


def test_a_wish_to_stop_elsewhere_interrupts_at_once(stopping):
    with pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGTERM)


def test_a_wish_to_stop_that_comes_when_the_work_is_done_does_not_cost_the_result(
    plan, stopping, monkeypatch
):
    write = storage.write_atomic

    def late(uri, data):
        signal.raise_signal(signal.SIGTERM)
        write(uri, data)

    monkeypatch.setattr(storage, "write_atomic", late)
    assert entry.run(plan, {}) is RunPhase.FAILED  # its data is nowhere
    result = RunResult.model_validate_json(storage.read_bytes(f"{plan.output_uri}/result.json"))
    assert result.reason == "DataError"
