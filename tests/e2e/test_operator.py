"""Cluster mode: a server without controllers, and operators in their own processes, killed and restarted."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from datatunerx.app.operator import access_for
from datatunerx.app.settings import settings_from

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DTX = (sys.executable, "-m", "datatunerx.cli")
LEASE_SECONDS, TAKE_OVER_SECONDS = 8, 20
PACE = ("--lease-duration", str(LEASE_SECONDS), "--renew-deadline", "6", "--retry-period", "0.5")


class Operator:
    """`dtx operator` as a process."""

    def __init__(self, site, log: Path, *options: str) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*DTX, "operator", *PACE, *options], env=site.environment, stdout=output, stderr=output
            )

    def says(self, words: str) -> bool:
        assert self.process.poll() is None or words in self.log.read_text(), self.log.read_text()
        return words in self.log.read_text()

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def operator(served, tmp_path) -> Iterator:
    started: list[Operator] = []

    def start(*options: str) -> Operator:
        started.append(Operator(served, tmp_path / f"operator-{len(started)}.log", *options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)


@pytest.fixture
def served(site, make, tiny_model, colour_rows):
    """A server that keeps objects and acts on none."""
    site.server.terminate()
    site.server.wait(15)
    with socket.socket() as free:  # an operator finds its server again at the same place
        free.bind(("127.0.0.1", 0))
        site.environment["DTX_PORT"] = str(free.getsockname()[1])
    site.start("--no-controllers")
    site.apply(
        make.llm(tiny_model.as_uri()),
        make.dataset(site.data_file("colours.jsonl", colour_rows)),
        make.group("a", maxSteps=40),
        make.group("b", maxSteps=60),
    )
    return site


def taken(site):
    """Every training step of every run, as (job, step)."""
    every = [e for events in site.events().values() for e in events if e["type"] == "metrics"]
    return [(e["job"], e["step"]) for e in every if "loss" in e["values"]]


def test_operators_drive_an_experiment_through_kills_of_leader_and_server(served, make, operator):
    served.apply(make.experiment("e", ["a", "b"]))
    time.sleep(1)
    assert not served.status("fe", "e"), "nobody acts yet"

    first = operator()
    served.until(lambda: first.says("leading as"), 90, "the first leads")
    second = operator()
    served.until(lambda: second.says("is in use by another server"), 90, "the second stands by")
    served.until(lambda: len(taken(served)) > 10, 90, "it trains")
    [worker] = served.workers()

    first.end(signal.SIGKILL)
    took = served.until(lambda: second.says("leading as"), TAKE_OVER_SECONDS, "the standby leads")
    assert took > 1, "not before the lease of the dead one has run out"
    served.kill()
    served.start("--no-controllers")
    third = operator()

    served.until(lambda: served.phase("fe", "e") == "Succeeded", 150, "the experiment ends well")
    assert worker.pid not in [w.pid for w in served.workers()]
    wanted = [(f"e-{job}", n) for job, steps in (("a", 40), ("b", 60)) for n in range(1, steps + 1)]
    assert sorted(taken(served)) == sorted(wanted), "each step once"
    runs = json.loads(served.dtx("get", "run", "-o", "json").stdout)["items"]
    assert sorted(run["spec"]["type"] for run in runs) == ["inspect", "inspect", "tune"]
    assert len(served.status("fe", "e")["ranking"]) == 3

    assert second.end(signal.SIGTERM) == 0
    released = time.monotonic()
    served.until(lambda: third.says("leading as"), 90, "the next leads")
    assert time.monotonic() - released < LEASE_SECONDS, "given back, it need not run out"
    served.apply(make.finetune("late", "a"))
    served.until(lambda: served.phase("ft", "late") == "Succeeded", 90, "what comes later is done, too")
    assert third.end(signal.SIGTERM) == 0


def test_a_leader_that_slept_too_long_acts_no_more_until_it_leads_again(served, operator):
    first = operator("--lease-name", "shared")
    served.until(lambda: first.says("leading as"), 90, "it leads")
    first.process.send_signal(signal.SIGSTOP)
    time.sleep(LEASE_SECONDS + 1)
    first.process.send_signal(signal.SIGCONT)
    served.until(lambda: first.says("not leading any more; standing by"), 90, "it has noticed")
    served.until(lambda: first.log.read_text().count("leading as") == 2, 90, "and leads again")


def test_an_operator_says_what_it_cannot_do(served, operator, tmp_path):
    def told(*options, **environment):
        done = subprocess.run(
            [*DTX, "operator", *options], env=served.environment | environment, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stderr

    assert told("--compute", "kuberay")[1].startswith("error: --compute kuberay: only local is built")
    assert "retry < renew < lease" in told("--renew-deadline", "20")[1]
    code, said = told("--kubeconfig", str(tmp_path / "none"))
    assert code == 1 and "no such file" in said
    assert "contexts has no 'nowhere'" in told("--context", "nowhere")[1]
    assert "several files" in told(KUBECONFIG=os.pathsep.join(["a", "b"]))[1]


def test_a_server_and_an_operator_never_act_from_one_home(served, operator):
    leader = operator()
    served.until(lambda: leader.says("leading as"), 90, "it leads")
    served.kill()
    refused = subprocess.run(
        [*DTX, "up"], env=served.environment, capture_output=True, text=True, timeout=60
    )  # fmt: skip
    assert refused.returncode == 1
    assert f"pid {leader.process.pid}" in refused.stderr and "--no-controllers" in refused.stderr
    served.start("--no-controllers")


def test_the_pods_own_account_is_used_in_a_pod_and_kubeconfig_before_it(tmp_path, monkeypatch):
    account = tmp_path / "account"
    account.mkdir()
    for name, text in (("token", "t0"), ("ca.crt", "pem"), ("namespace", "datatunerx")):
        (account / name).write_text(text)
    monkeypatch.setattr("datatunerx.app.operator.in_cluster", lambda: in_pod(account))
    config = tmp_path / "config"
    config.write_text(json.dumps(kubeconfig()))

    found = access_for(settings_from({"DTX_HOME": str(tmp_path)}), None)
    assert (found.server, found.namespace, found.bearer()) == ("https://10.0.0.1:443", "datatunerx", "t0")
    (account / "token").write_text("t1")
    assert found.bearer() == "t1", "a cluster rotates it"
    found = access_for(settings_from({"DTX_HOME": str(tmp_path), "KUBECONFIG": str(config)}), None)
    assert found.server == "https://one"
    assert access_for(settings_from({"KUBECONFIG": str(config)}), "two").server == "https://two"


def in_pod(account):
    from datatunerx.client.kubeconfig import in_cluster

    return in_cluster(account, {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"})


def kubeconfig():
    names = ("one", "two")
    return {
        "current-context": "one",
        "contexts": [{"name": name, "context": {"cluster": name}} for name in names],
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}"}} for name in names],
    }
