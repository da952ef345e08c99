"""lm-evaluation-harness as a scorer: what it is told, and its results as ours.

It is pretended, but for one test that runs where it is installed: pip install 'datatunerx[lm-eval]'.
"""

import importlib.util
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from datatunerx.plugins import SCORERS, PluginError, ScoreCall, process
from datatunerx.resources.material import PluginLimits
from datatunerx.runs.plan import PluginCall
from datatunerx.scoring import read_result
from datatunerx.scoring.harness import run_harness, scores_of

FOUND = {
    "results": {
        "arc": {
            "alias": "arc", "acc,none": 0.5, "acc_stderr,none": 0.1, "acc_norm,none": 0.25,
            "acc_norm_stderr,none": "N/A",
        },
        "gsm": {"alias": "gsm", "exact_match,strict": 0.1, "exact_match_stderr,strict": 0.05},
        "wiki": {"alias": "wiki", "word_perplexity,none": float("nan"), "bits,none": 1.5},
    },
    "n-samples": {
        "arc": {"original": 90, "effective": 20}, "gsm": {"effective": 9}, "wiki": {"effective": 3},
    },
    "higher_is_better": {"arc": {"acc": True}, "wiki": {"word_perplexity": False, "bits": False}},
}  # fmt: skip


def test_its_results_become_scores_with_n_and_interval_and_nan_is_missing():
    found = read_result("h", json.dumps({"scores": scores_of(FOUND)}).encode(), num_rows=0).values
    arc = found["h/arc.acc"]
    assert (arc.value, arc.n, arc.higher_is_better) == (0.5, 20, True)
    assert (round(arc.low, 3), round(arc.high, 3)) == (0.304, 0.696)
    assert found["h/arc.acc_norm"].low is None and found["h/gsm.exact_match.strict"].n == 9
    assert found["h/wiki.word_perplexity"].value is None
    assert found["h/wiki.bits"].higher_is_better is False


PRETENDED = f"""
import json, os
def simple_evaluate(**told):
    told["task_manager"] = told["task_manager"].include_path
    open(os.environ["TOLD"], "w").write(json.dumps(told))
    return {FOUND!r}
""".replace("nan", "float('nan')")


def test_it_is_given_base_and_adapter_and_the_parameters(tmp_path, monkeypatch):
    package = tmp_path / "site" / "lm_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PRETENDED)
    (package / "tasks.py").write_text(
        textwrap.dedent("""
        class TaskManager:
            def __init__(self, include_path=None):
                self.include_path = include_path
        """)
    )
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setenv("TOLD", str(tmp_path / "told.json"))
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "predictions.jsonl").write_text("")
    call = PluginCall(name="h", group=SCORERS, entry_point="lm-eval", limits=PluginLimits())
    wanted = {"tasks": ["arc", "gsm"], "limit": 20, "includePath": "/tasks"}
    data = process.score(call, wanted, folder, Path("/base"), Path("/adapter"))
    assert read_result("h", data, 0).values["h/arc.acc"].value == 0.5
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["model_args"] == {"pretrained": "/base", "peft": "/adapter"}
    assert (told["tasks"], told["limit"], told["task_manager"]) == (["arc", "gsm"], 20, "/tasks")


TASK = """
task: own_colours
dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: [red, green, blue]
doc_to_target: label
metric_list: [{metric: acc}]
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_task_of_ones_own_is_asked_of_a_model_of_ones_own(tmp_path, tiny_model, monkeypatch):
    if importlib.util.find_spec("lm_eval") is None:
        pytest.skip("lm_eval is not installed: pip install 'datatunerx[lm-eval]'")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"question": f"say {n}", "label": n % 3}) + "\n" for n in range(12)))
    tasks, work = tmp_path / "tasks", tmp_path / "work"
    tasks.mkdir()
    work.mkdir()
    (tasks / "own_colours.yaml").write_text(TASK.replace("ROWS", str(rows)))
    (work / "predictions.jsonl").write_text("")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    limits = PluginLimits(timeout_seconds=280, memory_bytes=16 << 30)
    call = PluginCall(name="h", group=SCORERS, entry_point="lm-eval", limits=limits)
    wanted = {"tasks": ["own_colours"], "includePath": str(tasks), "device": "cpu", "batchSize": 4}
    found = read_result("h", process.score(call, wanted, work, tiny_model, None), 0).values
    score = found["h/own_colours.acc"]
    assert score.n == 12 and 0 <= score.low <= score.value <= score.high <= 1
    assert abs(score.value * 12 - round(score.value * 12)) < 1e-9  # a share of twelve rows


def test_where_it_is_missing_it_is_refused_by_the_name_of_its_extra(tmp_path):
    if subprocess.run([sys.executable, "-c", "import lm_eval"], capture_output=True).returncode == 0:
        pytest.skip("lm_eval is installed here")
    call = PluginCall(name="h", group=SCORERS, entry_point="lm-eval")
    for ask in (lambda: process.describe(call), lambda: process.score(call, {}, tmp_path, None, None)):
        (tmp_path / "predictions.jsonl").touch()
        with pytest.raises(PluginError, match=r"plugin h: .*pip install 'datatunerx\[lm-eval\]'") as refused:
            ask()
        assert refused.value.reason == "PackageMissing"


def test_a_service_has_no_model_to_load():
    with pytest.raises(ValueError, match="has none to load"):
        run_harness(ScoreCall([], {"tasks": ["arc"]}))
