"""get -w, logs, events and compare-runs: nothing of what is shown is lost on the way."""

import json

import pytest
import yaml

from datatunerx.cli import look
from datatunerx.cli.errors import BadInput
from datatunerx.client import Api, Gone
from datatunerx.client.api import EVENTS
from datatunerx.resources import FinetuneJob, Run

SPEC = {"llm": "m", "dataset": "d", "hyperparameter": {"ref": "h"}}
LOG = b"\nfirst\n\n\nlast, and the worker died here"


@pytest.fixture
async def logged(api, tmp_path):
    """An ended Run with this log."""
    path = tmp_path / "run.log"
    path.write_bytes(LOG)
    run = {"metadata": {"name": "r"}, "spec": {"type": "tune", "planId": "p", "planUri": "file:///plan.json"}}
    await api.create(Run.parse(run))
    await api.patch_status(Run, "r", {"status": {"phase": "Succeeded", "logUri": path.as_uri()}})


@pytest.mark.parametrize("follow", [False, True])
async def test_a_log_is_shown_line_by_line_with_its_blank_lines(api, logged, capfdbinary, follow):
    await look.logs(api, "run/r", "default", follow=follow, tail=None)
    assert capfdbinary.readouterr().out == LOG + b"\n"


async def test_a_log_is_never_asked_for_in_one_piece(api, logged, capfdbinary, monkeypatch):
    async def whole(method, path, **_):
        raise AssertionError(f"{method} {path} reads the whole log into memory")

    monkeypatch.setattr(api.transport, "request", whole)
    await look.logs(api, "run/r", "default", follow=False, tail=1)
    assert capfdbinary.readouterr().out == b"last, and the worker died here\n"


class Forgetful:
    """A server that ends every watch as etcd does when it has forgotten the version."""

    async def stream(self, path, **_):
        status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
        yield json.dumps({"type": "ERROR", "object": status}).encode()


async def test_a_watch_that_breaks_is_no_success():
    with pytest.raises(Gone, match="too old"):
        await look.get(Api(Forgetful()), ["fe"], "default", form=None, labels="", watch=True)


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
async def test_events_and_comparisons_are_shown_whole_in_both_forms(api, capsys, form, read):
    event = {"metadata": {"name": "x"}, "involvedObject": {"kind": "LLM", "name": "m"}, "reason": "Inspected"}
    await api.create_raw(EVENTS, event)
    await look.events(api, None, "default", watch=False, form=form)
    assert [e["reason"] for e in read(capsys.readouterr().out)["items"]] == ["Inspected"]
    for name in ("a", "b"):
        await api.create(FinetuneJob.parse({"metadata": {"name": name}, "spec": {"finetune": SPEC}}))
    await look.compare_runs(api, ["a", "b"], "default", form=form)
    assert [run["name"] for run in read(capsys.readouterr().out)] == ["a", "b"]


async def test_an_unknown_form_is_refused_and_not_shown_as_a_table(api):
    with pytest.raises(BadInput, match="-o wide: must be json or yaml"):
        await look.compare_runs(api, ["a", "b"], "default", form="wide")
    with pytest.raises(BadInput, match="leave out -o"):
        await look.events(api, None, "default", watch=True, form="json")
