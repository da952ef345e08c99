"""A plugin's code runs in a process of its own: what it does wrong is told, and ends there."""

import json
import sys
import time
from pathlib import Path

import psutil
import pytest

from datatunerx.plugins import DATA_PLUGINS, PluginError, process
from datatunerx.resources.material import PluginLimits
from datatunerx.runs import DataFiles, MakeDataPlan, PluginCall

PLUGIN = """
import os, subprocess, sys, time
from datatunerx.plugins import DataPlugin

def rows(call):
    print("a plugin may print")
    for n, path in enumerate(call.files):
        call.tell(n, len(call.files), "files")
        yield {"text": path.read_text() * call.parameters.get("times", 1)}
    call.leave_out("tired", "here")

def raises(call):
    yield {"text": "one"}
    raise ValueError("the third page is upside down")

def exits(call):
    sys.exit("I leave")

def dies(call):
    os.kill(os.getpid(), 11)

def eats(call):
    held = []
    while True:
        held.append(bytearray(32 << 20))

def sleeps(call):
    child = subprocess.Popen(["sleep", "600"])
    open(call.files[0].with_name("pid"), "w").write(str(child.pid))
    time.sleep(600)

def wrong(call):
    return ["not a mapping"]

nothing = 7
whole = DataPlugin(rows, "Says it.", {"type": "object", "properties": {"times": {"type": "integer"}}})
unschemed = DataPlugin(rows, "", {"type": "objekt"})
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine.py").write_text(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(name: str, **limits) -> PluginCall:
        return PluginCall(
            name="p", group=DATA_PLUGINS, entry_point=f"mine:{name}", limits=PluginLimits(**limits)
        )

    return make


def made(tmp_path: Path, plugin: PluginCall, **parameters):
    source, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("so")
    plan = MakeDataPlan(data=DataFiles(name="d", splits={}), plugin=plugin, parameters=parameters)
    heard: list = []
    return process.make(plan, "train", [source], output, heard.append), output, heard


def test_rows_are_written_and_progress_is_heard(call, tmp_path):
    done, output, heard = made(tmp_path, call("whole"), times=2)
    assert done == {"rows": 1, "leftOut": [{"reason": "tired", "count": 1, "where": ["here"]}]}
    assert [json.loads(line) for line in output.read_text().splitlines()] == [{"text": "soso"}]
    assert heard[0] == {"done": 0, "total": 1, "unit": "files", "rows": 0}


def test_what_a_plugin_is_is_found_out(call):
    facts = process.describe(call("whole"))
    assert facts.summary == "Says it." and facts.parameter_schema["properties"] == {
        "times": {"type": "integer"}
    }


@pytest.mark.parametrize(
    ("name", "reason", "said"),
    [
        ("raises", "PluginFailed", "plugin p: the third page is upside down"),
        ("exits", "PluginFailed", "plugin p: I leave"),
        ("dies", "PluginDied", "SIGSEGV"),
        ("eats", "PluginOutOfMemory", "limits.memoryBytes"),
        ("wrong", "PluginFailed", "row 1 is a str; each must be a mapping"),
        ("nothing", "NotADataPlugin", "is a int"),
        ("unheard_of", "PluginNotFound", "has no 'unheard_of'"),
    ],
)
def test_what_goes_wrong_is_said_in_the_plugins_words(name, reason, said, call, tmp_path):
    with pytest.raises(PluginError) as caught:
        made(tmp_path, call(name, memory_bytes=256 << 20))
    assert caught.value.reason == reason and said in caught.value.message


def test_a_schema_that_is_none_is_told(call):
    with pytest.raises(PluginError, match="its parameter schema is not a JSON Schema"):
        process.describe(call("unschemed"))


def test_one_that_takes_too_long_is_ended_with_all_it_has_started(call, tmp_path):
    began = time.monotonic()
    with pytest.raises(PluginError, match="longer than 4 s; raise spec.limits.timeoutSeconds") as caught:
        made(tmp_path, call("sleeps", timeout_seconds=4))
    assert caught.value.reason == "PluginTimeout" and time.monotonic() - began < 30
    child = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


PROGRAM = """
import json, sys
asked = json.load(sys.stdin)
for path in asked["files"]:
    print(json.dumps({"text": open(path).read(), "split": asked["split"], **asked["parameters"]}))
if asked["parameters"].get("fail"):
    sys.exit("the printer is on fire")
"""


def test_any_program_may_be_a_plugin(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py")]
    plugin = PluginCall(name="p", group=DATA_PLUGINS, command=command)
    assert process.describe(plugin).version is None
    _, output, _ = made(tmp_path, plugin, more=1)
    assert json.loads(output.read_text()) == {"text": "so", "split": "train", "more": 1}
    with pytest.raises(PluginError, match="ended with 1: the printer is on fire"):
        made(tmp_path, plugin, fail=True)
    with pytest.raises(PluginError, match="'no-such-program' is not on the PATH"):
        process.describe(PluginCall(name="p", group=DATA_PLUGINS, command=["no-such-program"]))
