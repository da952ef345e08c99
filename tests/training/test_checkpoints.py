"""A checkpoint is whole or it is not one, wherever its writer dies."""

import ctypes
import itertools
import os
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datatunerx.training import checkpoints

FILES = {"adapter_model.safetensors": b"a" * 5000, "trainer_state.json": b"{}", "adapter_config.json": b"{}"}
TRACE_ME, NEXT_CALL, SET_OPTIONS, MARK_CALLS = 0, 24, 0x4200, 1
CALL = signal.SIGTRAP | 0x80


def ptrace(request, pid=0, data=0):
    call = ctypes.CDLL(None, use_errno=True).ptrace
    call.argtypes, call.restype = (
        [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p],
        ctypes.c_long,
    )
    return call(request, pid, None, data)


def die_at(number, act):
    """Run `act` in a child that is killed as it enters its n-th system call; its exit status."""
    child = os.fork()
    if child == 0:
        status = 2
        try:
            if ptrace(TRACE_ME) == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
                act()
                status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        pytest.skip("needs the right to ptrace, with which this test stops the writer")
    ptrace(SET_OPTIONS, child, MARK_CALLS)
    seen, passed_on = 0, 0
    while True:
        ptrace(NEXT_CALL, child, passed_on)
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status)
        stop = os.WSTOPSIG(status)
        passed_on = 0 if stop == CALL else stop
        seen += stop == CALL  # once as it goes in, once as it comes out
        if seen == 2 * number - 1:
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_everywhere(make_folder, act):
    """Kill `act` at every system call in turn, until it gets through; yields the folder after each death."""
    for number in range(1, 5000):
        folder = make_folder(number)
        status = die_at(number, lambda folder=folder: act(folder))
        yield folder
        if status == 0:
            assert number > 30
            return
        assert status == -signal.SIGKILL
    raise AssertionError("it never got through")


@pytest.mark.slow
def test_killed_anywhere_in_a_save_the_one_before_stands_and_no_half_one_counts(tmp_path):
    def make_folder(number):
        folder = tmp_path / str(number)
        checkpoints.save(folder, 1, FILES)
        return folder

    for folder in kill_everywhere(make_folder, lambda f: checkpoints.save(f, 2, FILES)):
        found = checkpoints.whole(folder)
        assert [c.step for c in found] in ([1], [1, 2])
        for checkpoint in found:
            checkpoints.verify(checkpoint)
        assert checkpoints.latest(folder).step == found[-1].step
        assert checkpoints.superfluous(found, 1) == found[:-1]

        checkpoints.save(folder, 2, FILES)  # the resumed job comes to the same step
        assert [c.step for c in checkpoints.whole(folder)] == [1, 2]
        assert sorted(p.name for p in folder.iterdir()) == ["step-00000001", "step-00000002"]


@pytest.mark.slow
def test_killed_anywhere_in_retention_the_kept_ones_stand(tmp_path):
    def make_folder(number):
        folder = tmp_path / str(number)
        for step in (1, 2, 3):
            checkpoints.save(folder, step, FILES)
        return folder

    for folder in kill_everywhere(make_folder, lambda f: checkpoints.prune(f, 2)):
        steps = [c.step for c in checkpoints.whole(folder)]
        assert steps in ([1, 2, 3], [2, 3])
        for checkpoint in checkpoints.whole(folder):
            checkpoints.verify(checkpoint)


def test_files_are_on_disk_before_their_folder_has_its_name_and_the_manifest_comes_last(
    tmp_path, monkeypatch
):
    """What a power cut may lose: names without content. Removing any sync or turning the order fails here."""
    told = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(handle):
        told.append(("sync", Path(os.readlink(f"/proc/self/fd/{handle}"))))
        real_fsync(handle)

    def rename(old, new):
        told.append(("rename", Path(new)))
        real_rename(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    checkpoints.save(tmp_path / "job", 1, FILES)

    folder, final = tmp_path / "job", tmp_path / "job" / "step-00000001"
    hidden = folder / ".saving-step-00000001"
    named = told.index(("rename", final))
    counted = told.index(("rename", final / "manifest.json"))
    assert {path for verb, path in told[:named] if verb == "sync"} >= {hidden, *(hidden / n for n in FILES)}
    between = told[named:counted]
    assert ("sync", folder) in between
    assert any(verb == "sync" and path.parent == final for verb, path in between)
    assert ("sync", final) in told[counted:]


def test_a_checkpoint_without_manifest_or_with_a_short_file_is_none(tmp_path):
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, step, FILES)
    (checkpoints.checkpoint_path(tmp_path, 2) / "manifest.json").unlink()
    os.truncate(checkpoints.checkpoint_path(tmp_path, 3) / "adapter_model.safetensors", 4999)

    assert [c.step for c in checkpoints.whole(tmp_path)] == [1]


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b'{"step": 1}', b'{"step": 1, "files": {"x": 1}}'])
def test_a_manifest_that_is_not_one_makes_no_checkpoint(tmp_path, damage):
    saved = checkpoints.save(tmp_path, 1, FILES)
    (saved.path / "manifest.json").write_bytes(damage)

    assert checkpoints.whole(tmp_path) == []


