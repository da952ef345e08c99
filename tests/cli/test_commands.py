"""The commands against a real server process: what they print, and their exit codes."""

import json
import subprocess
import sys
import time

import pytest
import yaml

pytestmark = pytest.mark.slow

GROUP = """
apiVersion: datatunerx.io/v1beta1
kind: Hyperparameter
metadata: {name: %s, labels: {team: a}}
spec: %s
"""


@pytest.fixture
def manifest(tmp_path):
    def write(text, name="x.yaml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_apply_tells_what_it_did_and_repeating_it_changes_nothing(dtx, manifest):
    path = manifest(GROUP % ("one", "{learningRate: 2e-4}"))
    assert dtx("apply", "-f", path) == "hyperparameter.datatunerx.io/one created\n"
    assert dtx("apply", "-f", path) == "hyperparameter.datatunerx.io/one unchanged\n"
    path = manifest(GROUP % ("one", "{learningRate: 3e-4}"))
    assert dtx("apply", "-f", path) == "hyperparameter.datatunerx.io/one configured\n"
    assert yaml.safe_load(dtx("get", "hp", "one", "-o", "yaml"))["spec"] == {"learningRate": 3e-4}


def test_get_knows_plural_singular_and_short_names(dtx, manifest):
    dtx("apply", "-f", manifest(GROUP % ("two", "{extends: one}")))
    for word in ("hp", "hyperparameter", "hyperparameters", "hyperparameters.datatunerx.io"):
        assert "two " in dtx("get", word)
    assert dtx("get", "hp/two", "-o", "name") == "hyperparameter.datatunerx.io/two\n"
    assert "EXTENDS" in dtx("get", "hp", "-o", "wide") and "EXTENDS" not in dtx("get", "hp")
    assert json.loads(dtx("get", "hp", "-l", "team=b", "-o", "json"))["items"] == []
    assert "hyperparameter/two" in dtx("get", "all")
    assert "NAMESPACE" in dtx("get", "hp", "-A")


def test_bad_input_is_told_by_file_object_and_field_and_nothing_is_sent(dtx, manifest):
    path = manifest(GROUP % ("ok", "{}") + "---\n" + GROUP % ("bad", "{learningRate: fast}"))
    told = dtx("apply", "-f", path, code=2)
    assert told == f'error: {path}: Hyperparameter/bad: spec.learningRate: must be a number, found "fast"\n'
    dtx("get", "hp", "ok", code=1)


def test_what_the_server_refuses_is_told_by_file_and_object_too(dtx, manifest):
    text = "apiVersion: datatunerx.io/v1beta1\nkind: FinetuneExperiment\nmetadata: {name: e}\nspec: {}\n"
    path = manifest(text)
    told = dtx("apply", "-f", path, code=2)
    assert (
        told.startswith(f"error: {path}: FinetuneExperiment/e: ") and "give jobs, a matrix, or both" in told
    )


def test_a_dry_run_keeps_nothing(dtx, manifest):
    assert "(server dry run)" in dtx("apply", "--dry-run", "-f", manifest(GROUP % ("dry", "{}")))
    dtx("get", "hp", "dry", code=1)


def test_unknown_words_name_the_nearest(dtx):
    assert "did you mean datasets?" in dtx("get", "dataset-s", code=2)
    assert "write it as KIND/NAME" in dtx("logs", "x", code=2)
    assert "-o jsn: must be one of" in dtx("get", "hp", "-o", "jsn", code=2)
    assert "No such command" in dtx("gett", code=2)


def test_describe_shows_conditions_and_events(dtx, manifest):
    dtx("apply", "-f", manifest(GROUP % ("shown", "{extends: nobody}")))
    process = dtx.start("get", "hp", "shown", "-w")
    assert process.stdout is not None
    rows = [process.stdout.readline() for _ in range(2)]
    process.terminate()
    process.communicate(timeout=60)
    assert rows[0].startswith("NAME") and rows[1].startswith("shown")
    page = dtx("describe", "hp", "shown")
    assert "Conditions:" in page and "nobody" in page and "Events:" in page
    said = dtx("describe", "hp", "shown", "-o", "yaml", code=2)
    assert "use dtx get hp shown -o yaml" in said


def test_an_experiment_can_be_suspended_resumed_and_ended_by_one_word(dtx, manifest):
    text = """
apiVersion: datatunerx.io/v1beta1
kind: FinetuneExperiment
metadata: {name: waits}
spec: {matrix: {llms: [none], datasets: [none], hyperparameters: [none]}}
"""
    dtx("apply", "-f", manifest(text))
    assert "dtx resume fe/waits" in dtx("stop", "fe/waits")
    assert json.loads(dtx("get", "fe", "waits", "-o", "json"))["spec"]["suspend"] is True
    dtx("resume", "fe/waits")
    assert json.loads(dtx("get", "fe", "waits", "-o", "json"))["spec"]["suspend"] is False
    assert "is not suspended" in dtx("resume", "fe/waits", code=1)
    assert "exclude each other" in dtx("stop", "fe/waits", "--keep", "--discard", code=2)
    assert "has no run yet" in dtx("logs", "fe/waits", code=1)
    dtx("delete", "fe/waits")
    dtx("get", "fe", "waits", code=1)


def test_delete_goes_on_past_what_is_not_there(dtx, manifest):
    dtx("apply", "-f", manifest(GROUP % ("gone", "{}")))
    told = dtx("delete", "hp/nobody", "hp/gone", code=1)
    assert '"gone" deleted' in told and '"nobody" not found' in told


def test_an_experiment_that_cannot_begin_ends_the_command_with_the_reason(dtx, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n' * 8)
    (tmp_path / "empty-model").mkdir()
    told = dtx(
        "tune", "--llm", str(tmp_path / "empty-model"), "--data", str(data), "--name", "no-model", code=1
    )
    assert "error: LLM/empty-model-" in told and "can begin before this is mended" in told
    for name in ("nobody", "fe/nobody"):  # the commands that are printed say fe/NAME
        assert 'no experiment is called "nobody" here' in dtx("watch", name, code=1)
    assert "cannot be watched" in dtx("watch", "fj/nobody", code=2)


def test_only_what_was_there_before_is_said_to_have_ended_already(dtx, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n' * 8)
    asked = (
        "tune",
        "--llm",
        "file:///nowhere",
        "--data",
        str(data),
        "--set",
        "method=qlora",
        "--name",
        "never",
    )
    first, again = dtx(*asked, code=1), dtx(*asked, code=1)
    assert "method qlora cannot be trained yet" in first and "ended already" not in first
    assert "never has ended already" in again and "first: dtx delete fe/never" in again


def test_a_wrong_upload_is_refused_before_a_byte_is_sent(dtx, tmp_path):
    (tmp_path / "rows.csv").write_text("ask,reply\na,b\n")
    (tmp_path / "empty.jsonl").touch()
    rows = str(tmp_path / "rows.csv")
    for wrong, told in (
        ((rows, "--format", "foo"), "spec.format: must be one of auto, messages"),
        ((rows, "--name", "My Data"), "metadata.name: must be at most 253 of a-z"),
        ((rows, "--map", "completion"), "write it as PART=COLUMN"),
        ((str(tmp_path / "empty.jsonl"),), "empty.jsonl: is empty"),
        ((), "name files to train on, or rows that are there to score by: --test FILE"),
    ):
        said = dtx("dataset", "upload", *wrong, code=2)
        assert told in said and "MB" not in said


def test_columns_of_an_upload_are_mapped(dtx, tmp_path):
    (tmp_path / "rows.csv").write_text("ask,reply\na,b\nc,d\n")
    said = dtx(
        "dataset", "upload", str(tmp_path / "rows.csv"), "--map", "prompt=ask", "--map", "completion=reply"
    )
    assert "Inspecting: Run inspect-" in said  # it may take long
    assert "format   prompt-completion" in said and "2 read, 2 kept" in said


def test_rows_to_score_by_are_uploaded_without_any_to_train_on(dtx, tmp_path):
    (tmp_path / "asked.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    said = dtx("dataset", "upload", "--test", str(tmp_path / "asked.jsonl"))
    assert "dataset.datatunerx.io/asked created" in said and "splits   test 1" in said


def test_a_model_that_is_not_there_is_told_with_those_that_are(dtx, manifest):
    model = (GROUP % ("none-yet", "{source: file:///none}")).replace("Hyperparameter", "LLM")
    dtx("apply", "-f", manifest(model))
    assert dtx("chat", "x", code=2).count("none-yet") == 1
    for _ in range(200):  # until it was looked at: nothing is there
        if "False" in (seen := dtx("get", "llm/none-yet")):
            break
        time.sleep(0.1)
    assert "False" in seen
    assert "LLM none-yet is not ready: " in dtx("chat", "none-yet", code=1)
    assert "no LLMCheckpoint is called" in dtx("chat", "ckpt/none-yet", code=2)
    assert "no kind is called" in dtx("compare", "--models", "modle/none-yet,x", "q", code=2)
    dtx("delete", "llm/none-yet")


def test_without_a_server_the_exit_code_is_3_and_the_fix_is_named(lonely):
    assert "dtx up" in lonely("get", "fe", code=3)
    assert "dtx up" in lonely("kubeconfig", code=3)
    (data := lonely.home.parent / "rows.jsonl").write_text("{}")
    started = ("tune", "--llm", "hf://a/b", "--data", str(data), "--no-follow")
    assert "dtx up --detach" in lonely(*started, code=3)
    assert not lonely.home.exists()  # nothing was started to find that out


def test_crds_and_dry_runs_need_no_server(lonely, tmp_path):
    crds = list(yaml.safe_load_all(lonely("crds")))
    assert len(crds) == 12 and {crd["kind"] for crd in crds} == {"CustomResourceDefinition"}
    (tmp_path / "train.jsonl").write_text("{}")
    shown = lonely("tune", "--llm", "a/b", "--data", str(tmp_path), "--dry-run", "-o", "yaml")
    assert [body["kind"] for body in yaml.safe_load_all(shown)][-1] == "FinetuneExperiment"
    assert "-o wide: must be" in lonely(
        "tune", "--llm", "a/b", "--data", "x", "--dry-run", "-o", "wide", code=2
    )
    assert "-o yaml: must be json" in lonely("doctor", "-o", "yaml", code=2)
    assert not lonely.home.exists()


def test_help_imports_neither_the_client_nor_the_models():
    code = (
        "import sys\nsys.argv = ['dtx', '--help']\nfrom datatunerx.cli.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('aiohttp', 'pydantic', 'yaml', 'uvicorn', 'torch') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "compare-runs" in said and said.rstrip().endswith("[]")
