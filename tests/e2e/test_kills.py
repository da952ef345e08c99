"""What is shown after a kill is true: of a worker, of the server, of the server again and again."""

import signal
import time
from functools import partial

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LONG = 1_000_000
TRIALS = [1, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(4 * 3600)])]


@pytest.fixture
def ready(site, make, tiny_model, colour_rows):
    """A site with the tiny model, the colours, a quick group and one that does not end by itself."""
    site.apply(
        make.llm(tiny_model.as_uri()),
        make.dataset(site.data_file("colours.jsonl", colour_rows)),
        make.group(),
        make.group("endless", maxSteps=LONG, saveEvery=5),
    )
    return site


def step(site, name):
    return site.status("ft", name).get("progress", {}).get("step", 0)


def taken(site):
    """Every training step of every run, as (job, step)."""
    every = [e for events in site.events().values() for e in events if e["type"] == "metrics"]
    return [(e["job"], e["step"]) for e in every if "loss" in e["values"]]


def working(site, name, beyond=5):
    site.until(lambda: step(site, name) > beyond, 90, f"{name} trains beyond step {beyond}")


def a_worker(ready, make, number):
    """A worker that is killed while it trains, or, every other time, wherever it has come to at its start."""
    name, early = f"a{number}", number % 2
    # one retry more than none is told as Retrying, with the same reason
    ready.apply(make.finetune(name, "endless", retryLimit=number // 2 % 2))
    if early:
        ready.until(lambda: ready.workers(), 90, "its worker is there")
        time.sleep(number / 25)
    else:
        working(ready, name)
    [worker] = ready.workers()
    return name, worker


def is_told(ready, name, number):
    """Whether the death is shown as what it is, and never as something else."""
    status = ready.status("ft", name)
    if number // 2 % 2:
        told = status.get("retries") == 1
    else:
        told = status["phase"] == "Failed"
        assert not told or status["reason"] == "WorkerDied"
    assert status["phase"] not in ("Succeeded", "Stopped")
    return told


def put_away(ready, name):
    assert ready.dtx("delete", f"ft/{name}").returncode == 0
    ready.until(lambda: not ready.workers(), 90, "no worker is left")


@pytest.mark.parametrize("trials", TRIALS)
def test_a_killed_worker_is_a_failed_training_within_ten_seconds(ready, make, trials):
    for number in range(trials):
        name, worker = a_worker(ready, make, number)

        worker.send_signal(signal.SIGKILL)

        ready.until(partial(is_told, ready, name, number), 10, f"trial {number}: the death is shown")
        if not number:
            assert "SIGKILL" in ready.status("ft", name)["message"]
        put_away(ready, name)


def test_a_killed_worker_is_taken_up_again_from_its_last_checkpoint(ready, make):
    ready.apply(make.finetune("a", "endless", retryLimit=1))
    working(ready, "a", 12)
    ready.workers()[0].send_signal(signal.SIGKILL)

    ready.until(lambda: ready.status("ft", "a").get("attempt") == 1, 60, "the retry is shown")

    def first_steps():
        taken = [[e["step"] for e in run if e["type"] == "metrics"] for run in ready.events().values()]
        return sorted(steps[0] for steps in taken if steps)

    ready.until(lambda: len(first_steps()) == 2, 90, "the second worker trains")
    steps = first_steps()
    assert steps[0] == 1
    assert steps[1] > 5, "the second worker did not begin at the beginning"


def test_the_worker_goes_on_without_the_server_and_is_adopted(ready, make):
    ready.apply(make.finetune("a", "endless"))
    working(ready, "a")
    [before] = ready.workers()

    ready.kill()
    ready.start()

    [after] = ready.workers()
    assert (after.pid, after.create_time()) == (before.pid, before.create_time())
    working(ready, "a", step(ready, "a") + 3)
    assert ready.status("ft", "a")["attempt"] == 0


@pytest.mark.parametrize("trials", TRIALS)
def test_a_worker_that_died_with_the_server_is_found_out_within_ten_seconds(ready, make, trials):
    for number in range(trials):
        name, worker = a_worker(ready, make, number)

        ready.kill()
        worker.send_signal(signal.SIGKILL)
        ready.start()

        ready.until(partial(is_told, ready, name, number), 10, f"trial {number}: shown after the restart")
        put_away(ready, name)


def test_suspend_saves_and_resume_goes_on_from_there(ready, make):
    ready.apply(make.experiment("e", ["endless"]))
    ready.until(lambda: ready.dtx("get", "ft", "e-endless").returncode == 0, 90, "the training exists")
    working(ready, "e-endless")

    assert ready.dtx("stop", "fe/e").returncode == 0
    ready.until(lambda: ready.phase("fe", "e") == "Suspended", 90, "the experiment is suspended")
    ready.until(lambda: not ready.workers(), 90, "no worker is alive")
    saved = step(ready, "e-endless")

    assert ready.dtx("resume", "fe/e").returncode == 0
    working(ready, "e-endless", saved + 2)
    assert taken(ready).count(("e-endless", saved)) == 1, "no step was taken twice"


def test_ten_trainings_survive_five_kills_and_each_runs_once(ready, make):
    names = [f"t{n}" for n in range(10)]
    ready.apply(*[make.finetune(name, retryLimit=0) for name in names])
    for _ in range(5):
        time.sleep(1.5)
        ready.kill()
        ready.start()

    def all_ended():
        return all(ready.phase("ft", name) in ("Succeeded", "Failed") for name in names)

    ready.until(all_ended, 200, "all trainings have ended")
    assert {ready.phase("ft", name) for name in names} == {"Succeeded"}
    assert sorted(taken(ready)) == sorted((name, n) for name in names for n in range(1, 7)), "each step once"