def test_saving_a_step_again_leaves_it_as_it_is(tmp_path):
    first = checkpoints.save(tmp_path, 1, FILES)

    assert checkpoints.save(tmp_path, 1, {"other": b""}) == first


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["save", "save", "save", "pin", "unpin", "kill", "kill in retention"]),
        st.none() | st.floats(0, 5),
        st.integers(0, 50),
    ),
    min_size=1,
    max_size=14,
)
SEQUENCES = [
    pytest.param(100, id="a hundred", marks=pytest.mark.slow),
    pytest.param(10_000, id="ten thousand", marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
]


def die_while_saving(folder, step, how):
    """What a killed writer leaves: a hidden folder, or one of the right name without its manifest."""
    left = folder / (f".saving-step-{step:08d}" if how % 2 else f"step-{step:08d}")
    left.mkdir(parents=True, exist_ok=True)
    (left / "f").write_bytes(b"x")


def die_while_pruning(folder, keep):
    """Retention that gets no further than the first file of what it may remove."""
    for spare in checkpoints.superfluous(checkpoints.whole(folder), keep)[:1]:
        (spare.path / "f").unlink()


def play(folder, actions, keep):
    """A job that is killed and resumed at will; yields the checkpoints that must be there after each turn."""
    measured, pinned = {}, set()
    for action, loss, number in actions:
        steps = [c.step for c in checkpoints.whole(folder)]
        last = checkpoints.latest(folder)
        step = (last.step if last else 0) + 1  # resumed from there, as a lane is
        match action:
            case "save":
                checkpoints.save(folder, step, {"f": b"x"}, eval_loss=loss)
                measured[step] = loss
                steps.append(step)
                checkpoints.prune(folder, keep)
            case "kill":
                die_while_saving(folder, step, number)
            case "kill in retention":
                die_while_pruning(folder, keep)
            case "pin" if steps:
                pinned.add(chosen := steps[number % len(steps)])
                (checkpoints.checkpoint_path(folder, chosen) / checkpoints.PINNED).touch()
            case "unpin" if pinned:
                pinned.remove(chosen := sorted(pinned)[number % len(pinned)])
                (checkpoints.checkpoint_path(folder, chosen) / checkpoints.PINNED).unlink()
        losses = [(loss, step) for step, loss in measured.items() if loss is not None]
        best = {min(losses)[1]} if losses else set()
        yield best | pinned | set(sorted(steps)[-1:])


def test_retention_keeps_the_best_by_whatever_it_was_judged(tmp_path):
    """Early stopping may go by scores; where the step it names is not there, the lowest loss is the best."""
    for step, loss in enumerate([0.1, 0.5, 0.4, 0.3], start=1):
        checkpoints.save(tmp_path, step, FILES, eval_loss=loss, score=step / 10)
    found = checkpoints.whole(tmp_path)
    assert [one.score for one in found] == [0.1, 0.2, 0.3, 0.4]

    def left(best_step):
        gone = checkpoints.superfluous(found, 1, best_step)
        return [one.step for one in found if one not in gone]

    assert (left(None), left(2), left(9)) == ([1, 4], [2, 4], [1, 4])


@pytest.mark.parametrize("sequences", SEQUENCES)
def test_retention_never_takes_the_best_the_latest_or_a_pinned_one(tmp_path_factory, monkeypatch, sequences):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # no power is cut here, and each takes its time
    root = tmp_path_factory.mktemp("jobs")
    numbers = itertools.count()

    @settings(max_examples=sequences, deadline=None, database=None)
    @given(actions=ACTIONS, keep=st.integers(1, 4))
    def check(actions, keep):
        folder = root / str(next(numbers))
        for must_stay in play(folder, actions, keep):
            there = checkpoints.whole(folder)
            assert must_stay <= {c.step for c in there}
            for one in there:
                checkpoints.verify(one)
        shutil.rmtree(folder, ignore_errors=True)

    check()
